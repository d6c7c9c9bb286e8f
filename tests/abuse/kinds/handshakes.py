"""Before a connection is open: garbage, slowness, silence, and too much at once."""

from __future__ import annotations

from random import Random

from fluffle.protocol.methods import Connection, Queue, make
from fluffle.protocol.spec import FRAME_METHOD, PROTOCOL_HEADER
from tests.abuse.target import AttackContext, UnexpectedAnswer
from tests.support.client import raw_frame, start_ok

HANDSHAKE_S = 10
HEARTBEAT_S = 1
FRAME_ERROR, CHANNEL_ERROR = 501, 504


def garbage_before_the_header(context: AttackContext, chance: Random) -> None:
    """Another protocol, or none: answered with ours, and closed."""
    sent = chance.choice((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", bytes(8)))
    with context.accept() as rogue:
        rogue.send(sent)
        if rogue.client.frame().payload != PROTOCOL_HEADER:
            raise UnexpectedAnswer("garbage was not answered with a protocol header")
        rogue.is_cut_off()


def slow_handshakes(context: AttackContext, chance: Random) -> None:
    """A handshake that stops on the way."""
    rogue = context.accept()
    steps = chance.randrange(4)
    rogue.send(PROTOCOL_HEADER[: 8 if steps else 5])
    if steps >= 2:
        rogue.client.expect("Connection.Start")
        rogue.client.send(0, start_ok())
    if steps >= 3:
        rogue.client.expect("Connection.Tune")
        tune_ok = make(Connection.TuneOk, channel_max=1, frame_max=8192, heartbeat=0)
        rogue.client.send(0, tune_ok)
    rogue.leave_open(HANDSHAKE_S, f"a handshake that stopped after {steps} steps")


def large_handshakes(context: AttackContext, chance: Random) -> None:
    """A start-ok that is larger than any may be, announced or sent."""
    with context.accept() as rogue:
        rogue.send(PROTOCOL_HEADER)
        rogue.client.expect("Connection.Start")
        rogue.send(
            raw_frame(
                FRAME_METHOD, 0, b"\x00\x0a\x00\x0b" + bytes(chance.randrange(9_000, 100_000))
            )
        )
        rogue.ends(FRAME_ERROR)


def hasty_handshakes(context: AttackContext, chance: Random) -> None:
    """Methods on channels, and of other phases, before the connection is open."""
    hasty = chance.choice(
        (
            make(Connection.TuneOk, channel_max=1, frame_max=8192, heartbeat=0),
            make(Connection.Open, virtual_host="/"),
            make(Queue.Declare, queue="hasty"),
        )
    )
    with context.accept() as rogue:
        rogue.send(PROTOCOL_HEADER)
        rogue.client.expect("Connection.Start")
        rogue.client.send(0, *[hasty] * 100)
        rogue.ends(CHANNEL_ERROR, 503)


def silent_peers(context: AttackContext, _chance: Random) -> None:
    """A peer that vanished: it agreed to heartbeats, and sends none; nothing closes the socket."""
    rogue = context.log_in(1, heartbeat=HEARTBEAT_S)
    rogue.leave_open(3 * HEARTBEAT_S, "a peer that sends no heartbeats")


KINDS = {
    "garbage before the header": garbage_before_the_header,
    "slow handshakes": slow_handshakes,
    "large handshakes": large_handshakes,
    "hasty handshakes": hasty_handshakes,
    "silent peers": silent_peers,
}
