"""The load generator notices what a broker does wrong: its checks are only worth this much."""

import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import load
from benchmarks.brokers import NotAvailable
from benchmarks.client import Address, method, receive
from benchmarks.load import Report
from tests.support.deadlines import DEADLINE_S
from tests.support.require import unavailable

MESSAGES = 10

REPLIES = {
    (10, 11): method(10, 30, struct.pack(">HIH", 2047, 131072, 0)),  # start-ok: tune
    (10, 40): method(10, 41, b"\x00"),  # open: open-ok
    (10, 50): method(10, 51, b""),  # close: close-ok
    (20, 10): b"\x01\x00\x01" + method(20, 11, bytes(4))[3:],  # and so on, on channel 1
    (50, 10): b"\x01\x00\x01" + method(50, 11, b"\x01q" + bytes(8))[3:],
    (50, 40): b"\x01\x00\x01" + method(50, 41, bytes(4))[3:],
    (60, 10): b"\x01\x00\x01" + method(60, 11, b"")[3:],
    (85, 10): b"\x01\x00\x01" + method(85, 11, b"")[3:],
}

Tamper = Callable[[list[bytes]], list[bytes]]


class ScriptedBroker(socketserver.ThreadingTCPServer):
    """Confirms `MESSAGES` publishes at once and delivers what `tamper` makes of them."""

    def __init__(self, tamper: Tamper) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.tamper = tamper
        self.headers: list[bytes] = []
        self.consumer: Session | None = None
        self.consuming = threading.Event()


class Session(socketserver.BaseRequestHandler):
    """Connection, until it is closed or gone."""

    server: ScriptedBroker

    def handle(self) -> None:
        receive(self.request, 8)
        self.request.sendall(
            method(10, 10, b"\x00\x09" + bytes(4) + struct.pack(">I", 5) + b"PLAIN")
        )
        contents: list[bytes] = []
        for kind, payload in self.frames():
            if kind == 2:
                self.server.headers.append(payload)
            elif kind == 3:
                contents.append(payload)
                if len(contents) == MESSAGES:
                    self.deliver(contents)
            elif kind == 1:
                called = struct.unpack_from(">HH", payload)
                if called == (60, 20):
                    self.server.consumer = self
                    self.server.consuming.set()
                self.request.sendall(REPLIES.get(called, b""))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        while head := self.request.recv(1):
            _channel, size = struct.unpack(">HI", receive(self.request, 6))
            yield head[0], receive(self.request, size + 1)[:-1]

    def deliver(self, bodies: list[bytes]) -> None:
        assert self.server.consuming.wait(10)
        assert self.server.consumer is not None
        out = b""
        for tag, body in enumerate(self.server.tamper(bodies), 1):
            deliver = method(60, 60, b"\x02c0" + struct.pack(">QB", tag, 0) + b"\x00\x01q")
            header = struct.pack(">BHIHHQHB", 2, 1, 14, 60, 0, len(body), 0, 0xCE)
            out += b"\x01\x00\x01" + deliver[3:] + header
            out += struct.pack(">BHI", 3, 1, len(body)) + body + b"\xce"
        self.server.consumer.request.sendall(out)
        confirm = method(60, 80, struct.pack(">QB", MESSAGES, 1))
        self.request.sendall(b"\x01\x00\x01" + confirm[3:])


@contextmanager
def serving(tamper: Tamper) -> Iterator[ScriptedBroker]:
    with ScriptedBroker(tamper) as broker:
        thread = threading.Thread(target=broker.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield broker
        finally:
            broker.shutdown()
            thread.join()


def report_of(tamper: Tamper) -> Report:
    return load_on(tamper)[0]


def load_on(tamper: Tamper, *options: str) -> tuple[Report, list[bytes]]:
    """Report of amqpload, and the content headers it sent."""
    try:
        load.build()
    except NotAvailable as missing:
        unavailable(str(missing))
    arguments = ["-z", "-f", "-k", "1", "-u", "100", "-n", str(MESSAGES), "-d", "0.3"]
    with serving(tamper) as broker:
        address = Address(*broker.server_address[:2])  # type: ignore[arg-type]
        report = load.command(address, [*arguments, *options], pids=[], timeout_s=DEADLINE_S)
        return report, broker.headers


@pytest.mark.parametrize(
    ("tamper", "fault"),
    [
        (lambda bodies: bodies[:3] + bodies[4:], "lost"),
        (lambda bodies: bodies[:3] + bodies[2:], "duplicates"),
        (lambda bodies: [*bodies[:2], bodies[3], bodies[2], *bodies[4:]], "reordered"),
    ],
    ids=["lost", "duplicate", "reordered"],
)
def test_a_broken_promise_is_counted(tamper: Tamper, fault: str) -> None:
    report = report_of(tamper)
    assert report[fault] == 1
    assert report["published"] == report["confirmed"] == MESSAGES


def test_a_faithful_broker_is_not_blamed() -> None:
    report = report_of(lambda bodies: bodies)
    assert report["received"] == MESSAGES
    assert not any(report[name] for name in ("lost", "duplicates", "reordered", "errors"))


@pytest.mark.parametrize("options", [("-m",), ("-m", "-P")])
def test_each_message_has_an_id_of_its_own_if_asked(options: tuple[str, ...]) -> None:
    report, headers = load_on(lambda bodies: bodies, *options)
    assert report["received"] == MESSAGES
    persistent = b"\x02" if "-P" in options else b""
    flags = 0x0080 | (0x1000 if persistent else 0)
    assert headers == [
        struct.pack(">HHQH", 60, 0, 16, flags) + persistent + b"\x24amqpload-message-id-%016x" % n
        for n in range(MESSAGES)
    ]
