"""Scenarios, their transcripts, and how two transcripts are made comparable.

A scenario drives clients of one broker and says nothing of what is right: what the clients hear is
the result, and RabbitMQ's is the expectation.  Names that a broker makes up are replaced by their
order of appearance.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeAlias

from fluffle.protocol.methods import Queue
from tests.support.client import Client

Transcript: TypeAlias = dict[str, list[str]]
"""Received events, by the name of the client."""


@dataclass(slots=True)
class Peer:
    """The broker under test, as a scenario sees it."""

    host: str
    port: int
    clients: dict[str, Client] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    declared_as: "DeclaredAs | None" = None
    """Function that changes the declares of queues, if they are not sent as the scenario says."""

    def connect(self, name: str = "client") -> Client:
        """A socket, nothing sent; what it hears is written down from the start."""
        client = self.clients[name] = Client(self.host, self.port)
        client.record()
        return client

    def client(self, name: str = "client", **options: object) -> Client:
        """An open connection; the handshake is not written down.  Options as `Client.open`."""
        client = self.clients[name] = Client(self.host, self.port)
        return client.open(**options)  # type: ignore[arg-type]

    def note(self, text: object) -> None:
        """Write down something that the scenario itself has found out."""
        self.notes.append(str(text))

    def hang_up(self) -> Transcript:
        """End all clients; what they have heard."""
        for client in self.clients.values():
            client.close()
        transcript = {name: client.transcript for name, client in self.clients.items()}
        if self.notes:
            transcript["notes"] = self.notes
        return normalised(transcript)


class DeclaredAs(Protocol):
    """Lets a scenario run with queues of another type than it has been written for."""

    def __call__(self, declare: Queue.Declare) -> Queue.Declare:
        """Declare that is sent instead."""


class End(Enum):
    """How a broker ends before it is started again."""

    STOP = auto()
    """In order."""
    KILL = auto()


Drive: TypeAlias = Callable[[Peer], None]
DriveAcross: TypeAlias = Callable[[Peer], Iterator[None]]
"""Yields where the broker ends and starts again."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Conversation with the rows of RabbitMQ's behaviour that it covers."""

    name: str
    rows: tuple[str, ...]
    drive: Drive

    def run(self, host: str, port: int) -> Transcript:
        """Run the scenario with the broker at this address; returns what the clients received."""
        peer = Peer(host, port)
        try:
            self.drive(peer)
        finally:
            transcript = peer.hang_up()
        return transcript


@dataclass(frozen=True, slots=True)
class Crossing:
    """A conversation in the middle of which the broker ends and starts again."""

    name: str
    rows: tuple[str, ...]
    drive: DriveAcross
    end: End


class Switch(Protocol):
    """Makes a resource of the broker low, or not."""

    def __call__(self, resource: str, *, low: bool) -> None:
        """`memory` or `disk`; returns when the broker knows."""


DriveUnderAlarm: TypeAlias = Callable[[Peer, Switch], None]


@dataclass(frozen=True, slots=True)
class AlarmScenario:
    """A conversation while resources become low and are no longer."""

    name: str
    rows: tuple[str, ...]
    drive: DriveUnderAlarm

    def run(self, port: int, switch: Switch) -> Transcript:
        peer = Peer("127.0.0.1", port)
        try:
            self.drive(peer, switch)
        finally:
            transcript = peer.hang_up()
        return transcript


SCENARIOS: dict[str, Scenario] = {}
ALARMS: dict[str, AlarmScenario] = {}
CROSSINGS: dict[str, Crossing] = {}


def scenario(*rows: str) -> Callable[[Drive], Drive]:
    """Register a function as a scenario for `rows` (`"7.5"`), under the name it has."""

    def register(drive: Drive) -> Drive:
        name = f"{drive.__module__.rpartition('.')[2]}.{drive.__name__}"
        assert name not in SCENARIOS, f"two scenarios are called {name}"
        SCENARIOS[name] = Scenario(name, rows, drive)
        return drive

    return register


def across(end: End, *rows: str) -> Callable[[DriveAcross], DriveAcross]:
    """Register a generator function as a scenario that goes across a restart."""

    def register(drive: DriveAcross) -> DriveAcross:
        name = f"{drive.__module__.rpartition('.')[2]}.{drive.__name__}.{end.name.lower()}"
        assert name not in CROSSINGS, f"two scenarios are called {name}"
        CROSSINGS[name] = Crossing(name, rows, drive, end)
        return drive

    return register


def under_alarm(*rows: str) -> Callable[[DriveUnderAlarm], DriveUnderAlarm]:
    """Register a scenario that is given a switch; when it ends, no resource may be low."""

    def register(drive: DriveUnderAlarm) -> DriveUnderAlarm:
        name = f"{drive.__module__.rpartition('.')[2]}.{drive.__name__}"
        assert name not in ALARMS, f"two scenarios are called {name}"
        ALARMS[name] = AlarmScenario(name, rows, drive)
        return drive

    return register


def load_scenarios() -> dict[str, Scenario]:
    """Every scenario there is, by name: those of the files `section_*.py` beside this one."""
    for path in sorted(Path(__file__).parent.glob("section_*.py")):
        import_module(f"{__package__}.{path.stem}")
    return SCENARIOS


GENERATED = re.compile(
    r"amq\.gen-[\w-]{22}|amq\.ctag-[\w-]{22}|amq\.rabbitmq\.reply-to\.[\w+/=.-]+"
)


def normalised(transcript: Transcript) -> Transcript:
    """The same with generated names numbered in the order of their appearance."""
    seen: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        kind = re.match(r"amq\.(gen|ctag|rabbitmq\.reply-to)", match[0])
        assert kind is not None
        return seen.setdefault(match[0], f"<{kind[1]} {len(seen) + 1}>")

    return {
        name: [GENERATED.sub(replace, line) for line in lines] for name, lines in transcript.items()
    }
