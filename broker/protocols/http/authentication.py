"""Who sends a request: HTTP basic authentication (RFC 7617) with the users of the broker."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from fluffle.broker.access.access import Access, LoginRefused
from fluffle.broker.access.users import User
from fluffle.broker.base.coroutines import answer_of
from fluffle.broker.base.logs import event
from fluffle.broker.protocols.amqp091.sasl import text
from fluffle.broker.protocols.http.responses import LOGIN, UNAUTHORIZED, Refusal, Reply, body_of

SCHEME = "basic"

logger = logging.getLogger(__name__)


class Peer(NamedTuple):
    """Where a request comes from."""

    address: str
    is_loopback: bool
    is_there: Callable[[], bool]
    """Whether he still waits for the answer."""


async def authenticated(access: Access, authorization: str, peer: Peer) -> User:
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
        event(logger, logging.WARNING, "login_failed", reason=user, peer=peer.address, by="http")
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
    return text(name), password


def login_failed() -> Refusal:
    """401, without a word on why."""
    return Refusal(Reply(UNAUTHORIZED, body_of("not_authorized", "Login failed"), headers=LOGIN))
