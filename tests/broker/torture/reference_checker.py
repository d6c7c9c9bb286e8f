"""The checker's rules said again, one by one, by looking through the whole history each time.

Slow and short: for histories of one publisher and one queue, without clearing and transience.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from fluffle.broker.torture.checker import Breach
from fluffle.broker.torture.history import (
    Acked,
    Asked,
    Closing,
    Confirmed,
    Connected,
    Ended,
    Event,
    Joined,
    Joining,
    MessageId,
    Published,
    PutBack,
    Received,
    Requeued,
    RunEnded,
    TurnedAway,
    Vouched,
)


def breaches(history: Sequence[Event]) -> Counter[Breach]:
    """Count breaches; messages that were received and never published count once."""
    found: Counter[Breach] = Counter()
    published = {event.message for event in history if isinstance(event, Published)}
    unknown = [event for _at, event in receipts(history) if event.message not in published]
    found[Breach.UNEXPECTED] = len(unknown)
    history = [event for event in history if event not in unknown]
    received = {event.message for event in history if isinstance(event, Received)}
    confirmed = [event.message for event in history if isinstance(event, Confirmed)]
    found[Breach.LOST] = sum(message not in received for message in confirmed)
    for at, event in receipts(history):
        found[Breach.LIED] += is_lie(history, at, event)
        found[Breach.DISORDERED] += is_out_of_order(history, at, event)
        found[Breach.BACK] += any(
            vouched < floor(history, at, event.channel)
            for vouched in vouchings(history, at, event.message)
        )
    found[Breach.SHARED] = sum(1 for _ in proven(history))
    found[Breach.LET_IN] = sum(
        serves_or_stays(history[at + 1 :], event.node)
        for at, event in enumerate(history)
        if isinstance(event, PutBack)
    )
    joining = {event.node for event in history if isinstance(event, Joining)}
    found[Breach.APART] = sum(not has_joined(history, node) for node in joining)
    return +found


def has_joined(history: Sequence[Event], node: str) -> bool:
    """Since it was started for the last time to do so."""
    reported = [
        isinstance(event, Joined)
        for event in history
        if isinstance(event, Joining | Joined) and event.node == node
    ]
    return reported[-1]


def serves_or_stays(later: Sequence[Event], node: str) -> bool:
    """True if a node whose disk was put back comes to confirm what those publish who have connected
    since, or was never turned away."""
    nodes: dict[str, str] = {}
    for event in later:
        if isinstance(event, Connected):
            nodes[event.client] = event.node
        if isinstance(event, Confirmed) and nodes.get(event.message.publisher) == node:
            return True
        if isinstance(event, TurnedAway) and event.node == node:
            return False
    return True


def receipts(history: Sequence[Event], before: int | None = None) -> list[tuple[int, Received]]:
    """With their times; `before` is one, too."""
    found = enumerate(history[:before])
    return [(at, event) for at, event in found if isinstance(event, Received)]


def receipts_of(
    history: Sequence[Event], message: MessageId, before: int
) -> list[tuple[int, Received]]:
    return [(at, event) for at, event in receipts(history, before) if event.message == message]


def floor(history: Sequence[Event], at: int, channel: str) -> int:
    """When the last question was asked on it that had an answer before `at`; -1: never."""
    asked = answered = -1
    for now, event in enumerate(history[:at]):
        if is_a(Asked, event, channel):
            asked = now
        elif is_a(Vouched, event, channel):
            answered = asked
        elif isinstance(event, RunEnded):
            answered = now
    return answered


def is_lie(history: Sequence[Event], at: int, event: Received) -> bool:
    if event.redelivered:
        return False
    before = receipts_of(history, event.message, at)
    sees = floor(history, at, event.channel)
    return any(not other.redelivered for _then, other in before) or any(
        then < sees for then, _other in before
    )


def is_out_of_order(history: Sequence[Event], at: int, event: Received) -> bool:
    if event.redelivered:
        return False
    new = [
        other.message.number
        for _then, other in receipts(history, at)
        if other.channel == event.channel and not other.redelivered
    ]
    return event.message.number <= max(new[-1:], default=0)


def holder(history: Sequence[Event], message: MessageId, at: int) -> str | None:
    """The channel in whose hands it is, or whose acknowledgement may be on its way."""
    before = receipts_of(history, message, at)
    if not before:
        return None
    then, last = before[-1]
    channel, is_acked = last.channel, False
    for now in range(then + 1, at):
        event = history[now]
        if isinstance(event, RunEnded) or is_a(Ended, event, channel):
            return None
        if is_a(Closing, event, channel) and not is_acked:
            return None
        if isinstance(event, Requeued) and (event.channel, event.message) == (channel, message):
            return None
        if isinstance(event, Acked) and (event.channel, event.message) == (channel, message):
            is_acked = True
        if now in vouchings(history, at, message):
            return None
    return channel


def vouchings(history: Sequence[Event], at: int, message: MessageId) -> list[int]:
    """When an acknowledgement of a message in one hand was vouched for, before `at`."""
    found = []
    for acked, event in enumerate(history[:at]):
        if not isinstance(event, Acked) or event.message != message:
            continue
        before = receipts_of(history, message, acked)
        if before[-1][1].channel != event.channel or is_gone(history, before[-1][0], acked):
            continue
        vouched = answer(history, acked, event.channel, at)
        if vouched is not None and not is_shared_before(history, message, vouched):
            found.append(vouched)
    return found


def is_gone(history: Sequence[Event], since: int, until: int) -> bool:
    return any(isinstance(event, RunEnded) for event in history[since:until])


def answer(history: Sequence[Event], since: int, channel: str, before: int) -> int | None:
    """When a question was answered that was asked on this channel after `since`."""
    is_asked = False
    for now in range(since + 1, before):
        event = history[now]
        if isinstance(event, RunEnded) or is_a(Ended, event, channel):
            return None
        is_asked = is_asked or is_a(Asked, event, channel)
        if is_asked and is_a(Vouched, event, channel):
            return now
    return None


def is_shared_before(history: Sequence[Event], message: MessageId, before: int) -> bool:
    return any(
        holder(history, message, then) is not None
        for then, _event in receipts_of(history, message, before)
    )


def proven(history: Sequence[Event]) -> Iterator[int]:
    """Receipts of what another channel had, when both were still there afterwards."""
    for at, event in receipts(history):
        first = holder(history, event.message, at)
        if first is None:
            continue
        ends = [
            now
            for now in range(at + 1, len(history))
            if is_end(history[now], first) or is_end(history[now], event.channel)
        ]
        until = ends[0] if ends else len(history)
        if all(floor(history, until, channel) > at for channel in (first, event.channel)):
            yield at


def is_end(event: Event, channel: str) -> bool:
    if isinstance(event, RunEnded):
        return True
    return is_a(Closing, event, channel) or is_a(Ended, event, channel)


def is_a(cls: type[Event], event: Event, channel: str) -> bool:
    """Events are tuples, and equal ones may be of different types."""
    return isinstance(event, cls) and [*event][:1] == [channel]
