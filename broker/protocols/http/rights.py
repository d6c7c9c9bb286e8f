"""Authentication of requests (RFC 7617), and rights by RabbitMQ's tags of users.

management      what he may reach by AMQP
policymaker     and policies and parameters there
monitoring      management, and looking at everybody's connections, nodes, all virtual hosts
administrator   everything
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import NamedTuple

from fluffle.broker.access.access import (
    ADMINISTRATOR,
    Access,
    LoginRefused,
    User,
    decoded_user_name,
)
from fluffle.broker.base.callbacks import answer_of
from fluffle.broker.base.logs import event
from fluffle.broker.protocols.http.responses import LOGIN, UNAUTHORIZED, Refusal, Reply, body_of

SCHEME = "basic"

logger = logging.getLogger(__name__)


class RequestPeer(NamedTuple):
    """Address that a request comes from."""

    address: str
    is_loopback: bool
    is_there: Callable[[], bool]
    """Function that says if the client still waits for the answer."""


async def authenticated(access: Access, authorization: str, peer: RequestPeer) -> User:
    """The user that the header `Authorization` names.  Refusal.

    The log says which user has failed and from where, never what he sent.
    """
    name, password = credentials(authorization)
    login = partial(
        access.login,
        name,
        password,
        from_loopback=peer.is_loopback,
        source=peer.address,
        is_there=peer.is_there,
    )
    user: User | LoginRefused = await answer_of(login)
    if isinstance(user, LoginRefused):
        fields = {"reason": user, "peer": peer.address, "by": "http"}
        event(logger, logging.WARNING, "authentication_failed", **fields)
        raise login_failed()
    return user


def credentials(authorization: str) -> tuple[str, bytes]:
    """The name and the password of a header.  Refusal."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != SCHEME:
        raise login_failed()
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise login_failed() from None
    name, colon, password = decoded.partition(b":")
    if not colon:
        raise login_failed()
    return decoded_user_name(name), password


def login_failed() -> Refusal:
    """401, without a word on why."""
    return Refusal(Reply(UNAUTHORIZED, body_of("not_authorized", "Login failed"), headers=LOGIN))


MANAGEMENT = "management"
POLICYMAKER = "policymaker"
MONITORING = "monitoring"

MANAGERS = frozenset({MANAGEMENT, POLICYMAKER, MONITORING, ADMINISTRATOR})
MONITORS = frozenset({MONITORING, ADMINISTRATOR})
POLICYMAKERS = frozenset({POLICYMAKER, ADMINISTRATOR})
ADMINISTRATORS = frozenset({ADMINISTRATOR})


class Right(Enum):
    """The right that an endpoint asks of its caller."""

    ANYBODY = "anybody"
    """No right: not even a login is needed."""
    MANAGEMENT = "management"
    VHOST = "vhost"
    """Right to the virtual host in the path: the user may open it by AMQP, or administers it."""
    VHOST_VISIBLE = "vhost visible"
    """The same, and who monitors may look."""
    POLICYMAKER = "policymaker"
    """In the virtual host in the path, if there is one."""
    MONITORING = "monitoring"
    ADMINISTRATOR = "administrator"


NO_MANAGER = "Not management user"
"""Error text for a user without any tag."""

TAGS: Mapping[Right, tuple[frozenset[str], str]] = {
    Right.MANAGEMENT: (MANAGERS, NO_MANAGER),
    Right.VHOST: (MANAGERS, "User not authorised to access virtual host"),
    Right.VHOST_VISIBLE: (MANAGERS, "User not authorised to access virtual host"),
    Right.POLICYMAKER: (POLICYMAKERS, "User not authorised to access object"),
    Right.MONITORING: (MONITORS, "Not monitor user"),
    Right.ADMINISTRATOR: (ADMINISTRATORS, "Not administrator user"),
}
"""Tags of which one is needed, with the error text for users of the management without."""


def refusal_reason(right: Right, user: User, vhost: str | None, access: Access) -> str | None:
    """Why a user may not, with RabbitMQ's words; None if he may."""
    if right is Right.ANYBODY:
        return None
    tags, reason = TAGS[right]
    if MANAGERS.isdisjoint(user.tags):
        return NO_MANAGER
    may = VHOST_RIGHTS.get(right)
    is_outside = may is not None and vhost is not None and not may(user, vhost, access)
    return reason if is_outside or tags.isdisjoint(user.tags) else None


def may_open(user: User, vhost: str, access: Access) -> bool:
    """True if he may open it by AMQP, or administers it."""
    return ADMINISTRATOR in user.tags or (user.name, vhost) in access.permissions


def may_see(user: User, vhost: str, access: Access) -> bool:
    return is_monitor(user) or may_open(user, vhost, access)


def is_monitor(user: User) -> bool:
    """True if he may look at what is others'."""
    return not MONITORS.isdisjoint(user.tags)


VHOST_RIGHTS: Mapping[Right, Callable[[User, str, Access], bool]] = {
    Right.VHOST: may_open,
    Right.VHOST_VISIBLE: may_see,
    Right.POLICYMAKER: may_open,
}
