"""Retained messages as a tree of topics, and cursors in it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.vhosts.retained import (
    HOLES_MIN,
    LEVEL_BYTES,
    STALE_MIN,
    RetainedTopics,
    size_of,
)
from tests.suite.seeds import machine_settings

WORDS = st.sampled_from(["", "a", "b", "c", "$x", "$"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map("/".join)
FILTERS = st.builds(
    lambda levels, last: "/".join([*levels, *last]),
    st.lists(WORDS | st.just("+"), min_size=1, max_size=3),
    st.sampled_from([[], ["#"]]),
) | st.just("#")
NOW_MS = 1_000
UNHIDDEN = ["/b", "a", "a/", "a/b", "a/b/c"]
"""Topics of the tests below that wildcards see."""


def message(content: bytes, expires_at_ms: int = NEVER_EXPIRES_MS) -> RetainedMessage:
    return RetainedMessage(content, b"", "guest", 0, expires_at_ms)


def matches(topic_filter: str, topic: str) -> bool:
    """True if a filter matches a topic by MQTT 5.0, 4.7, as a regular expression."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    pattern = re.escape("/" + topic_filter).replace(r"/\#", "(/.*)?").replace(r"/\+", "/[^/]*")
    return re.fullmatch(pattern, "/" + topic) is not None


def found(topics: RetainedTopics, topic_filter: str, *, step: int = 3) -> list[str]:
    cursor, taken = topics.cursor(topic_filter), []
    while not cursor.is_done:
        some = cursor.take(step, NOW_MS, visits_max=step)
        assert len(some) <= step
        taken += [topic for topic, _ in some]
    return taken


@pytest.mark.parametrize(
    ("topic_filter", "topics"),
    [
        ("a", ["a"]),
        ("a/b", ["a/b"]),
        ("a/#", ["a", "a/", "a/b", "a/b/c"]),
        ("a/b/#", ["a/b", "a/b/c"]),
        ("+", ["a"]),
        ("+/b", ["/b", "a/b"]),
        ("+/+", ["/b", "a/", "a/b"]),
        ("/+", ["/b"]),
        ("a/+/#", ["a/", "a/b", "a/b/c"]),
        ("#", UNHIDDEN),
        ("+/#", ["/b", "a", "a/", "a/b", "a/b/c"]),
        ("$SYS/#", ["$SYS/x"]),
        ("$SYS/+", ["$SYS/x"]),
        ("b/#", []),
        ("a/b/c/d", []),
    ],
)
def test_a_filter_finds_its_topics(topic_filter: str, topics: list[str]) -> None:
    all_topics = ["a", "a/", "a/b", "a/b/c", "/b", "$SYS/x"]
    retained = RetainedTopics({topic: message(b"x") for topic in all_topics})
    assert sorted(found(retained, topic_filter)) == topics


@given(st.sets(TOPICS, max_size=20), FILTERS, st.integers(1, 9))
def test_each_match_is_found_once(topics: set[str], topic_filter: str, step: int) -> None:
    retained = RetainedTopics({topic: message(b"x") for topic in topics})
    expected = sorted(topic for topic in topics if matches(topic_filter, topic))
    assert sorted(found(retained, topic_filter, step=step)) == expected


def test_a_step_is_short_where_little_matches() -> None:
    retained = RetainedTopics({f"a/{number}": message(b"x") for number in range(1000)})
    retained.put("a/999/b", message(b"y"))
    cursor, steps = retained.cursor("a/+/b"), 0
    taken: list[str] = []
    while not cursor.is_done:
        taken += [topic for topic, _ in cursor.take(100, NOW_MS, visits_max=100)]
        steps += 1
    assert taken == ["a/999/b"]
    assert 10 <= steps <= 12


def test_what_has_expired_is_not_found() -> None:
    retained = RetainedTopics({
        "a": message(b"x", NOW_MS), "b": message(b"x", NOW_MS + 1), "c": message(b"x"),
    })  # fmt: skip
    assert found(retained, "#") == ["b", "c"]
    assert retained.next_expiry_ms == NOW_MS
    assert retained.due(NOW_MS - 1, 10) == []
    assert retained.due(NOW_MS + 1, 1) == ["a"]
    assert retained.due(NOW_MS + 1, 10) == ["b"]
    assert retained.next_expiry_ms is None


def test_a_time_is_that_of_the_message_that_is_there() -> None:
    retained = RetainedTopics({"a": message(b"x", 5), "b": message(b"x", 5)})
    retained.put("a", message(b"y", 7))
    retained.remove("b")
    assert retained.due(6, 10) == []
    assert retained.due(7, 10) == ["a"]


def test_times_of_replaced_messages_do_not_pile_up() -> None:
    retained = RetainedTopics()
    for number in range(10_000):
        retained.put("a", message(b"x", 1 + number))
    assert len(retained._expiries) <= STALE_MIN + 3
    assert retained.due(9_999, 10) == []
    assert retained.due(10_000, 10) == ["a"]


def test_sizes_are_counted() -> None:
    retained = RetainedTopics()
    retained.put("ä/b", RetainedMessage(b"12345", b"67", "guest", 0))
    assert retained.size_bytes == 5 + 2 + 4 + 2 * LEVEL_BYTES
    retained.put("ä/b", message(b"1"))
    assert (retained.count, retained.size_bytes) == (1, size_of("ä/b", message(b"1")))
    retained.remove("ä/b")
    retained.remove("ä/b")
    assert (retained.count, retained.size_bytes) == (0, 0)
    assert retained._root.children == {}


def test_a_cursor_outlives_a_list_that_is_made_anew() -> None:
    names = [f"{number:03}" for number in range(10 * HOLES_MIN)]
    retained = RetainedTopics({f"a/{name}": message(b"x") for name in names})
    cursor = retained.cursor("a/+")
    taken = [topic for topic, _ in cursor.take(5, NOW_MS)]
    for name in names[10:-10]:
        retained.remove(f"a/{name}")
    retained.put("a/new", message(b"x"))
    while not cursor.is_done:
        taken += [topic for topic, _ in cursor.take(5, NOW_MS)]
    assert set(taken) - {"a/new"} == {f"a/{name}" for name in names[:10] + names[-10:]}
    assert len(found(retained, "a/+")) == 21


class CursorsAgainstChanges(RuleBasedStateMachine):
    """Cursors find once what is there from their beginning to their end, and nothing that is gone
    when they are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.topics = RetainedTopics()
        self.model: dict[str, RetainedMessage] = {}
        self.cursor = self.topics.cursor("#")
        self.topic_filter = "#"
        self.stayed: set[str] = set()
        self.taken: list[str] = []

    @rule(topic=TOPICS, content=st.binary(max_size=3))
    def put(self, topic: str, content: bytes) -> None:
        self.topics.put(topic, message(content))
        self.model[topic] = message(content)

    @rule(topic=TOPICS)
    def remove(self, topic: str) -> None:
        self.topics.remove(topic)
        self.model.pop(topic, None)
        self.stayed.discard(topic)

    @rule(topic_filter=FILTERS)
    def begin(self, topic_filter: str) -> None:
        self.topic_filter, self.cursor = topic_filter, self.topics.cursor(topic_filter)
        self.stayed = {topic for topic in self.model if matches(topic_filter, topic)}
        self.taken = []

    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        for topic, each in self.cursor.take(count, NOW_MS, visits_max=count):
            assert self.model[topic] == each
            assert matches(self.topic_filter, topic)
            self.taken.append(topic)

    @invariant()
    def all_that_stayed_is_found_once(self) -> None:
        assert all(self.taken.count(topic) == 1 for topic in self.stayed & {*self.taken})
        if self.cursor.is_done and self.stayed:
            assert self.stayed <= {*self.taken}

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        assert dict(self.topics) == self.model
        assert self.topics.count == len(self.model)
        sizes = [size_of(topic, each) for topic, each in self.model.items()]
        assert self.topics.size_bytes == sum(sizes)
        assert all(self.topics.find(topic) == each for topic, each in self.model.items())


TestCursorsAgainstChanges = CursorsAgainstChanges.TestCase
TestCursorsAgainstChanges.settings = machine_settings()
