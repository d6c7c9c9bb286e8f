"""Admission to virtual hosts and channels, and its revocation while a connection is open.

RabbitMQ's order and texts; all refusals concern the connection.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker.access.access import Access, User
from fluffle.broker.access.limits import LimitedResource, is_reached
from fluffle.broker.base.errors import ConnectionForced, NotAllowed
from fluffle.broker.core.connections import close_connection
from fluffle.broker.core.login import ask_read_barrier
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import Session
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientConnection
    from fluffle.broker.core.login import LoginClient


class VhostNotFound(NotAllowed):
    """The virtual host is not there."""


class ConnectionLimitReached(NotAllowed):
    """Refusal beyond the connection limit of the node, the virtual host or the user."""


def check_admission(services: Services, user: User, vhost_name: str) -> VirtualHost:
    """Return the virtual host that a user wants to open.

    VhostNotFound, ConnectionLimitReached, and plain NotAllowed without the right.
    """
    usage = services.access.usage
    node_limit = services.limits.connections_max
    if node_limit is not None and is_reached(node_limit, usage.connection_count):
        raise ConnectionLimitReached(
            f"connection refused: node connection limit ({node_limit}) is reached"
        )
    vhost = services.vhosts.get(vhost_name)
    if vhost is None:
        raise VhostNotFound(f"vhost {vhost_name} not found")
    current = services.access.current(user)
    if current is None:
        raise vhost_refused(user, vhost_name)
    limit = vhost.limits.max_connections
    if limit is not None and is_reached(
        limit, usage.in_all(LimitedResource.CONNECTIONS_TO_VHOST, vhost_name)
    ):
        refused = vhost_refused(user, vhost_name)
        raise ConnectionLimitReached(
            f"{refused.explanation}: connection limit ({limit}) is reached"
        )
    limit = current.limits.max_connections
    if limit is not None and is_reached(
        limit, usage.in_all(LimitedResource.CONNECTIONS_OF_USER, user.name)
    ):
        raise ConnectionLimitReached(
            f"connection refused for user '{user.name}': user connection limit ({limit}) is reached"
        )
    if (user.name, vhost_name) not in services.access.permissions:
        raise vhost_refused(user, vhost_name)
    return vhost


def admit(client: LoginClient, vhost_name: str) -> VirtualHost | Deferred[VirtualHost]:
    """Find the virtual host that a client wants to open, for the user it has logged in as.

    NotAllowed, as of `check_admission`; if it may only be unknown here that it may, that is known
    later.
    """
    services, user = client.services, client.handshake.user
    assert user is not None, "it has logged in"
    try:
        return check_admission(services, user, vhost_name)
    except NotAllowed:
        if services.read_barrier.is_complete:
            raise
    admission: Deferred[VirtualHost] = Deferred()

    def known() -> None:
        try:
            vhost = check_admission(services, user, vhost_name)
        except NotAllowed as refused:
            admission.fail(refused)
        else:
            admission.answer(vhost)

    ask_read_barrier(client, known, admission.fail)
    return admission


def vhost_refused(user: User, vhost_name: str) -> NotAllowed:
    """The error for a user who may not open a virtual host, or is not there to open it."""
    return NotAllowed(f"access to vhost '{vhost_name}' refused for user '{user.name}'")


def check_channel_limit(access: Access, user: User) -> None:
    """NotAllowed when the user has all the channels he may have."""
    limit = user.limits.max_channels
    if limit is not None and is_reached(
        limit, access.usage.in_all(LimitedResource.CHANNELS_OF_USER, user.name)
    ):
        raise NotAllowed(
            f"number of channels opened for user '{user.name}' has reached the maximum allowed "
            f"user limit of ({limit})"
        )


def on_change(services: Services, connection: ClientConnection, session: Session) -> None:
    """The user of a connection, his rights or the virtual host have changed."""
    why = expulsion(services, session)
    if why is not None:
        services.forced_closes.add(partial(close_connection, connection, why))
        return
    try:
        ask_again(session)
    except Exception as error:  # noqa: BLE001 - who may have kept a right has to go
        connection.give_up(error)
        return
    if any(channel.subscriptions for channel in connection.channels):
        services.forced_closes.add(partial(check_consumers, connection, session))


def check_consumers(connection: ClientConnection, session: Session) -> None:
    """End consumers that have lost the right to read."""
    if connection.session is not session:
        return
    try:
        end_forbidden(connection, session)
    except Exception as error:  # noqa: BLE001 - who may have kept a right has to go
        connection.give_up(error)


def expulsion(services: Services, session: Session) -> ConnectionForced | None:
    """Why a connection has to go, if it has to: its user or its virtual host is gone."""
    if session.user.name not in services.access.users:
        return ConnectionForced(f"user '{session.user.name}' is deleted")
    if services.vhosts.get(session.vhost.name) is not session.vhost:
        return ConnectionForced(f"vhost '{session.vhost.name}' is deleted")
    return None


def ask_again(session: Session) -> None:
    """The user or his rights may have changed: forget what was true of them."""
    session.user = session.access.users[session.user.name]
    session.rights.forget()
    session.route_cache.clear()


def end_forbidden(connection: ClientConnection, session: Session) -> None:
    """End the consumers that may not read any more."""
    for channel in tuple(connection.channels):
        for each in tuple(channel.subscriptions.values()):
            consumer = each.consumer
            if not session.rights.may("read", consumer.queue.name):
                session.detach(consumer)
                consumer.sink.cancelled(consumer)
