"""What is written down of one queue: its log, in plain, and what its clients see."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.cluster.streams.edge import Edge
from fluffle.broker.queues.replicated import facts as f
from fluffle.broker.queues.replicated.encoding import FactBatch, decode, read_messages
from fluffle.broker.queues.replicated.image import Image
from fluffle.broker.queues.replicated.member import Member
from fluffle.raft.config import NodeId
from fluffle.raft.records import DATA, Entry, GroupId
from tests.broker.cluster.streams.client import Client, Names
from tests.broker.cluster.streams.ghost import Ghost
from tests.broker.queues.replicated.comparing import seen, told
from tests.broker.queues.replicated.ghost import Card
from tests.broker.queues.replicated.ghost import Ghost as Cards
from tests.simulation.facts import Violation

COMPARED_EVERY = 25
"""Entries; the comparison looks at every message there ever was."""


class Book:
    """Of one queue.  Whatever is wrong raises `Violation`, or an AssertionError of a ghost."""

    def __init__(self, group: GroupId, was_just_linked: Callable[[NodeId], bool]) -> None:
        self.group = group
        self._was_just_linked = was_just_linked
        self.ghost = Ghost()
        self.cards = Cards()
        self.image = Image()
        """Of the whole log, never compacted, never restored."""
        self._names = Names()
        self._waiting = Waiting()
        self._handed_at: dict[tuple[int, int], int] = {}
        """By sequence number and ordinal: the index of the entry."""
        self._nexts: dict[int, list[tuple[int, int]]] = {}
        """By session: its next number, and from which index on."""
        self._keys: dict[f.SessionId, int] = {}

    def client(self, node: str, edge: Edge) -> Client:
        return Client(node, edge, self.ghost, self._names)

    # The log

    def committed(self, entry: Entry) -> int:
        """The digest of the image behind it."""
        if entry.kind != DATA:
            self.image.pass_over(entry.index)
        else:
            self._apply(entry.index, entry.payload)
        if entry.index % COMPARED_EVERY == 0:
            self.compare()
        return int.from_bytes(self.image.digest()[:8])

    def compare(self) -> None:
        """G7, G8: the image is what a child would make of the log."""
        self.image.state.check()
        if seen(self.image) != told(self.cards):
            raise Violation(f"G7: image and cards differ at {self.image.state.index}")

    def _apply(self, index: int, payload: bytes) -> None:
        batch = decode(payload)
        self._never_falls(batch)
        self._nobody_is_given_up(batch)
        self.image.apply(index, payload)
        self.ghost.applied(payload)
        self._waiting.apply(batch, self.group)
        self._write_cards(index, payload, batch)
        for fact in batch.facts:
            if isinstance(fact, f.HandedOut | f.HandedOver):
                self._handed_at.update(((n, fact.ordinal), index) for run in fact.runs for n in run)
            elif isinstance(fact, f.SessionOpened):
                self._keys[fact.id] = fact.key
        for key, stream in self.cards.streams.items():
            nexts = self._nexts.setdefault(key, [])
            if not nexts or nexts[-1][0] != stream.next:
                nexts.append((stream.next, index))

    def _never_falls(self, batch: FactBatch) -> None:
        """G12."""
        if batch.stamp_ms < self.cards.time_ms or batch.revision < self.cards.revision:
            raise Violation(f"G12: {batch.stamp_ms} ms after {self.cards.time_ms}")
        self.cards.time_ms = batch.stamp_ms

    def _nobody_is_given_up(self, batch: FactBatch) -> None:
        """Rule 13: a node that can be reached keeps what its clients hold."""
        for fact in batch.facts:
            if isinstance(fact, f.Returned) and fact.how is f.How.SUSPECTED:
                user = self.cards.users.get(fact.holder)
                if user is None:
                    continue  # who came in this very entry
                node = self.cards.streams[user.attached.session].id.node
                if self._was_just_linked(node):
                    raise Violation(f"rule 13: {node} is suspected, and was linked just now")

    def _write_cards(self, index: int, payload: bytes, batch: FactBatch) -> None:
        if batch.enqueued is not None:
            read = read_messages(payload)
            for sequence, origin, content in zip(*read, strict=True):
                card = Card(content, origin.exchange, origin.routing_key, index)
                card.since = sequence
                self.cards.enqueue(card)
        for fact in batch.facts:
            self.cards.apply(fact)

    # What leaders say

    def said(self, member: Member, node: str, frame: m.LeaderFrame) -> None:
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
    if isinstance(message, m.Done | m.NotTaken):
        return message.first + message.count - 1
    if isinstance(message, m.Answer | m.GetAnswer):
        return message.number
    return None


class Waiting:
    """Messages that may be handed out, in the order in which they must be."""

    def __init__(self) -> None:
        self._returned: dict[int, None] = {}
        self._ready: dict[int, None] = {}

    def apply(self, batch: FactBatch, group: GroupId) -> None:
        """G9: of those that waited before the entry, it hands out the first."""
        before = [*self._returned, *self._ready]
        if batch.enqueued is not None:
            first = batch.enqueued.first
            self._ready |= dict.fromkeys(range(first, first + batch.enqueued.count))
        handed: set[int] = set()
        gone: set[int] = set()
        for fact in batch.facts:
            if isinstance(fact, f.HandedOut | f.HandedOver):
                handed.update(self._take(fact))
            elif isinstance(fact, f.Returned) and not fact.ready_at_ms:
                self._returned |= dict.fromkeys(n for run in fact.runs for n in run)
            elif isinstance(fact, f.Purged | f.Dropped | f.DeadLettering):
                gone.update(self._take(fact))
        candidates = [n for n in before if n not in gone]
        handed &= {*candidates}
        if handed != {*candidates[: len(handed)]}:
            raise Violation(
                f"G9: {sorted(handed)} are handed out of group {group}, {candidates} waited"
            )

    def _take(self, fact: Any) -> Iterator[int]:
        for run in fact.runs:
            for sequence in run:
                for place in (self._returned, self._ready):
                    if sequence in place:
                        del place[sequence]
                        yield sequence
