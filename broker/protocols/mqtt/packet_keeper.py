"""Keeper of the packets of QoS 2 that an MQTT session is in the midst of, beside its messages.

    requests = PacketRequests(services)                        # of all sessions of this node
    keeper = PacketKeeper(requests, ("/", "meter-7"), channel, number)
    keeper.keep(INCOMING, (7,), then)    # `then` is called once that is durable
    keeper.forget(INCOMING, (7,), then)

On a node that is alone they are in the commit of the messages of the same turn, so that a message
is there with its packet, or neither is.  In a cluster a change of definitions holds what all
sessions of the node have asked for, and what they ask for while it is under way goes with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.base.client_session import INCOMING, OUTGOING, SENT
from fluffle.broker.base.errors import ConnectionForced
from fluffle.broker.base.queue_names import is_shared
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.protocols.mqtt.session_state import SentBefore
from fluffle.broker.queues.queue_api import Consumer
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.vhosts.client_sessions import PacketChanges
from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.hot import build_acks

if TYPE_CHECKING:
    from fluffle.broker.base.client_session import ClientSession
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.services import Services
    from fluffle.broker.core.settlement import Settlements
    from fluffle.broker.protocols.mqtt.session_state import SessionKey, SessionState
    from fluffle.broker.queues.queue_api import DeliveryBatch, QueueHandle, SettlementStatus
    from fluffle.broker.vhosts.vhost import VirtualHost


NUMBER_BYTES = 7
"""Bytes of a number that is drawn: it fits the integers that are stored."""

SESSION_NUMBER_SHIFT = 20
"""Bits of the number of a session below its time: two that begin in one moment differ."""

PACKETS_MAX = 16_384
"""Packets in one change of definitions; a request that has more goes alone."""


class KeepingChannel(Protocol):
    """Channel of an MQTT client, as far as what is kept for it concerns it."""

    is_open: bool

    def give_up(self, error: Exception) -> None:
        """Close the connection for an error of the broker's own that concerns it alone."""

    def refuse(self, error: BrokerError) -> None:
        """End the connection for something that its client did not ask for."""


class PacketRequest(NamedTuple):
    """Request of a session to have packets of one stage noted or forgotten."""

    key: SessionKey
    number: int
    """Number of the session: see `ClientSession`."""
    channel: KeepingChannel
    stage: str
    packets: Collection[int] | Mapping[int, int]
    """Packet identifiers; with the numbers of their messages, where these are noted."""
    then: Callable[[], None]
    """Called once it is durable, if the session is still of this node."""
    is_removal: bool = False
    """True if they are to be forgotten."""

    def apply(self, changes: PacketChanges, *, are_settled: bool) -> None:
        """Note or forget them.  `are_settled`: as `PacketChanges.keep`."""
        client_id, packets = self.key[1], self.packets
        if self.is_removal:
            changes.forget(client_id, self.stage, packets)
        elif isinstance(packets, Mapping):
            changes.keep_messages(client_id, packets, self.stage)
        else:
            changes.keep(client_id, self.stage, packets, are_settled=are_settled)


class PacketRequests:
    """Requests of all sessions of a node to have packets noted or forgotten."""

    __slots__ = ("_changes_under_way", "_waiting", "services")

    def __init__(self, services: Services) -> None:
        self.services = services
        self._waiting: list[PacketRequest] = []
        """Requests that go with the next change; none on a node that is alone."""
        self._changes_under_way = 0

    @property
    def goes_with_messages(self) -> bool:
        """True if packets are in one commit with the messages of the turn: on a node that is
        alone."""
        return self.services.read_barrier.is_complete

    def ask(self, request: PacketRequest) -> None:
        """Have packets noted or forgotten, and what is to be done then; neither once another node
        has the session: what the client is in the midst of goes on there."""
        self.services.runtime.commits.keep_together()
        if self.goes_with_messages:
            self._change([request])
            return
        self._waiting.append(request)
        self._flush_later()

    def flush(self) -> None:
        """Begin a change with what has been asked for in this turn and before."""
        sizes = accumulate(len(request.packets) for request in self._waiting)
        count = sum(1 for _ in takewhile(PACKETS_MAX.__ge__, sizes)) or 1
        requests = self._waiting[:count]
        del self._waiting[:count]
        self._change(requests)

    def ended(self) -> None:
        """A change has been made: the next may be."""
        self._changes_under_way -= 1
        self._flush_later()

    def _flush_later(self) -> None:
        if self._waiting and not self._changes_under_way:  # mutant: MQ36
            self.services.runtime.turn.touch_output_buffer(self)

    def _change(self, requests: list[PacketRequest]) -> None:
        change = PacketChange(self, requests)
        self._changes_under_way += 1
        self.services.metadata.ensure(change.decide, change.done)

    def split(self, requests: Iterable[PacketRequest]) -> None:
        """Make a change a session: of one of them another node may have changed something."""
        by_session: dict[SessionKey, list[PacketRequest]] = {}
        for request in requests:
            by_session.setdefault(request.key, []).append(request)
        for of_session in by_session.values():
            self._change(of_session)

    def vhost(self, key: SessionKey) -> VirtualHost | None:
        return self.services.vhosts.get(key[0])

    def holds(self, request: PacketRequest) -> bool:
        """True if a request is for the session that is on record, and no other node has had that
        since, which in a cluster it may at any time."""
        vhost, client_id = self.vhost(request.key), request.key[1]
        session = None if vhost is None else vhost.client_sessions.by_client.get(client_id)
        return session is not None and session.number == request.number  # mutant: MQ37

    def new_number(self) -> int:
        """Draw a number that no other has."""
        name = self.services.random_name().encode()
        return int.from_bytes(blake2b(name, digest_size=NUMBER_BYTES).digest())

    def session_number(self, before: ClientSession | None) -> int:
        """Draw the number of a session that begins, or comes to this node: greater than that of
        what was on record before."""
        least = before.number + 1 if before is not None else 0
        drawn = self.new_number() & ((1 << SESSION_NUMBER_SHIFT) - 1)
        now_ms = self.services.retained.now_ms()
        return max(least, now_ms << SESSION_NUMBER_SHIFT | drawn)  # mutant: MQ43

    def act(self, requests: list[PacketRequest]) -> None:
        """Do what was to be done then; an error of it ends its connection, and not the commits."""
        turn = self.services.runtime.turn
        ends_turn = turn.begin()
        for request in requests:
            if not (self.goes_with_messages or self.holds(request)):
                # the client must not wait here, if it still does
                error = ConnectionForced("the session is not on this node any more")
                request.channel.refuse(error)
                continue
            try:
                request.then()
            except Exception as error:  # noqa: BLE001 - a bug ends one connection
                request.channel.give_up(error)
        if ends_turn:
            turn.end()


class PacketChange:
    """Change of definitions with requests of several sessions."""

    __slots__ = ("_is_decided", "_is_stale", "_owner", "_requests")

    def __init__(self, owner: PacketRequests, requests: list[PacketRequest]) -> None:
        self._owner = owner
        self._requests = requests
        self._is_decided = False
        self._is_stale = False
        """True if it was for several sessions, and did not hold: each is changed by itself then,
        for a client that comes and goes must not keep the others waiting."""

    def decide(self) -> Change:
        owner, requests = self._owner, self._requests
        if self._is_decided and any(each.key != requests[0].key for each in requests):
            self._is_stale = True  # mutant: MQ38
            return NOTHING
        self._is_decided = True
        changes: dict[str, PacketChanges] = {}
        failed: list[PacketRequest] = []
        goes_with_messages = owner.goes_with_messages
        for request in requests:
            vhost = owner.vhost(request.key)
            if vhost is None or not owner.holds(request):
                continue
            if vhost.name not in changes:
                changes[vhost.name] = PacketChanges(vhost)
            try:
                request.apply(changes[vhost.name], are_settled=goes_with_messages)
            except Exception as error:  # noqa: BLE001 - a bug ends one connection, and stops no other
                failed.append(request)
                request.channel.give_up(error)
        if failed:
            self._requests = [each for each in requests if each not in failed]
        decided = NOTHING
        for each in changes.values():
            decided = decided.joined(each.change())
        return decided

    def done(self) -> None:
        """Go on: the change has been made, if it still could be."""
        owner, requests = self._owner, self._requests
        if self._is_stale:
            owner.split(requests)
        else:
            when_safe(owner.services.runtime.commits, partial(owner.act, requests))  # mutant: MQ3
        owner.ended()


class PacketKeeper:
    """Keeper of the packets of QoS 2 of one session that lasts."""

    __slots__ = ("_channel", "_key", "_number", "_requests")

    def __init__(
        self, requests: PacketRequests, key: SessionKey, channel: KeepingChannel, number: int
    ) -> None:
        """`channel`: where it ends if what is done once packets are noted fails.  `number`: that of
        the session."""
        self._requests = requests
        self._key = key
        self._channel = channel
        self._number = number

    @property
    def goes_with_messages(self) -> bool:
        """True if packets are in one commit with the messages of the turn: on a node that is
        alone."""
        return self._requests.goes_with_messages

    def keep(self, stage: str, packet_ids: Sequence[int], then: Callable[[], None]) -> None:
        """Note packets, with the messages of this turn, and call `then` once that is durable."""
        self._ask(stage, packet_ids, then)

    def forget(self, stage: str, packet_ids: Sequence[int], then: Callable[[], None]) -> None:
        """Forget packets, and call `then` once that is durable: before, their numbers must not be
        used again."""
        self._ask(stage, packet_ids, then, is_removal=True)

    def new_number(self) -> int:
        """Draw the number by which queues know a message."""
        return self._requests.new_number()

    def begin(self, packets: Mapping[int, int], then: Callable[[], None]) -> None:
        """Note packets from the client before their messages are published, with the numbers by
        which queues know these, and call `then` once that is so."""
        self._ask(INCOMING, packets, then)

    def keep_sent(
        self, messages: Mapping[int, int], output: OutputBuffer, send: Callable[[], None]
    ) -> None:
        """Note under which packets messages are sent, and then `send` them to `output`: after the
        end of the node the client must be sent them under the same."""
        at_once, commits = self.goes_with_messages, self._requests.services.runtime.commits
        then = ignore_done if at_once else partial(self._send_if_open, send)
        self._ask(SENT, messages, then)
        if at_once:
            output.hold(commits.ticket)
            commits.wait(output, commits.ticket)
            send()

    def _send_if_open(self, send: Callable[[], None]) -> None:
        if self._channel.is_open:
            send()

    def sent_under(self) -> dict[int, int]:
        """The packets that the client was sent, as far as that is noted."""
        vhost = self._requests.vhost(self._key)
        return {} if vhost is None else vhost.client_sessions.sent(self._key[1])

    def is_received(self, packet_id: int) -> bool:
        """True if it is noted that the client has what it was sent under a packet."""
        vhost = self._requests.vhost(self._key)
        return vhost is not None and vhost.client_sessions.has(self._key[1], OUTGOING, packet_id)

    def refuse(self, error: BrokerError) -> None:
        """End the connection, where an error cannot be answered."""
        self._channel.refuse(error)

    def _ask(
        self,
        stage: str,
        packets: Collection[int] | Mapping[int, int],
        then: Callable[[], None],
        *,
        is_removal: bool = False,
    ) -> None:
        request = PacketRequest(
            self._key, self._number, self._channel, stage, packets, then, is_removal
        )
        self._requests.ask(request)


class SendingChannel(Protocol):
    """Channel of an MQTT client, as far as packets are sent over it."""

    output: OutputBuffer

    @property
    def packets(self) -> PacketKeeper | None:
        """Keeper of its packets of QoS 2; None if its session does not last."""

    @property
    def settlements(self) -> Settlements:
        """Settlement of what the client is given."""

    @property
    def window_consumer(self) -> Consumer | None:
        """The consumer of the queue of QoS 1 and 2, once there is one."""


class NotedPackets:
    """Packets of QoS 2 that one client is sent, as far as they are noted for it."""

    __slots__ = ("_channel", "_ended", "_free", "_state")

    def __init__(
        self,
        channel: SendingChannel,
        state: SessionState,
        free: Callable[[Sequence[int]], None],
    ) -> None:
        """`free`: lets identifiers be used again."""
        self._channel = channel
        self._state = state
        self._free = free
        self._ended: list[int] = []
        """Packets that are to be forgotten at the end of the turn."""

    def end(self) -> None:
        """The connection has ended: of packets that are over only the identifiers are of use from
        now on.  No cycle is left to the collector."""
        self._free = self._state.packet_ids.free

    def are_overtaken(self, qos: int) -> bool:
        """True if packets of a QoS are written later than those that are sent after them."""
        packets = self._channel.packets
        return qos == 2 and packets is not None and not packets.goes_with_messages

    def write(
        self,
        pieces: list[bytes],
        packet_ids: Sequence[int],
        delivery_batch: DeliveryBatch,
        indices: range,
    ) -> None:
        """Write packets of QoS 2: if the session lasts, once it is noted under which identifiers
        they are sent."""
        packets, write = self._channel.packets, partial(self._write_pieces, pieces)
        if packets is None:
            write()
            return
        sequences: Sequence[int] = [delivery_batch.sequences[index] for index in indices]
        if is_shared(delivery_batch.holder.queue.name):  # another may get it when the node ends
            sequences = [0] * len(sequences)
        messages = dict(zip(packet_ids, sequences, strict=True))
        packets.keep_sent(messages, self._channel.output, write)  # mutant: MQ18

    def _write_pieces(self, pieces: list[bytes]) -> None:
        self._channel.output.pieces += pieces
        self._channel.output.sent(0)

    def was_received(self, delivery_batch: DeliveryBatch, index: int) -> bool:
        """True for a message that comes again though the client has it, which is noted: it was not
        settled before its node ended."""
        packets, holder = self._channel.packets, delivery_batch.holder
        if packets is None or packets.goes_with_messages or not isinstance(holder, Consumer):
            return False
        queue, sequence = holder.queue.name, delivery_batch.sequences[index]
        before = self._state.unfinished.get(queue, {}).get(sequence)
        if before is None or is_shared(queue) or not packets.is_received(before.packet_id):
            return False
        self._state.take_unfinished(queue, sequence)
        return self.received(before.packet_id)

    def received(self, packet_id: int) -> bool:
        """True if it is noted that the client has had a message, which comes no more: have it let
        go, if it has not been asked to; or let its identifier be used again, if it has let go."""
        packets, state = self._channel.packets, self._state
        if packets is None or not packets.is_received(packet_id):
            return False
        if packet_id in state.completed:
            state.completed.discard(packet_id)
            self._ended.append(packet_id)
            self._channel.output.ask_later(self)
        elif packet_id not in state.released:
            state.released[packet_id] = None
            self._channel.output.add(build_acks(PacketType.PUBREL, (packet_id,)))
        return True

    def write_output(self) -> None:
        """Forget packets that are over, at the end of the turn, when their messages are settled."""
        ended, self._ended = self._ended, []
        self.forget(ended)

    def forget(self, packet_ids: Sequence[int]) -> None:
        """Forget packets whose client has let go of them, once their messages are settled for good:
        what came again then would be taken for another."""
        packets, consumer = self._channel.packets, self._channel.window_consumer
        if packets is None or not packet_ids:
            return
        if consumer is None or packets.goes_with_messages:
            self._forget(packets, packet_ids)
            return
        queue = consumer.queue
        status = self._channel.settlements.pending.get(queue)
        self._forget_settled(packets, packet_ids, queue, status)

    def _forget_settled(
        self,
        packets: PacketKeeper,
        packet_ids: Sequence[int],
        queue: QueueHandle,
        status: SettlementStatus | None,
    ) -> None:
        """Forget packets once it is known what has become of their settlements.  A queue that does
        not say so in time is asked again: until then it may give the messages back."""

        def known(_answer: None) -> None:
            if status is None or status.error is None:
                self._forget(packets, packet_ids)
            else:
                self._expect_again(packets, packet_ids, queue.name, status.error)

        settling = queue.settling
        if settling is None:
            known(None)
        else:
            ask_again = partial(self._forget_settled, packets, packet_ids, queue, status)
            settling.then(known, lambda _error: ask_again())

    def _forget(self, packets: PacketKeeper, packet_ids: Sequence[int]) -> None:
        packets.forget(OUTGOING, packet_ids, partial(self._free, packet_ids))

    def _expect_again(
        self, packets: PacketKeeper, packet_ids: Sequence[int], queue: str, error: BrokerError
    ) -> None:
        """Remember packets whose client is done with them, but whose messages come again, as after
        the end of a node.  The connection ends: to the queue it had gone already."""
        sent = packets.sent_under()
        coming = {sent[each]: SentBefore(each, 2) for each in packet_ids if sent.get(each)}
        self._state.keep_unfinished(queue, coming)
        self._state.completed.update(each.packet_id for each in coming.values())
        if rest := [each for each in packet_ids if not sent.get(each)]:
            self._forget(packets, rest)
        packets.refuse(error)
