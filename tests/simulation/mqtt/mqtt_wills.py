"""Clients of MQTT with a will for each connection, and who is sent it.

- After a connection that has ended without DISCONNECT 0x00 the will comes: that of a session that
  lasts whichever process has ended, as long as its queue is not lost; others if none has.
- It never comes once it is on record that DISCONNECT 0x00 came, nor if it was to wait for longer
  than a run and the client is back.
- One that waits comes once the session has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.vhosts.client_sessions import session_name
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Disconnect, Will
from fluffle.protocol.mqtt.reader import Publishes
from tests.simulation.facts import Violation
from tests.simulation.mqtt.mqtt_members import Member, SimulatedSubscriber, number_of
from tests.simulation.virtual_time import SECOND_US

if TYPE_CHECKING:
    from fluffle.broker.metadata.state import MetadataState
    from tests.simulation.mqtt.mqtt_clients import Clients
    from tests.simulation.mqtt.mqtt_node import Line

LONG_S = 3_600
"""Longer than a run lasts."""
SHORT_S = 1
MARGIN_US = SECOND_US // 2
"""So much a delay may be off where nothing fails."""
ENDS = ("cut", "leave", "disconnect", "disconnect", "disconnect with will")
"""How connections end, but for those whose node dies."""


@dataclass(slots=True)
class Fate:
    """Will of one connection, and what is to become of it."""

    number: int
    delay_s: int
    expiry_s: int
    clean_start: bool
    is_accepted: bool = False
    line: Line | None = None
    """Its connection."""
    has_left: bool = False
    """True if the client has sent DISCONNECT 0x00."""
    ended_us: int | None = None
    """When the connection has ended, as the client sees it."""
    must: bool = False
    never: bool = False

    @property
    def was_open(self) -> bool:
        """True if its client has left without a word: its node takes the connection for open until
        the client is back, and then the delay begins (S5 3.1.3.2.2)."""
        return self.line is not None and not self.line.is_hung_up

    @property
    def waits(self) -> bool:
        """True if it waits for its delay, and nothing else is known."""
        is_undecided = not (self.must or self.never or self.has_left)
        return is_undecided and self.ended_us is not None and self.delay_s > 0 < self.expiry_s

    @property
    def must_come(self) -> bool:
        """True if it must come; of a session that ends with its connection, if its node lives."""
        if self.must or self.ended_us is None or self.has_left or not self.is_accepted:
            return self.must
        return not self.expiry_s and self.line is not None and self.line.node.process.is_alive


class ClientWithWill(Member):
    """Client that comes and goes, with another will each time."""

    def __init__(self, clients: Clients, watcher: WillSubscriber, name: str) -> None:
        super().__init__(clients, name)
        self.watcher = watcher
        self._back_us = 0
        """When it comes back."""
        self.fates: dict[int, Fate] = {}
        """Wills by number."""
        self._fate: Fate | None = None
        """Will of the present connection."""
        self._before: Fate | None = None
        """Will of the last connection that was let in."""

    @property
    def is_done(self) -> bool:
        return True

    def look(self) -> None:
        is_away = self.line is None and self.node.now_us < self._back_us
        if self.watcher.is_subscribed and not is_away:
            super().look()

    def connect(self) -> None:
        clients, chance = self.node, self.node.other_chance
        fate = self._fate = self.fates[self.connects] = Fate(
            self.connects,
            delay_s=chance.choice((0, 0, SHORT_S, LONG_S)),
            expiry_s=chance.choice((0, 2, LONG_S, LONG_S, LONG_S)),
            clean_start=chance.random() < 0.2,
        )
        payload = b"%s/%d" % (self.name.encode(), fate.number)
        will = Will(b"will/1", payload, chance.choice((1, 2)), delay_s=fate.delay_s)
        self.line = fate.line = clients.begin(
            self.name,
            clean_start=fate.clean_start,
            expiry_s=fate.expiry_s,
            receive_max=2,
            will=will,
        )
        self.is_let_in = False

    def let_in(self, *, present: bool) -> None:
        fate, before = self._fate, self._before
        assert fate is not None
        fate.is_accepted, self._before = True, fate
        if fate.clean_start and present:
            raise Violation(f"mqtt: {self.name} has a session present that it has ended")
        if before is None or not all(each.is_accepted for each in self.fates.values()):
            return  # a CONNECT that was given up may be acted on at any time, even now
        if before.expiry_s == LONG_S and not present and not fate.clean_start:
            raise Violation(f"mqtt: the session of {self.name} is lost")
        if before.waits:
            self._decide(before, present=present)

    def _decide(self, before: Fate, *, present: bool) -> None:
        """Say what becomes of a will that waits, now that its client is back."""
        assert before.ended_us is not None
        late_us = self.node.now_us - before.ended_us - before.delay_s * SECOND_US
        is_in_time = before.was_open or late_us < -MARGIN_US
        if not present:
            before.must = True
        elif before.delay_s == LONG_S or (self.node.is_calm and is_in_time):
            before.never = True
        else:
            before.must = self.node.is_calm and late_us > MARGIN_US

    def go_on(self) -> None:
        if not self.node.is_over and self.node.other_chance.random() < 0.05:
            self._end(self.node.other_chance.choice(ENDS))

    def _end(self, how: str) -> None:
        fate, line = self._fate, self.line
        assert fate is not None
        assert line is not None
        if how == "disconnect":
            fate.has_left = True
            line.send(Disconnect())
        elif how == "disconnect with will":
            line.send(Disconnect(ReasonCode.DISCONNECT_WITH_WILL))
        if how != "leave":
            line.lose()
        self._back_us = self.node.now_us + int(
            self.node.other_chance.choice((0, 0.3, 3.5)) * SECOND_US
        )
        self.lose()

    def lose(self) -> None:
        super().lose()
        fate, self._fate = self._fate, None
        if fate is None or not fate.is_accepted:
            return
        fate.ended_us = self.node.now_us
        if not fate.has_left and not fate.delay_s and fate.expiry_s:
            fate.must = True

    def defined(self, definitions: MetadataState) -> None:
        """Definitions have changed: once the end of a connection by DISCONNECT 0x00 is on record,
        its will must not come."""
        before = self._before
        if before is None or not before.has_left or before.never or before.line is None:
            return
        found = definitions.find(session_name("/", self.name))
        session, process = None if found is None else found.value, before.line.node.process
        if not isinstance(session, ClientSession) or not before.line.has_taken_leave:
            return
        is_its = session.node == process.node and process.is_alive
        before.never = is_its and bool(session.ended_at_ms) and not session.record


class WillSubscriber(SimulatedSubscriber):
    """Client that is sent the wills of others."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients, "w", "will/+", 2)
        self.was_lost = False
        """True if its queue was lost once."""
        self.others = [ClientWithWill(clients, self, f"w{number}") for number in (1, 2)]
        self._came: set[tuple[str, int]] = set()

    def subscribed(self) -> None:
        self.first_due = {each.name: each.connects + 1 for each in self.others}

    def lacking(self) -> list[str]:
        """Return some wills that must come: one of a session that ends with its connection may be
        lost with its process, and any with the disks of the queue."""
        if self.was_lost:
            return []
        return [
            f"will {fate}"
            for each in self.others
            for fate in each.fates.values()
            if fate.must_come
            and (fate.expiry_s or self.node.has_no_death)
            and fate.number >= self.first_due.get(each.name, 0)
            and (each.name, fate.number) not in self._came
        ][:3]

    def take(self, packet: Publishes, payload: bytes) -> None:
        name, number = payload.partition(b"/")[0].decode(), number_of(payload)
        fates = {each.name: each.fates for each in self.others}[name]
        if number not in fates:
            raise Violation(f"mqtt: there is no will {payload!r}")
        if fates[number].never:
            raise Violation(f"mqtt: {fates[number]} comes, though it must not")
        if (name, number) in self._came:
            self.again += 1
            if self.node.is_calm:
                raise Violation(f"mqtt: {fates[number]} comes twice")
        self._came.add((name, number))
