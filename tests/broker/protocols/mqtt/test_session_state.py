"""Session state: subscriptions by topic, and packet identifiers."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.protocols.mqtt.session_state import (
    NO_LOCAL,
    PACKET_ID_MAX,
    RETAIN_AS_PUBLISHED,
    PacketIds,
    SentBefore,
    SessionState,
    SessionStates,
    TopicSubscription,
)
from fluffle.protocol.mqtt.topics import is_wildcard


def state_with(*subscriptions: TopicSubscription) -> SessionState:
    state = SessionState(("/", "c"))
    for subscription in subscriptions:
        state.subscribe(subscription)
    return state


def test_the_largest_qos_and_all_identifiers_of_what_matches_apply() -> None:
    state = state_with(
        TopicSubscription("a/#", 1, 7),
        TopicSubscription("a/b", RETAIN_AS_PUBLISHED, 3),
        TopicSubscription("x", 2, 9),
    )
    match = state.match("a/b", is_own=False)
    assert match == (1, True, (3, 7), (False, False), True)
    assert state.match("a", is_own=False) == (1, False, (7,), (False, False), False)
    assert state.match("b", is_own=False).qos == -1


def test_no_local_is_for_messages_of_the_same_client() -> None:
    state = state_with(TopicSubscription("a", NO_LOCAL | 1), TopicSubscription("b", 0))
    assert state.match("a", is_own=False).qos == 1
    assert state.match("a", is_own=True)[:4:3] == (-1, (False, True))
    assert state.match("b", is_own=True)[:4:3] == (0, (False, False))
    assert state.match("c", is_own=True)[:4:3] == (-1, (False, False))
    state.subscribe(TopicSubscription("+", 0))
    assert state.match("a", is_own=True)[:4:3] == (0, (False, True))


def test_what_was_remembered_of_topics_is_forgotten_when_subscriptions_change() -> None:
    state = state_with(TopicSubscription("a", 0))
    assert state.match("a", is_own=False).qos == 0
    state.subscribe(TopicSubscription("a", 2))
    assert state.match("a", is_own=False).qos == 2
    state.unsubscribe("a")
    assert state.match("a", is_own=False).qos == -1


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=40))
def test_no_identifier_is_given_twice_while_it_is_in_use(
    requests: list[tuple[int, bool]],
) -> None:
    packet_ids, in_use = PacketIds(), list[int]()
    for count, is_freed in requests:
        taken = list(packet_ids.take(count))
        assert len(set(taken)) == count
        assert not {*taken} & {*in_use}
        assert all(1 <= packet_id <= PACKET_ID_MAX for packet_id in taken)
        in_use += taken
        if is_freed:
            packet_ids.free(in_use[: count // 2])
            del in_use[: count // 2]
    assert packet_ids.used == {*in_use}


def test_identifiers_begin_again_behind_the_last() -> None:
    packet_ids = PacketIds()
    assert packet_ids.take(PACKET_ID_MAX - 1) == range(1, PACKET_ID_MAX)
    packet_ids.free((1, 2, 5))
    assert list(packet_ids.take(3)) == [PACKET_ID_MAX, 1, 2]
    assert list(packet_ids.take(1)) == [5]
    with pytest.raises(AssertionError, match="identifiers"):
        packet_ids.take(1)


def test_what_was_not_finished_is_sent_under_the_same_identifier() -> None:
    state = SessionState(("/", "c"))
    first, second = state.packet_ids.take(2)
    state.keep_unfinished("q", {10: SentBefore(first, 1), 11: SentBefore(second, 2)})
    assert state.take_unfinished("q", 10) == (first, 1)
    assert state.take_unfinished("q", 10) is None
    assert state.take_unfinished("other", 11) is None
    state.drop_unfinished("q")
    assert state.take_unfinished("q", 11) is None
    assert state.packet_ids.used == {first}


def test_a_state_that_was_ended_does_not_end_the_one_in_its_place() -> None:
    states = SessionStates()
    before = states.open(("/", "c"))
    states.end(before)
    after = states.open(("/", "c"))
    assert after is not before
    states.end(before)
    assert states.find(("/", "c")) is after


MATCHES = [
    ("a/b/#", "a/b"), ("a/b/#", "a/b/"), ("a/b/#", "a/b/c/d"), ("#", "a"), ("#", "/"), ("#", "a/b"),
    ("+", "a"), ("+/+", "/a"), ("/+", "/a"), ("a/+", "a/"), ("a/+/c", "a//c"), ("a/#", "a"),
    ("+/#", "a"), ("a", "a"), ("$SYS/#", "$SYS/a"), ("$SYS/+", "$SYS/a"), ("+/$SYS", "a/$SYS"),
    ("a/#", "a/$b"),
]  # fmt: skip
OTHERS = [
    ("a/b/#", "a"), ("a/b/#", "a/bc"), ("+", "/a"), ("+", "a/b"), ("a/+", "a"), ("a/+", "a/b/c"),
    ("a", "A"), ("a", "a/"), ("#", "$SYS"), ("#", "$SYS/a"), ("+/a", "$SYS/a"), ("+", "$SYS"),
    ("+/#", "$SYS/a"), ("a/b", "a"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_match"),
    [*((*each, True) for each in MATCHES), *((*each, False) for each in OTHERS)],
)
def test_a_topic_against_a_filter(topic_filter: str, topic: str, is_match: bool) -> None:
    state = state_with(TopicSubscription(topic_filter, 1))
    assert (state.match(topic, is_own=False).qos == 1) is is_match
    assert filter_matches(topic_filter, topic) is is_match


WORDS = st.sampled_from(["", "a", "b", "$x", "+"])


def filter_matches(topic_filter: str, topic: str) -> bool:
    """True if a valid filter, without `$share/NAME/`, matches a topic name."""
    if not is_wildcard(topic_filter):
        return topic_filter == topic
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    levels, names = topic_filter.split("/"), topic.split("/")
    if levels[-1] == "#":
        levels.pop()
        names = names[: len(levels)]
    return len(levels) == len(names) and all(
        level in ("+", name) for level, name in zip(levels, names, strict=True)
    )


@given(
    st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=4), st.booleans()), max_size=12),
    st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=4),
    st.data(),
)
def test_what_matches_is_found_as_by_looking_at_each_filter(
    shapes: list[tuple[list[str], bool]], topics: list[list[str]], data: st.DataObject
) -> None:
    state = SessionState(("/", "c"))
    filters = {"/".join([*words, "#"] if is_open else words) for words, is_open in shapes} - {""}
    for number, topic_filter in enumerate(sorted(filters), 1):
        state.subscribe(TopicSubscription(topic_filter, 1, number))
    for gone in data.draw(st.sets(st.sampled_from(sorted(filters)))) if filters else ():
        state.unsubscribe(gone)
    for topic in {"/".join(words).replace("+", "c") for words in topics} - {""}:
        expected = sorted(
            each.identifier
            for each in state.subscriptions.values()
            if filter_matches(each.topic_filter, topic)
        )
        assert list(state.match(topic, is_own=False).identifiers) == expected


def test_a_topic_is_matched_at_once_however_many_filters_there_are() -> None:
    state = SessionState(("/", "c"))
    for number in range(20_000):
        state.subscribe(TopicSubscription(f"a/{number}/+", 1, number + 1))
    calls = count_calls(lambda: state.match("a/7/x", is_own=False))
    assert state.match("a/7/x", is_own=False).identifiers == (8,)
    assert calls < 100


def count_calls(act: Callable[[], object]) -> int:
    """How many functions are called meanwhile."""
    calls = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls
