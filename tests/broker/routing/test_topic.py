"""The trie of topic keys.  AMQP 0-9-1 §3.1.3.3; the odd cases as RabbitMQ 4.0.5 answered them."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing import topic
from fluffle.broker.routing.matcher import STOP
from fluffle.broker.routing.topic import TopicMatcher
from tests.broker.routing.topologies import matches_of, to_queue

WORDS = st.sampled_from(["", "a", "b", "ab"])
KEYS = st.lists(WORDS, max_size=6).map(".".join)
PATTERNS = (
    st.lists(WORDS | st.sampled_from(["*", "#"]), max_size=6)
    .filter(lambda words: words.count("#") <= 2)
    .map(".".join)
)


def bound(*patterns: str) -> TopicMatcher:
    matcher = TopicMatcher()
    for number, pattern in enumerate(patterns):
        matcher.add(to_queue("x", f"q{number}", pattern))
    return matcher


def matched(matcher: TopicMatcher, *keys: str) -> list[str]:
    return sorted(binding.routing_key for binding in matches_of(matcher, keys, None))


def nodes(matcher: TopicMatcher) -> int:
    pending, count = [matcher._trie.root], 0
    while pending:
        children = pending.pop().children
        if isinstance(children, dict):
            pending.extend(children.values())
        elif children is not None:
            pending.append(children)
        count += 1
    return count


def fits(pattern: list[str], words: list[str]) -> bool:
    """The definition, word for word, in no hurry."""
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return fits(rest, words) or (bool(words) and fits(pattern, words[1:]))
    return bool(words) and first in ("*", words[0]) and fits(rest, words[1:])


def split(key: str) -> list[str]:
    return key.split(".") if key else []


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        # The two examples of the specification.
        ("*.stock.#", "usd.stock", True),
        ("*.stock.#", "eur.stock.db", True),
        ("*.stock.#", "stock.nasdaq", False),
        # Whole words only, and the case counts.
        ("a*", "ab", False),
        ("a#", "ab", False),
        ("a.b", "A.b", False),
        # `*` is exactly one word, an empty one too.
        ("*", "a", True),
        ("*", "", False),
        ("*", "a.b", False),
        ("a.*.b", "a..b", True),
        ("*.*", ".", True),
        # `#` is any number of words.
        ("#", "", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("#.a", "a", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.c.d.b", True),
        ("a.#.b", "a.b.c", False),
        ("#.#", "", True),
        ("*.#", "", False),
        ("*.#", ".", True),
        ("#.*", "a", True),
        # Dots make words, the empty key has none.
        ("", "", True),
        ("", "a", False),
        (".", ".", True),
        ("..", ".", False),
        ("#.", "a.", True),
        ("#.", "", False),
        # What a wildcard is in a binding key is a word like others in a routing key.
        ("*", "#", True),
        ("#", "#", True),
        ("a.b", "a.*", False),
        ("a.b", "#", False),
    ],
)
def test_a_key_against_a_pattern(pattern: str, key: str, matches: bool) -> None:
    assert matched(bound(pattern), key) == ([pattern] if matches else [])


@given(patterns=st.lists(PATTERNS, unique=True), key=KEYS)
def test_the_trie_finds_what_the_definition_finds(patterns: list[str], key: str) -> None:
    expected = sorted(p for p in patterns if fits(split(p), split(key)))
    assert matched(bound(*patterns), key) == expected


@given(kept=st.sets(PATTERNS), gone=st.sets(PATTERNS), key=KEYS)
def test_unbinding_leaves_the_trie_as_if_never_bound(
    kept: set[str], gone: set[str], key: str
) -> None:
    gone -= kept
    matcher = TopicMatcher()
    for pattern in sorted(kept | gone):
        assert matcher.add(to_queue("x", "q", pattern))
    for pattern in sorted(gone):
        assert matcher.discard(to_queue("x", "q", pattern))
    assert nodes(matcher) == nodes(bound(*kept))
    assert len(matcher) == len(kept)
    assert {binding.routing_key for binding in matcher} == kept
    assert matched(matcher, key) == matched(bound(*kept), key)


def test_a_binding_is_there_once() -> None:
    matcher = bound("a.*")
    assert not matcher.add(to_queue("x", "q0", "a.*"))
    assert matcher.add(to_queue("x", "q1", "a.*"))
    assert len(matcher) == 2


@pytest.mark.parametrize("missing", ["a.b", "a.b.c.d", "a", "a.c", "#"])
def test_discarding_what_is_not_there_changes_nothing(missing: str) -> None:
    matcher = bound("a.b.c")
    before = nodes(matcher)
    assert not matcher.discard(to_queue("x", "q0", missing))
    assert not matcher.discard(to_queue("x", "q1", "a.b.c"))
    assert (nodes(matcher), len(matcher)) == (before, 1)


def test_several_keys_match_what_each_matches() -> None:
    assert matched(bound("a", "b", "c"), "a", "c") == ["a", "c"]


def test_many_wildcards_and_a_long_key_visit_few_nodes() -> None:
    """128 words against patterns over which backtracking would not come to an end."""
    patterns = [".".join(["#", *["*"] * stars, "#", "x"]) for stars in range(60)]
    words = ["a"] * 128
    matcher = bound(*patterns)
    assert matched(matcher, ".".join(words)) == []
    with patch.object(topic, "NODES_AT_ONCE", 1):
        stops = sum(1 for found in matcher.search([".".join(words)], None) if found is STOP)
    assert 0 < stops <= (len(words) + 1) * nodes(matcher)
    assert matched(matcher, ".".join([*words[1:], "x"])) == sorted(patterns)


def test_more_than_two_hashes_are_refused() -> None:
    """RabbitMQ since 4.3.5; 4.0.5 accepts them."""
    matcher = TopicMatcher()
    with pytest.raises(PreconditionFailed) as caught:
        matcher.check(to_queue("x", "q", "#.a.#.b.#"))
    assert caught.value.reply_text == (
        "PRECONDITION_FAILED - Topic binding key '#.a.#.b.#' uses 3 '#' wildcards,"
        " at most 2 are allowed"
    )
    assert nodes(matcher) == 1
    assert matcher.add(to_queue("x", "q", "#.a#.b.#"))
