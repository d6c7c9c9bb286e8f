"""An image against the model of its history: both as plain values, and what the log must hold."""

from __future__ import annotations

from typing import Any

from fluffle.broker.queues.quorum import entry_codec
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.runs import MarkedRuns
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.raft.ranges import Ranges
from tests.broker.queues.quorum.history import Chance, History
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.reference_model import (
    HolderRecord,
    MessageRecord,
    Place,
    ReferenceModel,
)
from tests.broker.queues.quorum.removal_checks import priority_of


class Member:
    """Member of the queue: its image, and its log as it is on its disk."""

    def __init__(
        self, image: QueueImage | None = None, log: dict[int, bytes] | None = None
    ) -> None:
        self.image = image or QueueImage()
        self.log = dict(log or {})
        self.dead: set[int] = set()
        """Entries that the image has said are needed no more."""

    def apply(self, index: int, payload: bytes) -> None:
        self.log[index] = payload
        self.dead.update(self.image.apply(index, payload))

    def compact(self) -> None:
        """Take a snapshot, delete what is dead, make smaller what mostly is, and start again."""
        live, taken = take_snapshot(self.image)
        self.log = {index: payload for index, payload in self.log.items() if index in live}
        for index, runs in list(self.image.worth_slimming()):
            self.log[index] = entry_codec.slim(self.log[index], runs)
            self.image.slimmed(index, sum(map(len, runs)))
        again = restored_image(taken)
        assert image_digest(again) == image_digest(self.image)
        assert take_snapshot(again)[0] == live
        self.image = again


class MemberImage:
    """A history and the members that have heard it."""

    def __init__(self) -> None:
        self.history = History()
        self.members = [Member()]

    def do(self, operation: Any, chance: Chance) -> None:
        operation(self.history, chance)

    def commit(self) -> None:
        """Make an entry of all that was decided, and apply it on all members."""
        index, payload = self.history.index, self.history.entry()
        batch = entry_codec.decode(payload)
        assert entry_codec.encode(batch, batch.version) == payload
        for member in self.members:
            member.apply(index, payload)

    def add_member(self) -> None:
        """Add a member that starts from a snapshot of the first, and its log from there."""
        first = self.members[0]
        live, taken = take_snapshot(first.image)
        log = {index: payload for index, payload in first.log.items() if index in live}
        self.members = [first, Member(restored_image(taken), log)]

    def check(self) -> None:
        model = self.history.model
        for member in self.members:
            state = member.image.state
            state.check()
            entries = list(state.entries)
            assert state.entries.ready_count == sum(entry.ready for entry in entries)
            brought = {number for run in state.delivery_counts.runs for number in range(*run[:2])}
            assert brought <= {*model.at("ready")}
            bounds = [bound for run in state.delivery_counts.runs for bound in run[:2]]
            assert bounds == sorted(bounds)
            assert state.queue_time_ms == model.time_ms
            assert state.entries.content_bytes == sum(e.mean_bytes * e.live for e in entries)
            assert seen(member.image) == reported(model)
        check_log(self.members[0], model)
        assert len({image_digest(member.image) for member in self.members}) == 1


def check_log(member: Member, model: ReferenceModel) -> None:
    """Every live message is in the log as it was published, in the entry it is said to be in."""
    live = {number: record for number, record in model.records.items() if is_live(record)}
    needed = {record.index for record in live.values()}
    brought = {
        record.index
        for record in model.records.values()
        if record.index <= member.image.state.index
    }
    indexes, _taken = take_snapshot(member.image)
    assert {index for first, stop in indexes for index in range(first, stop)} == needed
    assert member.dead == brought - needed
    found: dict[int, tuple[str, str, bytes]] = {}
    for index in needed:
        stored = entry_codec.read_messages(member.log[index])
        some = stored.sequences[::-2]
        picked = entry_codec.pick_messages(member.log[index], some)
        assert (picked.sequences, picked.contents) == (some, stored.contents[::-2])
        keys = [origin.routing_key for origin in stored.origins[::-2]]
        assert [origin.routing_key for origin in picked.origins] == keys
        for number, origin, content in zip(*stored, strict=True):
            found[number] = (origin.exchange, origin.routing_key, content)
    for number, record in live.items():
        assert found[number] == (record.exchange, record.routing_key, record.content)
        assert member.image.state.entries.extent_of(number)[0] == record.index
    for entry in member.image.state.entries:
        contents = [model.records[entry.first + at].content for at in range(entry.count)]
        assert entry.mean_bytes == sum(map(len, contents)) // entry.count
        members = range(entry.first, entry.first + entry.count)
        of_it = sorted(number for run in member.image.live_of(entry) for number in run)
        assert of_it == [number for number in members if number in live]


def reported(model: ReferenceModel) -> dict[str, Any]:
    """State of the model in a comparable form."""
    places = {"requeued": model.at("requeued"), "delayed": model.at("delayed")}
    places["pending"] = model.at("pending")
    for key in model.users:
        places[f"held by {key}"] = model.at("held", key)
    gone = [len(model.at("gone", reason)) for reason in f.RemovalReason]
    return {
        "records": {
            number: plain(record) for number, record in model.records.items() if is_live(record)
        },
        "places": places,
        "gone": gone,
        "enqueued": len(model.records),
        "users": {key: (user.attached, user.is_detached) for key, user in model.users.items()},
        "order of users": list(model.users),
        "sessions": {
            key: (stream.id, stream.next, stream.refused, stream.answers)
            for key, stream in model.streams.items()
        },
        "known": b"".join(model.known),
        "others": others(model),
    }


def others(one: Any) -> tuple[Any, ...]:
    sources = {group: (term, numbers_of(there)) for group, (term, there) in one.sources.items()}
    return one.next_key, one.sac_active, one.revision, one.spec, one.versions, sources


def numbers_of(there: set[int] | Ranges) -> set[int]:
    """The model has them one by one."""
    if isinstance(there, set):
        return there
    return {number for first, stop in there for number in range(first, stop)}


def is_live(record: MessageRecord) -> bool:
    return "gone" not in record.place


def plain(record: MessageRecord) -> tuple[Any, ...]:
    return record.place, record.acquired, record.failed, record.priority, record.expires_at_ms


def seen(image: QueueImage) -> dict[str, Any]:
    """State of an image in the same form."""
    state = image.state
    records = dict(records_of(image))
    places = {
        "requeued": numbers(state.requeued),
        "delayed": numbers(state.delayed),
        "pending": numbers(state.pending),
    }
    for key, holder in state.holders.items():
        places[f"held by {key}"] = numbers(holder.held)
    users = {
        key: HolderRecord(holder.attached, holder.is_detached)
        for key, holder in state.holders.items()
    }
    return {
        "records": records,
        "places": places,
        "gone": state.gone,
        "enqueued": state.next_sequence - 1,
        "users": {key: (user.attached, user.is_detached) for key, user in users.items()},
        "order of users": list(users),
        "sessions": {
            key: (
                session.id,
                session.next,
                {number for first, stop in session.rejected for number in range(first, stop)},
                session.answers,
            )
            for key, session in state.sessions.items()
        },
        "known": state.window.packed() if state.window is not None else b"",
        "others": others(state),
    }


def numbers(marked: MarkedRuns[Any]) -> list[int]:
    return [number for run, _mark in marked for number in run]


def records_of(image: QueueImage) -> dict[int, tuple[Any, ...]]:
    state = image.state
    places: dict[int, tuple[Place, int, int]] = {}
    for entry in state.entries:
        for run in state.entries.ready_of(entry):
            for number in run:
                places[number] = (
                    ("ready",),
                    *state.delivery_counts.alike(number, number + 1).counts,
                )
    for run, counts in state.requeued:
        places |= dict.fromkeys(run, (("requeued",), *counts))
    for run, delayed in state.delayed:
        places |= dict.fromkeys(run, (("delayed", delayed.ready_at_ms), *delayed.counts))
    for run, dead in state.pending:
        places |= dict.fromkeys(run, (("pending", dead.reason, dead.time_ms), *dead.counts))
    for key, holder in state.holders.items():
        for run, hold in holder.held:
            places |= dict.fromkeys(run, (("held", key), *hold.counts))
    records: dict[int, tuple[Any, ...]] = {}
    for entry in state.entries:
        for at, number in enumerate(range(entry.first, entry.first + entry.count)):
            if number in places:
                own = entry.each.expiries if entry.each is not None else None
                expires_at_ms = own[at] if own else entry.expires_at_ms
                records[number] = (*places[number], priority_of(entry, at), expires_at_ms)
    return records
