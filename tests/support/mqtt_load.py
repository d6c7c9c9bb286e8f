"""MQTT clients at work beside a broker in trouble, and what they must have got in the end.

    load = MqttLoad(seed=1, report=findings)
    await load.work(("127.0.0.1", 1883), random)   # until the connection of one of them ends
    await load.finish(address)                     # all comes back, is taken, and is checked

Publishers and subscribers have sessions that last, and keep to the specification: they send again
what was not answered, and take no message of QoS 2 twice whose identifier they hold.  The rules:

- a session that was there is present;
- a message that was acknowledged comes to all subscribers, and none comes that was not published;
- by a node that is alone they come in order, but for those that come again, and from QoS 2 to
  QoS 2 each comes once;
- who subscribes anew is sent what was retained last, or later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from random import Random

from fluffle.broker.torture.checker import Breach, Findings
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Suback,
    Subscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.reader import Acks, ClientReader, Event, Publishes
from tests.support.deadlines import DEADLINE_S

Address = tuple[str, int]

WINDOW = 10
"""Messages that a client takes at most before it has answered, and that a publisher sends at once
unless it is asked otherwise."""
CUT_SHARE = 0.01
"""Reads of a client, of all, after which it cuts its own connection."""
AGAIN_S = 0.2
"""How long it takes at least until what is retained is asked for again."""
CONNECT_S = 20.0
"""How long the answer to CONNECT may take; then the client tries elsewhere."""
EXPIRY_S = 80_000
LAST_PACKET_ID = 2
"""Identifier of the packet in which a subscriber sends its last message to itself."""


class Cut(Exception):
    """The client has cut its connection itself."""


class Refused(ConnectionError):
    """The node does not let the client in, now."""


class Member:
    """Client with a session that lasts."""

    must_keep_session = True

    def __init__(self, load: MqttLoad, name: str, version: int) -> None:
        self.load = load
        self.name = name
        self.version = version
        self.had_session = False
        self.is_let_in = False
        self._writer: asyncio.StreamWriter

    @property
    def is_done(self) -> bool:
        """True if nothing is left to do once nothing more is published; of this class never."""
        return False

    async def live(self, to: Address, random: Random, *, may_cut: bool = True) -> None:
        """Work over one connection.  OSError once the node ends it, Cut where the client does;
        else it returns when all is done."""
        reader, self._writer = await asyncio.open_connection(*to)
        packets, self.is_let_in = ClientReader(1 << 28, self.version), False
        try:
            self.send(self._connect())
            until_s = time.monotonic() + CONNECT_S
            while not (self.load.is_over and self.is_let_in and self.is_done):
                data = b""
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.load.pause_s):
                        data = await reader.read(65_536)
                        if not data:
                            raise ConnectionResetError(f"{self.name}: the node has hung up")
                if self._writer.transport.is_closing():
                    raise ConnectionResetError(f"{self.name}: the connection is lost")
                for event in events_of(packets, data):
                    self._on(event)
                if not self.is_let_in and time.monotonic() > until_s:
                    raise Refused(f"{self.name}: no CONNACK")
                if self.is_let_in:
                    self.go_on()
                if may_cut and data and random.random() < CUT_SHARE:
                    raise Cut
            await self._leave(reader)
        finally:
            self._writer.transport.abort()

    async def _leave(self, reader: asyncio.StreamReader) -> None:
        """Disconnect, and wait until the node has read that, and so all acknowledgements."""
        self.send(Disconnect())
        try:
            async with asyncio.timeout(CONNECT_S):
                while await reader.read(65_536):
                    pass
        except TimeoutError as error:
            raise ConnectionResetError(f"{self.name}: the node does not hang up") from error

    def _connect(self) -> Connect:
        properties = Properties()
        if self.version == MQTT_5:
            properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = EXPIRY_S
            properties.values[PropertyId.RECEIVE_MAXIMUM] = WINDOW
        return Connect(self.version, self.name, clean_start=False, properties=properties)

    def send(self, *packets: Packet) -> None:
        self._writer.write(b"".join(encode(each, self.version) for each in packets))

    def _on(self, event: Event) -> None:
        if isinstance(event, Connack):
            if event.code:
                raise Refused(f"{self.name}: {event.code.name}")
            if self.had_session and not event.session_present:
                if self.must_keep_session:
                    self.load.breach(Breach.LOST, f"the session of {self.name} is lost")
                self.session_lost()
            self.had_session = self.is_let_in = True
            self.let_in()
        elif isinstance(event, Publishes):
            for packet_id, payload in zip(
                event.packet_ids or [0] * len(event.payloads), event.payloads, strict=True
            ):
                self.message(event, packet_id, payload)
        elif isinstance(event, Acks):
            for packet_id in event.packet_ids:
                self.answered(event.kind, packet_id)
        elif isinstance(event, Ack):
            if event.code.is_error and event.kind in (PacketType.PUBACK, PacketType.PUBREC):
                self.refused(event)
            else:
                self.answered(event.kind, event.packet_id)
        elif isinstance(event, Suback):
            self.subscribed(event)
        elif isinstance(event, Disconnect):
            raise ConnectionResetError(f"{self.name}: {event.code.name}")
        else:
            self.load.breach(Breach.UNEXPECTED, f"{self.name} is sent {event}")

    def let_in(self) -> None:
        """Send again what was not answered."""

    def session_lost(self) -> None:
        """Begin anew."""

    def go_on(self) -> None:
        """Publish, if there is room."""

    def message(self, event: Publishes, packet_id: int, payload: bytes) -> None:
        """Take a message."""

    def answered(self, kind: PacketType, packet_id: int) -> None:
        """Go on with a message."""

    def refused(self, packet: Ack) -> None:
        """Hear that a message is not taken, which a node says that is cut off from the others."""
        if self.load.is_exact:
            self.load.breach(Breach.UNEXPECTED, f"{self.name} hears {packet}")

    def subscribed(self, packet: Suback) -> None:
        """The answer to SUBSCRIBE has come."""


def events_of(packets: ClientReader, data: bytes) -> Iterator[Event]:
    yield from packets.feed(data)
    while packets.is_waiting:
        yield from packets.go_on()


class Publisher(Member):
    """Publishes its numbers to a topic of its own, a few at a time."""

    def __init__(
        self, load: MqttLoad, name: str, version: int, qos: int, *, retain: bool = False
    ) -> None:
        super().__init__(load, name, version)
        self.topic = f"load/{name}"
        self.qos = qos
        self.retain = retain
        self.sent = 0
        self._due_s = 0.0
        self.acknowledged: set[int] = set()
        self.under_way: dict[int, int] = {}
        """Numbers by packet identifier."""
        self.released: dict[int, None] = {}

    @property
    def is_done(self) -> bool:
        return not self.under_way and not self.released

    def let_in(self) -> None:
        for packet_id, number in self.under_way.items():
            self.send(self._packet(packet_id, number, dup=True))
        self.send(*(Ack(PacketType.PUBREL, packet_id) for packet_id in self.released))

    def session_lost(self) -> None:
        self.released.clear()

    def _packet(self, packet_id: int, number: int, *, dup: bool = False) -> Publish:
        payload = f"{self.name}/{number}".encode()
        return Publish(self.topic.encode(), payload, self.qos, self.retain, dup, packet_id)

    def go_on(self) -> None:
        if self.load.is_over or not self.load.is_ready or self.under_way or self.released:
            return
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + self.load.pause_s
        for packet_id in range(1, self.load.window + 1):
            self.under_way[packet_id] = self.sent
            self.send(self._packet(packet_id, self.sent))
            self.sent += 1

    def refused(self, packet: Ack) -> None:
        super().refused(packet)
        self.under_way.pop(packet.packet_id, None)

    def answered(self, kind: PacketType, packet_id: int) -> None:
        if kind is PacketType.PUBCOMP:
            self.released.pop(packet_id, None)
            return
        number = self.under_way.pop(packet_id, None)
        if number is not None:
            self.acknowledged.add(number)
            self.load.is_busy.set()
        if kind is PacketType.PUBREC:
            self.released[packet_id] = None
            self.send(Ack(PacketType.PUBREL, packet_id))


class Subscriber(Member):
    """Takes all that publishers publish."""

    def __init__(self, load: MqttLoad, name: str, version: int, qos: int) -> None:
        super().__init__(load, name, version)
        self.qos = qos
        self.is_subscribed = False
        self.taken: dict[str, set[int]] = {}
        """Numbers by publisher."""
        self.again = 0
        """Messages that have come again."""
        self.late = 0
        """Messages that have come behind later ones."""
        self.held: set[int] = set()
        """Packets of QoS 2 that the node has not released."""
        self._last_sent = self._last_taken = 0
        """Numbers of the messages that it sends to itself at the end.  What its session has for it
        is in front of them, also what comes again that it had taken before."""
        self._is_last_sent = False

    @property
    def is_done(self) -> bool:
        has_last = self._is_last_sent and self._last_taken == self._last_sent
        return has_last and not self.held and not any(True for _ in self.lacking())

    def lacking(self) -> Iterator[str]:
        """Yield the names of messages that were acknowledged and have not come."""
        for publisher in self.load.publishers:
            taken = self.taken.get(publisher.name, set())
            for number in sorted(publisher.acknowledged - taken):
                yield f"{publisher.name}/{number}"

    def let_in(self) -> None:
        self._is_last_sent = False
        if not self.is_subscribed:
            self.send(Subscribe(1, [("load/#", self.qos), (f"last/{self.name}", 1)]))

    def go_on(self) -> None:
        if not self.load.is_over or self._is_last_sent or not self.is_subscribed:
            return
        self._last_sent += 1
        self._is_last_sent = True
        payload = b"last/%d" % self._last_sent
        self.send(Publish(f"last/{self.name}".encode(), payload, 1, packet_id=LAST_PACKET_ID))

    def session_lost(self) -> None:
        self.is_subscribed = False
        self.held.clear()

    def refused(self, packet: Ack) -> None:
        super().refused(packet)
        self._is_last_sent = False

    def subscribed(self, packet: Suback) -> None:
        assert packet.codes == [self.qos, 1], packet
        self.is_subscribed = True

    def message(self, event: Publishes, packet_id: int, payload: bytes) -> None:
        if event.qos == 1:
            self.send(Ack(PacketType.PUBACK, packet_id))
        elif event.qos == 2:
            self.send(Ack(PacketType.PUBREC, packet_id))
            if packet_id in self.held:
                return
            self.held.add(packet_id)
        if payload.startswith(b"last/"):
            self._last_taken = int(payload.removeprefix(b"last/"))
        elif not event.retain:  # what is retained is an old message
            self._take(payload.decode(), event.qos)

    def _take(self, what: str, qos: int) -> None:
        name, _, number = what.partition("/")
        load, found = self.load, [each for each in self.load.publishers if each.name == name]
        if not found or not 0 <= int(number) < found[0].sent:
            load.breach(Breach.UNEXPECTED, f"{self.name} is sent {what}, which nobody has sent")
            return
        taken = self.taken.setdefault(name, set())
        if int(number) in taken:
            self.again += 1
            if qos == 2 and load.is_exact:
                load.breach(Breach.BACK, f"{self.name} is sent {what} of QoS 2 twice")
            return
        if taken and int(number) < max(taken):
            self.late += 1
            if load.is_exact:
                load.breach(Breach.DISORDERED, f"{self.name} is sent {what} late")
        taken.add(int(number))

    def answered(self, kind: PacketType, packet_id: int) -> None:
        if kind is PacketType.PUBREL:
            self.held.discard(packet_id)
            self.send(Ack(PacketType.PUBCOMP, packet_id))


class RetainedReader(Member):
    """Subscribes anew again and again, and is sent what is retained."""

    must_keep_session = False
    """Its one queue is for QoS 0, and goes with the disk of the node that it is at."""

    def __init__(self, load: MqttLoad, of: Publisher) -> None:
        super().__init__(load, f"reader-of-{of.name}", MQTT_5)
        self._of = of
        self._floor = -1
        """The last that was acknowledged before it subscribed."""
        self._asked_s = 0.0
        self._is_waiting = False
        self.has_looked = False
        """True once it has had an answer since all was over."""

    @property
    def is_done(self) -> bool:
        return self.has_looked or not self._of.acknowledged

    @property
    def _limit_s(self) -> float:
        return DEADLINE_S if self._floor >= 0 else AGAIN_S

    def let_in(self) -> None:
        self._is_waiting = False

    def session_lost(self) -> None:
        """Do nothing: each subscription is a new one."""

    def go_on(self) -> None:
        if not self._is_waiting and time.monotonic() - self._asked_s > AGAIN_S:
            self._floor = max(self._of.acknowledged, default=-1)
            self._is_waiting, self._asked_s = True, time.monotonic()
            self.send(Subscribe(1, [(self._of.topic, 0)]))
        elif self._is_waiting and time.monotonic() - self._asked_s > self._limit_s:
            self._is_waiting = False
            if self._floor >= 0:
                self.load.breach(Breach.LOST, f"{self.name} is sent nothing")

    def subscribed(self, packet: Suback) -> None:
        """Ask again later if the node refuses, as one does that is cut off from the others."""
        if not packet.codes[0].is_error:
            return
        self._is_waiting = False
        if self.load.is_exact:
            self.load.breach(Breach.UNEXPECTED, f"{self.name} hears {packet}")

    def message(self, event: Publishes, packet_id: int, payload: bytes) -> None:
        if not event.retain or not self._is_waiting:
            return
        number = int(payload.rpartition(b"/")[2])
        load, self._is_waiting = self.load, False
        if number < self._floor and (load.is_exact or load.is_over):
            text = f"{self.name} is sent {number} though {self._floor} is retained"
            load.breach(Breach.LOST, text)
        self.has_looked = load.is_over and self._of.is_done


class MqttLoad:
    """The clients, whichever node they are at."""

    def __init__(
        self,
        report: Findings,
        *,
        is_exact: bool = True,
        pause_s: float = 0.05,
        window: int = WINDOW,
    ) -> None:
        """`is_exact`: whether QoS 2 is exactly once, and all in order: not where nodes of a cluster
        go, or are cut off, while they have messages under way.  `pause_s`: shortest time
        of a publisher between two batches, each of `window` messages."""
        self.report = report
        self.is_exact = is_exact
        self.pause_s = pause_s
        self.window = window
        self.is_over = False
        self.is_busy = asyncio.Event()
        """Set once a message is acknowledged, since `plays`."""
        self.publishers = [
            Publisher(self, "p1", MQTT_5, 1),
            Publisher(self, "p2", MQTT_5, 2),
            Publisher(self, "old-p2", MQTT_3_1_1, 2),
            Publisher(self, "retainer", MQTT_5, 1, retain=True),
        ]
        self.subscribers = [
            Subscriber(self, "s1", MQTT_3_1_1, 1),
            Subscriber(self, "s2", MQTT_5, 2),
        ]
        self.members: list[Member] = [
            *self.publishers,
            *self.subscribers,
            RetainedReader(self, self.publishers[-1]),
        ]

    @property
    def is_ready(self) -> bool:
        """True if all subscribers have subscribed."""
        return all(each.is_subscribed for each in self.subscribers)

    def __str__(self) -> str:
        acknowledged = sum(len(each.acknowledged) for each in self.publishers)
        taken = sum(len(numbers) for each in self.subscribers for numbers in each.taken.values())
        again = sum(each.again for each in self.subscribers)
        late = sum(each.late for each in self.subscribers)
        numbers = f"{acknowledged} acknowledged, {taken} received, {again} again, {late} late"
        return f"MQTT: {numbers}"

    def breach(self, breach: Breach, sentence: str) -> None:
        self.report.add(breach, f"MQTT: {sentence}")

    def plays(self, to: Address) -> dict[str, Callable[[Random], Awaitable[None]]]:
        """Return the work of each client until the node ends its connection, by name."""

        self.is_busy = asyncio.Event()

        def play_of(member: Member) -> Callable[[Random], Awaitable[None]]:
            async def play(random: Random) -> None:
                while True:
                    with suppress(Cut):
                        await member.live(to, random)
                        return

            return play

        return {f"mqtt {each.name}": play_of(each) for each in self.members}

    async def roam(self, nodes: Sequence[Address], random: Random, over: asyncio.Event) -> None:
        """Work at any node, and at another whenever a connection ends, until it is over."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self._roam(member, nodes, Random(random.random()), over))

    async def _roam(
        self, member: Member, nodes: Sequence[Address], random: Random, over: asyncio.Event
    ) -> None:
        for _ in count():
            work = asyncio.ensure_future(member.live(random.choice(nodes), random))
            end = asyncio.ensure_future(over.wait())
            await asyncio.wait((work, end), return_when=asyncio.FIRST_COMPLETED)
            for each in (work, end):
                each.cancel()
            with suppress(OSError, Cut, asyncio.CancelledError):
                await work
            if over.is_set():
                return
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def finish(self, to: Address, *, limit_s: float = DEADLINE_S) -> None:
        """Publish nothing more, and take all there is.

        `limit_s`: for so long there may be no progress.  All of it may take longer, since in a
        cluster each message of QoS 2 to a session waits for changes of its definitions.
        """
        self.is_over = True
        for members in (self.publishers, self.members):
            tasks = [asyncio.create_task(self._finish(member, to)) for member in members]
            before = self._left_count
            while (await asyncio.wait(tasks, timeout=limit_s))[1]:
                if self._left_count >= before:
                    left = [each.name for each in members if not each.is_done]
                    self.breach(Breach.UNEXPECTED, f"{left} have not come to an end")
                    break
                before = self._left_count
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        for subscriber in self.subscribers:
            for what in subscriber.lacking():
                self.breach(Breach.LOST, f"{subscriber.name} is not sent {what}")

    @property
    def _left_count(self) -> int:
        """Messages that are not acknowledged, or that a subscriber has not been sent."""
        under_way = sum(len(each.under_way) for each in self.publishers)
        return under_way + sum(sum(1 for _ in each.lacking()) for each in self.subscribers)

    async def _finish(self, member: Member, to: Address) -> None:
        """Connect until nothing is left to do: at once again, for the node that ends a connection
        serves, and each attempt waits for its answer."""
        while True:
            with suppress(OSError):
                await member.live(to, Random(0), may_cut=False)
                return
