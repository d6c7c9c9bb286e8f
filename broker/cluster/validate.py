"""Checks of well-formed messages that no node of ours can have meant.

Consensus takes for granted what any sender of its own kind keeps to: entries that follow one
another, configurations that can be read.  A peer that is broken, or of another version, must not
end this node, so its messages are looked at before they go in.  Whether what they say is *true*
nobody can see here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fluffle.broker.cluster.codec import BadFrame
from fluffle.raft.config import Config, Member
from fluffle.raft.messages import (
    AppendRequest,
    GroupUnknown,
    Message,
    Ping,
    SnapshotChunk,
    SnapshotOffer,
)
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import CONFIG, Entry

NUMBER_MAX = 1 << 62
"""No index, term, round or size gets so far; beyond it, adding one might not fit on the disk."""


def check(messages: Iterable[Message]) -> None:
    """Raises `BadFrame` for the first that makes no sense."""
    for message in messages:
        if isinstance(message, GroupUnknown):
            continue
        if isinstance(message, Ping):
            if max(message.sent_ms, message.wall_ms, message.common_ms) >= NUMBER_MAX:
                raise BadFrame("Ping: a time that never comes")
            continue
        find_wrong = _FIND_WRONG.get(type(message))
        wrong = None if find_wrong is None else find_wrong(message)
        if not 0 < message.term < NUMBER_MAX:
            wrong = f"term {message.term}"
        if wrong is not None:
            raise BadFrame(f"{type(message).__name__}: {wrong}")


def _wrong_append(message: AppendRequest) -> str | None:
    if not message.entries:
        return None if message.previous_index < NUMBER_MAX else "an index that nobody reaches"
    first = message.entries[0]
    if first.index != message.previous_index + 1 or first.term < message.previous_term:
        return f"entries from {first.index} behind {message.previous_index}"
    before = first.index - 1
    for entry in message.entries:
        before += 1
        if entry.index != before:
            return f"entry {entry.index} in the place of {before}"
    return _wrong_entries(message.entries, message.term)


def _wrong_entries(entries: Sequence[Entry], term: int) -> str | None:
    """They rise in index and term, and no term is beyond that of the sender."""
    last = entries[-1]
    if last.term > term or last.index >= NUMBER_MAX:
        return f"an entry of term {last.term} and index {last.index} in term {term}"
    before = entries[0]
    for entry in entries[1:]:
        if entry.term < before.term or entry.index <= before.index:
            return f"entry {entry.index} of term {entry.term} behind {before.index}"
        before = entry
    for entry in entries:
        if entry.kind == CONFIG and (wrong := _wrong_config(entry.payload)) is not None:
            return wrong
    return None


def _wrong_config(payload: bytes) -> str | None:
    try:
        config = Config.decode(payload)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"a configuration that cannot be read: {error!r}"
    if all(map(_is_member, config.members)) and _is_number(config.top_incarnation):
        return None
    return "a configuration with members that are none"


def _is_member(member: Member) -> bool:
    return type(member.node) is str and _is_number(member.incarnation)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < NUMBER_MAX


def _wrong_offer(message: SnapshotOffer) -> str | None:
    try:
        live = list(Ranges.from_bytes(message.live))
    except ValueError as error:
        return f"live ranges that cannot be read: {error}"
    if not 0 < message.index < NUMBER_MAX or (live and live[-1][1] > message.index + 1):
        return f"what is live at {message.index} ends with {live[-1:]}"
    if (live and live[0][0] < 1) or message.index_term > message.term:
        return f"a snapshot of term {message.index_term}"
    return _wrong_config(message.config)


def _wrong_chunk(message: SnapshotChunk) -> str | None:
    entries = message.entries
    is_within = message.entries_through <= message.index < NUMBER_MAX and (
        not entries
        or (
            message.entries_from <= entries[0].index
            and entries[-1].index <= message.entries_through
        )
    )
    if not is_within:
        return f"entries up to {message.entries_through} of {message.index}"
    return _wrong_entries(entries, message.term) if entries else None


_FIND_WRONG: dict[type, Callable[[Any], str | None]] = {
    AppendRequest: _wrong_append,
    SnapshotOffer: _wrong_offer,
    SnapshotChunk: _wrong_chunk,
}
