"""Checker of one queue: its log, in plain, and what its clients see."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain, cycle

from fluffle.broker.cluster.queues.ports import SessionPort
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.queues.delivery_counts import DeliveryCountIndex
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import FactBatch, decode, read_messages
from fluffle.broker.queues.quorum.leadership import QueueReplica
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.raft.config import NodeId
from fluffle.raft.log import DATA, Entry, GroupId
from tests.broker.cluster.queue_sessions.queue_client import UniqueNames
from tests.broker.cluster.queue_sessions.reference_model import ReferenceModel
from tests.broker.queues.quorum.image_comparison import reported, seen
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.reference_model import MessageRecord
from tests.broker.queues.quorum.reference_model import ReferenceModel as QueueModel
from tests.broker.queues.quorum.single_active_checks import SingleActiveChecks
from tests.simulation.facts import Violation
from tests.simulation.queues.consumer_timeout_checks import ConsumerTimeoutChecks
from tests.simulation.queues.dead_letter_checks import DeadLetterChecks
from tests.simulation.queues.deduplication_checks import DeduplicationChecks
from tests.simulation.queues.delivery_order_checks import DeliveryOrderChecks, level_of
from tests.simulation.queues.limit_checks import LimitChecks
from tests.simulation.queues.message_ttl_checks import MessageTtlChecks
from tests.simulation.queues.queue_clients import QueueClients
from tests.simulation.queues.queue_expiry_checks import QueueExpiryChecks
from tests.simulation.queues.rolling_upgrade import EntryVersionChecks
from tests.simulation.queues.settings_checks import SettingsChecks

COMPARED_EVERY = 25
"""Entries; the comparison looks at every message there ever was."""


class QueueChecker:
    """Checker of one queue.  Whatever is wrong raises `Violation`, or an AssertionError of a
    model."""

    def __init__(
        self,
        definition: QueueDefinition,
        was_just_linked: Callable[[NodeId], bool],
        names: UniqueNames,
        dead_letter_checks: DeadLetterChecks,
        *,
        born_us: int,
        settings_checks: SettingsChecks,
        versions: EntryVersionChecks,
        queue_expiry_checks: QueueExpiryChecks,
    ) -> None:
        """`names` are those of all queues, and so are `dead_letter_checks`."""
        self.group = definition.id
        self.born_us = born_us
        """When it was declared."""
        self._dead_letter_checks = dead_letter_checks
        self.settings_checks = settings_checks
        self.versions = versions
        self.single_active_checks: SingleActiveChecks | None = None
        """Checks of a queue with single active consumers."""
        self._was_just_linked = was_just_linked
        self.message_ttl_checks = MessageTtlChecks(definition.spec)
        self.consumer_timeout_checks = ConsumerTimeoutChecks(definition.spec)
        self.queue_expiry_checks = queue_expiry_checks
        self.limits = LimitChecks(definition.spec)
        self.keys = DeduplicationChecks(self.group)
        self.model = ReferenceModel(stands_for=self.keys.stands_for)
        self.queue_model = QueueModel()
        self.image = QueueImage()
        """Image of the whole log, never compacted, never restored."""
        self._names = names
        self._waiting = DeliveryOrderChecks()
        self.holders: dict[int, int] = {}
        """Last holder by sequence number."""
        self._handed_at: dict[tuple[int, int], int] = {}
        """Index of the entry by sequence number and delivery ordinal."""
        self._nexts: dict[int, list[tuple[int, int]]] = {}
        """Next numbers by session, each with the index from which it counts."""
        self._keys: dict[f.SessionId, int] = {}
        self.remembers_arrivals = False
        """True if whoever leads it may take no dead letter that must arrive before it is on record
        that all members read of that."""
        self.sources: list[GroupId] = []
        """From where dead letters have just come that must arrive."""

    def clients(self, node: str, queue: SessionQueue, port: SessionPort) -> QueueClients:
        return QueueClients(node, queue, port, self.model, self._names, self._dead_letter_checks)

    # The log

    def committed(self, entry: Entry) -> int:
        """The digest of the image behind it."""
        self.versions.apply(entry, self.image)
        if entry.kind != DATA:
            self.image.pass_over(entry.index)
        else:
            self._apply(entry)
        if entry.index % COMPARED_EVERY == 0:
            self.compare()
        return int.from_bytes(image_digest(self.image)[:8])

    def compare(self) -> None:
        """G7, G8: the image is what a child would make of the log."""
        self.image.state.check()
        if seen(self.image) != reported(self.queue_model):
            raise Violation(f"G7: image and model differ at {self.image.state.index}")

    def _apply(self, entry: Entry) -> None:
        index, payload = entry.index, entry.payload
        batch = decode(payload)
        self._never_falls(batch)
        self._nobody_is_given_up(batch)
        if self.single_active_checks is not None:
            self.single_active_checks.apply(batch)
        self.message_ttl_checks.apply(batch, self.group)
        self.consumer_timeout_checks.apply(batch, entry.term, self.group)
        self.queue_expiry_checks.apply(batch)
        self.image.apply(index, payload)
        self.limits.apply(batch, self.image.state, self.group)
        self.model.applied(payload)
        self._write_records(index, payload, batch)
        self._bury(batch)
        for fact in batch.facts:
            if isinstance(fact, f.Delivered | f.DeliveredWithoutAck):
                handed = [n for run in fact.runs for n in run]
                self._handed_at.update(((n, fact.ordinal), index) for n in handed)
                self.holders |= zip(handed, cycle(fact.holders), strict=False)
            elif isinstance(fact, f.Arrived):
                self.sources.append(fact.source)
            elif isinstance(fact, f.SessionOpened):
                self._keys[fact.id] = fact.key
        for key, stream in self.queue_model.streams.items():
            nexts = self._nexts.setdefault(key, [])
            if not nexts or nexts[-1][0] != stream.next:
                nexts.append((stream.next, index))

    def _bury(self, batch: FactBatch) -> None:
        for fact in batch.facts:
            if isinstance(fact, f.SpecChanged):
                self.settings_checks.apply(fact)
            elif isinstance(fact, f.DeadLettering):
                for content in self._contents_of(fact):
                    self._dead_letter_checks.died(self.group, content)
            elif isinstance(fact, f.DeadLettered):
                is_wanted = self.settings_checks.settings.dead_letter_exchange is not None
                for content in self._contents_of(fact) if is_wanted else ():
                    self._dead_letter_checks.is_done_with(self.group, content)

    def _contents_of(self, fact: f.DeadLettering | f.DeadLettered) -> list[bytes]:
        return [self.queue_model.records[sequence].content for run in fact.runs for sequence in run]

    def _never_falls(self, batch: FactBatch) -> None:
        """G12."""
        if batch.stamp_ms < self.queue_model.time_ms or batch.revision < self.queue_model.revision:
            raise Violation(f"G12: {batch.stamp_ms} ms after {self.queue_model.time_ms}")
        self.queue_model.time_ms = batch.stamp_ms

    def _nobody_is_given_up(self, batch: FactBatch) -> None:
        """Rule 13: a node that can be reached keeps what its clients hold."""
        for fact in batch.facts:
            if isinstance(fact, f.Requeued) and fact.how is f.RequeueReason.SUSPECTED:
                user = self.queue_model.users.get(fact.holder)
                if user is None:
                    continue  # who came in this very entry
                node = self.queue_model.streams[user.attached.session].id.node
                if self._was_just_linked(node):
                    raise Violation(f"rule 13: {node} is suspected, and was linked just now")

    def _write_records(self, index: int, payload: bytes, batch: FactBatch) -> None:
        contents: list[bytes] = []
        if batch.enqueued is not None:
            read = read_messages(payload)
            contents, brought = read.contents, DeliveryCountIndex(batch.enqueued.columns.counts)
            for place, (sequence, origin, content) in enumerate(zip(*read, strict=True)):
                record = MessageRecord(content, origin.exchange, origin.routing_key, index)
                record.acquired, record.failed = counts = brought.alike(place, place + 1).counts
                record.since, record.priority = sequence, level_of(content)
                record.expires_at_ms = self.message_ttl_checks.of(sequence)
                self.queue_model.enqueue(record)
                self._dead_letter_checks.stored(
                    self.group, content, batch.version, may_be_early=not self.remembers_arrivals
                )
                self._dead_letter_checks.brought(self.group, content, counts)
        self._waiting.apply(batch, contents, self.group)
        known = self.queue_model.known
        for fact in batch.facts:
            self.queue_model.apply(fact)
        is_sure = self.settings_checks.settings.deduplicates and not any(
            isinstance(fact, f.SpecChanged) for fact in batch.facts
        )
        published = [content for content in contents if content not in self.model.copies]
        self.keys.apply(batch, published, known, self.queue_model.known, is_sure=is_sure)

    # What leaders say

    def said(self, member: QueueReplica, node: str, frame: m.LeaderFrame) -> None:
        """G6: everything that it rests on is committed, and applied where it comes from."""
        applied = member.image.state.index
        key = self._keys.get(f.SessionId(node, *frame.receiver, frame.session))
        for message in frame.messages:
            for ordinal, runs in handed_out_in(message):
                for sequence in chain(*runs):
                    at = self._handed_at.get((sequence, ordinal))
                    if at is None or at > applied:
                        raise Violation(f"G6: {message} at {applied}, handed out at {at}")
            last = last_done_in(message)
            if last is not None and self._next_at(key, applied) <= last:
                raise Violation(f"G6: {message} to {node}, at {applied}")

    def _next_at(self, session: int | None, index: int) -> int:
        """The next number of a session at an index."""
        nexts = self._nexts.get(session, []) if session is not None else []
        at = bisect_right(nexts, index, key=lambda pair: pair[1])
        return nexts[at - 1][0] if at else 1


def handed_out_in(message: m.FromLeader) -> Iterator[tuple[int, list[range]]]:
    if isinstance(message, m.Deliver):
        yield message.ordinal, message.runs
    elif isinstance(message, m.GetAnswer):
        for deliver in message.delivers:
            yield deliver.ordinal, deliver.runs


def last_done_in(message: m.FromLeader) -> int | None:
    """The last operation that is done by it."""
    if isinstance(message, m.DoneReply | m.RejectedReply):
        return message.first + message.count - 1
    if isinstance(message, m.AnswerReply | m.GetAnswer):
        return message.number
    return None
