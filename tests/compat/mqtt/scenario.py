"""Scenarios of MQTT, and which of the two oracles is asked.

A scenario drives clients of one broker and says nothing of what is right.  The first oracle that it
names is the reference: fluffle says what that one says, but for the listed differences.  What the
other one says is recorded beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from tests.compat.mqtt.client import Client
from tests.compat.mqtt.packets import FIVE
from tests.compat.scenario import Transcript, normalised
from tests.compat.verbs import Speaker
from tests.support.client import Client as AmqpClient


class Oracle(Enum):
    """A broker that is asked."""

    MOSQUITTO = "mosquitto"
    RABBITMQ = "rabbitmq"


BOTH = (Oracle.MOSQUITTO, Oracle.RABBITMQ)
"""Questions about the protocol; mosquitto is the reference."""
AMQP = (Oracle.RABBITMQ,)
"""Questions about what touches AMQP."""

ROWS: Mapping[str, str] = {
    "1.1": "fixed header",
    "1.2": "strings, numbers",
    "1.3": "packets, and what is wrong in them",
    "1.4": "properties",
    "1.5": "reason codes",
    "1.6": "what CONNACK says",
    "2.1": "sessions",
    "2.2": "takeover",
    "2.3": "wills",
    "2.4": "keep alive",
    "2.5": "flow, packet sizes, topic aliases",
    "2.6": "subscriptions",
    "2.7": "shared subscriptions",
    "2.8": "request and response, user properties",
    "3": "quality of service",
    "4": "retained messages",
    "5": "figures of the broker",
    "6.1": "exchange, queues, bindings",
    "6.2": "topics and routing keys",
    "6.3": "from MQTT to AMQP",
    "6.4": "from AMQP to MQTT",
    "7": "login, virtual hosts, permissions",
    "11": "what one of the oracles refuses or loses",
}
"""Subjects of the scenarios, by the number that a scenario names."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a broker takes clients; mosquitto has none of AMQP."""

    mqtt: tuple[str, int]
    amqp: tuple[str, int] | None = None


@dataclass(slots=True)
class Peer:
    """The broker under test, as a scenario sees it."""

    addresses: Addresses
    name: str
    """Name of the scenario; its topics and client identifiers begin with it."""
    clients: dict[str, Client | AmqpClient] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def client(self, name: str, version: int = FIVE) -> Client:
        """A client that is not connected; its identifier is made of the scenario's name."""
        client = Client(self.addresses.mqtt, f"{self.name} {name}", version)
        self.clients[name] = client
        return client

    def open(self, name: str, version: int = FIVE, **options: Any) -> Client:
        """A client that is connected, of which the handshake is not written down."""
        return self.client(name, version).quietly(**options)

    def amqp(self, name: str = "amqp") -> Speaker:
        """A channel of an AMQP client."""
        assert self.addresses.amqp is not None, "the scenario asks one that has no AMQP"
        client = AmqpClient(*self.addresses.amqp)
        self.clients[name] = client.open()
        return Speaker(client, iter(range(1, 1000)))

    def topic(self, rest: str) -> str:
        return f"{self.name}/{rest}"

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
        shown = normalised(transcript)
        return {name: [NOW.sub("timestamp=<now>", line) for line in shown[name]] for name in shown}


NOW = re.compile(r"\btimestamp=1[6-9]\d{8}\b")
"""RabbitMQ notes when a message came that expires."""

Drive: TypeAlias = Callable[[Peer], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Conversation with the rows that it covers and its oracles."""

    name: str
    rows: tuple[str, ...]
    oracles: tuple[Oracle, ...]
    drive: Drive

    @property
    def reference(self) -> Oracle:
        return self.oracles[0]

    def run(self, addresses: Addresses) -> Transcript:
        """Run the scenario with the broker at these addresses; returns what the clients
        received."""
        peer = Peer(addresses, self.name.partition(".")[2])
        try:
            self.drive(peer)
        finally:
            transcript = peer.hang_up()
        return transcript


SCENARIOS: dict[str, Scenario] = {}


def scenario(*rows: str, of: tuple[Oracle, ...] = BOTH) -> Callable[[Drive], Drive]:
    """Register a function as a scenario for `rows`, under the name it has."""

    def register(drive: Drive) -> Drive:
        name = f"{drive.__module__.rpartition('.')[2]}.{drive.__name__}"
        assert name not in SCENARIOS, f"two scenarios are called {name}"
        SCENARIOS[name] = Scenario(name, rows, of, drive)
        return drive

    return register


def load_scenarios() -> dict[str, Scenario]:
    """Every scenario there is, by name: those of the files `section_*.py` beside this one."""
    for path in sorted(Path(__file__).parent.glob("section_*.py")):
        import_module(f"{__package__}.{path.stem}")
    return SCENARIOS
