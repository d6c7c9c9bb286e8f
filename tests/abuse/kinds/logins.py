"""Floods of wrong passwords, of cheap hashes and of one that is made to be slow."""

from __future__ import annotations

from random import Random

from fluffle.protocol.methods import Connection, make, pamqp_table
from fluffle.protocol.spec import PROTOCOL_HEADER
from fluffle.protocol.wire import to_table
from tests.abuse.target import AttackContext
from tests.support.client import CAPABILITIES, start_ok

ACCESS_REFUSED, SYNTAX_ERROR, COMMAND_INVALID = 403, 502, 503
LOGINS = 3


def refused(context: AttackContext, user: str, password: str, *, is_reported: bool = True) -> None:
    """Try a login that fails.  Where hashes are slow too many of them are not answered in time."""
    with context.accept() as rogue:
        rogue.send(PROTOCOL_HEADER)
        rogue.client.expect("Connection.Start")
        rogue.client.send(0, start_ok(user, password, CAPABILITIES if is_reported else ()))
        rogue.ends(*[ACCESS_REFUSED] * is_reported, may_be_mute=bool(context.target.slow_user))


def wrong_passwords(context: AttackContext, chance: Random) -> None:
    """Guesses, for a user that exists and for others, by clients that hear of it and that do
    not."""
    for _ in range(LOGINS):
        user = chance.choice(("guest", "admin", "x" * 200))
        refused(context, user, f"{chance.random()}", is_reported=chance.random() < 0.8)


def wrong_slow_passwords(context: AttackContext, chance: Random) -> None:
    """Guesses at a password that takes long to compare."""
    if context.target.slow_user:
        for _ in range(2):
            refused(context, context.target.slow_user, f"{chance.random()}")


def impossible_logins(context: AttackContext, chance: Random) -> None:
    """Mechanisms that do not exist and responses that are none."""
    mechanism, response, code = chance.choice(
        (
            ("CRAM-MD5", b"\0guest\0guest", COMMAND_INVALID),
            ("EXTERNAL", b"", COMMAND_INVALID),
            ("PLAIN", b"x" * 1_000, SYNTAX_ERROR),
            ("AMQPLAIN", b"\xff" * 1_000, SYNTAX_ERROR),
        )
    )
    method = make(
        Connection.StartOk,
        client_properties=pamqp_table(to_table({})),
        mechanism=mechanism,
        response=response,  # type: ignore[arg-type]
    )
    with context.accept() as rogue:
        rogue.send(PROTOCOL_HEADER)
        rogue.client.expect("Connection.Start")
        rogue.client.send(0, method)
        rogue.ends(code)


KINDS = {
    "wrong passwords": wrong_passwords,
    "wrong slow passwords": wrong_slow_passwords,
    "impossible logins": impossible_logins,
}
