"""Where abuse happens: addresses of a node, rogues that connect to it, and sockets left behind.

What an attack wants to see later (a socket that must be cut off by then) it leaves here: `keep`.
Whoever runs attacks calls `look` now and then, and `clear` at the end.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

from fluffle.protocol.methods import Channel, Connection, Method, Queue, make
from tests.support.client import Client, Closed
from tests.support.deadlines import DEADLINE_S

Address = tuple[str, int]

BROKEN_S = 3.0
"""Time for a client to read why its connection was closed, when it can be read no more."""

SLACK_S = 5.0
"""How much later than promised a socket may be cut off on a machine that is busy."""


class UnexpectedAnswer(Exception):
    """The node did something else than it must."""


@dataclass(frozen=True, slots=True)
class Target:
    """Addresses of one node, or of two that are alike except for PROXY headers; plain values, to be
    sent along."""

    amqp: Address
    amqps: Address | None = None
    proxied: Address | None = None
    """Address of a node that wants a PROXY header first."""
    mqtt: Address | None = None
    mqtt_ws: Address | None = None
    ca_file: Path | None = None
    slow_user: str = ""
    """A user whose password is hashed with argon2, if there is one."""


@dataclass(slots=True)
class Kept:
    """A socket that the node has to cut off until `until_s`."""

    sock: socket.socket
    until_s: float
    """End of its time; infinite if it may stay."""
    promise: str


class RogueClient:
    """A client that means no good, and the answer that it expects."""

    def __init__(self, client: Client, keep: Callable[[socket.socket, float, str], None]) -> None:
        self.client = client
        self._keep = keep
        self._is_left = False

    def send(self, data: bytes) -> None:
        """Bytes as they are; a peer that has gone is heard of later."""
        with suppress(OSError):
            self.client.send_bytes(data)

    def call(self, channel: int, method: Method) -> Method:
        """Answer to a method, which must not be a close."""
        answer = self.client.call(channel, method).method
        if answer.name.endswith(".Close"):
            raise UnexpectedAnswer(f"{method.name} was answered with {dict(answer)}")
        return answer

    def declare(self, channel: int = 1) -> str:
        """A queue of its own, which goes with the connection; its name."""
        answer = self.call(channel, make(Queue.Declare, queue="", exclusive=True))
        assert isinstance(answer, Queue.DeclareOk)
        return answer.queue or ""

    def pour(self, data: bytes) -> int:
        """Send as much as the socket takes without waiting; returns the number of bytes."""
        sock, sent = self.client.socket, 0
        sock.setblocking(False)
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while sent < len(data):
                sent += sock.send(data[sent:])
        sock.settimeout(DEADLINE_S)
        return sent

    def ends(self, *codes: int, may_be_mute: bool = False) -> None:
        """The connection is closed with one of `codes`; without any, the socket without a word."""
        try:
            heard = self.client.next().method
            while not isinstance(heard, Connection.Close):
                heard = self.client.next().method
        except Closed:
            if codes and not may_be_mute:
                raise UnexpectedAnswer(f"the socket was closed instead of {codes}") from None
            return
        except TimeoutError:
            raise UnexpectedAnswer(f"nothing was said instead of {codes or 'the end'}") from None
        if heard.reply_code not in codes:
            raise UnexpectedAnswer(f"{heard.reply_code} {heard.reply_text} instead of {codes}")
        self.client.send(0, make(Connection.CloseOk))
        self.leave_open(BROKEN_S, f"a connection that was closed with {heard.reply_code}")

    def leave_open(self, within_s: float = inf, promise: str = "") -> None:
        """The node has to cut it off within so many seconds; somebody looks then.

        Without a promise it may stay as long as the storm.
        """
        self._is_left = True
        self._keep(self.client.socket, within_s, promise)

    def channel_ends(self, channel: int, code: int) -> None:
        """A channel is closed with `code`, and the connection goes on."""
        heard = self.client.expect("Channel.Close")[-1]
        assert isinstance(heard.method, Channel.Close)
        if (heard.channel, heard.method.reply_code) != (channel, code):
            raise UnexpectedAnswer(f"{heard} instead of {code} on {channel}")
        self.client.send(channel, make(Channel.CloseOk))

    def is_cut_off(self) -> None:
        """Nothing more is said, and the socket is closed."""
        try:
            self.client.until_closed()
        except TimeoutError:
            raise UnexpectedAnswer("the socket was not closed") from None

    def leave(self) -> None:
        """Close the connection in order."""
        close = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
        answer = self.client.call(0, close)
        if answer.name != "Connection.CloseOk":
            raise UnexpectedAnswer(f"a close was answered with {answer}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if not self._is_left:
            self.client.close()


@dataclass(slots=True)
class AttackCounts:
    """Counts of what one kind of attack has done so far."""

    attacks: int = 0
    events: int = 0
    """Connections, and channels that were closed for an error: each may cost a line in the log."""
    surprises: list[str] = field(default_factory=list)


class AttackContext:
    """Makes rogues for one kind of abuse, and counts what they do.  Threads may share it."""

    def __init__(self, target: Target, now_s: Callable[[], float]) -> None:
        self.target = target
        self.tally = AttackCounts()
        self._now_s = now_s
        self._kept: list[Kept] = []
        self._lock = threading.Lock()

    def count(self, events: int = 1) -> None:
        """Count events that may be logged."""
        with self._lock:
            self.tally.events += events

    def accept(self) -> RogueClient:
        """A connection on which nothing was said."""
        self.count()
        return RogueClient(Client(*self.target.amqp), self.keep)

    def raw(self, address: Address) -> socket.socket:
        """A socket that is connected to any of the addresses."""
        self.count()
        return socket.create_connection(address, DEADLINE_S)

    def tls(self) -> ssl.SSLContext:
        """A client's context that trusts the node."""
        return ssl.create_default_context(cafile=self.target.ca_file)

    def log_in(self, *channels: int, heartbeat: int = 0) -> RogueClient:
        """A connection with these channels open."""
        rogue = self.accept()
        try:
            rogue.client.open(heartbeat=heartbeat)
            for channel in channels:
                rogue.client.channel(channel)
        except (Closed, OSError):
            rogue.client.close()
            raise
        return rogue

    def keep(self, sock: socket.socket, within_s: float, promise: str) -> None:
        """Leave a socket open that has to be cut off within so many seconds."""
        with self._lock:
            until_s = self._now_s() + within_s + SLACK_S
            self._kept.append(Kept(sock, until_s, promise))

    def look(self) -> None:
        """Settle those whose time is up."""
        now_s = self._now_s()
        with self._lock:
            due = [kept for kept in self._kept if kept.until_s <= now_s]
            self._kept = [kept for kept in self._kept if kept.until_s > now_s]
        for kept in due:
            if not is_closed(kept.sock):
                self.surprise(f"still open after its time: {kept.promise}")
            kept.sock.close()

    def surprise(self, text: str) -> None:
        """The node did something else than it must."""
        with self._lock:
            self.tally.surprises.append(text)

    def clear(self) -> None:
        """Let go of everything, whether its time is up or not."""
        self.look()
        with self._lock:
            left, self._kept = self._kept, []
        for kept in left:
            kept.sock.close()


def is_closed(sock: socket.socket) -> bool:
    """True if the peer has closed a socket; reads all there is."""
    sock.setblocking(False)
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
