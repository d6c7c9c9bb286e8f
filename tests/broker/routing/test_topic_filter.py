"""The trie of topic filters (OASIS MQTT 5.0, 4.7), and which bindings are asked for a topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import NotFound, PreconditionFailed
from fluffle.broker.metadata.change import NOTHING
from fluffle.broker.routing import topic_filter as filters
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.changes import bind, bound_by_filter, subscribe, unsubscribe
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.matcher import STOP
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topic_filter import (
    FilterBinding,
    TopicFilterMatcher,
    arguments_of,
    check_filter,
    filter_of,
    shown_arguments,
    subscription_of,
)
from fluffle.broker.routing.topology import REMOVED_AT_ONCE, Topology
from fluffle.protocol.mqtt.topics import LEVELS_MAX
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import FieldTable
from tests.broker.routing.test_topic import nodes as nodes_of_keys
from tests.broker.routing.topologies import (
    FakeExchangeHost,
    apply,
    drop_queue,
    names,
    to_exchange,
    to_queue,
    topology,
    with_alternate,
)

LEVELS = st.sampled_from(["", "a", "b", "$a", "a.b", "*"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = (
    st.tuples(st.lists(LEVELS | st.just("+"), max_size=5), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join([*parts[0], *parts[1]]))
    .filter(bool)
)
LONG = "/".join("level" * 11 for _ in range(5))
"""A topic whose routing key no AMQP client could be given."""


def key_of(topic: str) -> str:
    return topic.replace("/", ".").replace("+", "*")


def subscribed(
    queue: str, topic_filter: str, *, options: int = 1, source: str = "amq.topic"
) -> Binding:
    subscription = FilterBinding(topic_filter, options)
    return to_queue(source, queue, key_of(topic_filter), arguments_of(subscription))


def bound(*topic_filters: str) -> TopicFilterMatcher:
    matcher = TopicFilterMatcher()
    for number, topic_filter in enumerate(topic_filters):
        assert matcher.add(subscribed(f"q{number}", topic_filter))
    return matcher


def found_in(search: Iterable[Iterable[Binding]]) -> list[Binding]:
    return [binding for found in search for binding in found]


def matched(matcher: TopicFilterMatcher, topic: str) -> list[str]:
    found = found_in(matcher.search([key_of(topic)], None, topic))
    return sorted(str(filter_of(binding)) for binding in found)


def nodes(matcher: TopicFilterMatcher) -> int:
    class OfFilters:
        _trie = matcher._filters._trie

    return nodes_of_keys(OfFilters)  # type: ignore[arg-type]  # it asks for no more


def fits(topic_filter: str, topic: str) -> bool:
    """The text of the specification, in no hurry."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("#", "+"):
        return False  # [MQTT-4.7.2-1]
    if wanted[-1] == "#":  # "includes the parent level", 4.7.1.2
        wanted.pop()
        if len(levels) < len(wanted):
            return False
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        want in ("+", level) for want, level in zip(wanted, levels, strict=True)
    )


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        # The examples of 4.7.1 and 4.7.2.
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/#", "$SYS", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        # A `$` counts at the beginning alone, and case does.
        ("+/#", "a/$b", True),
        ("a/+", "a/$b", True),
        ("a/#", "a/$b/c", True),
        ("A", "a", False),
        # Empty levels are levels.
        ("/", "/", True),
        ("+/+", "/", True),
        ("a//b", "a//b", True),
        ("a/+/b", "a//b", True),
        ("/#", "/", True),
        ("#", "/", True),
        # Dots and stars mean nothing.
        ("a.b", "a/b", False),
        ("a/b", "a.b", False),
        ("a/*", "a/b", False),
        ("a/*", "a/*", True),
        ("a/+", "a/b.c", True),
    ],
)
def test_a_topic_against_a_filter(topic_filter: str, topic: str, matches: bool) -> None:
    assert fits(topic_filter, topic) is matches
    assert matched(bound(topic_filter), topic) == ([topic_filter] if matches else [])


@given(topic_filters=st.lists(FILTERS, unique=True, max_size=12), topic=TOPICS)
def test_the_trie_finds_what_the_specification_says(topic_filters: list[str], topic: str) -> None:
    expected = sorted(each for each in topic_filters if fits(each, topic))
    assert matched(bound(*topic_filters), topic) == expected


@given(kept=st.sets(FILTERS), gone=st.sets(FILTERS), topic=TOPICS)
def test_unsubscribing_leaves_all_as_if_never_subscribed(
    kept: set[str], gone: set[str], topic: str
) -> None:
    gone -= kept
    matcher, other = TopicFilterMatcher(), TopicFilterMatcher()
    for topic_filter in sorted(kept | gone):
        assert matcher.add(subscribed("q", topic_filter))
        assert not matcher.add(subscribed("q", topic_filter))
    for topic_filter in sorted(gone):
        assert matcher.discard(subscribed("q", topic_filter))
        assert not matcher.discard(subscribed("q", topic_filter))
    for topic_filter in sorted(kept):
        other.add(subscribed("q", topic_filter))
    assert nodes(matcher) == nodes(other)
    assert nodes_of_keys(matcher._keys_of_filters) == nodes_of_keys(other._keys_of_filters)
    assert matcher._filters._by_queue == other._filters._by_queue
    assert len(matcher) == len(kept)
    assert {filter_of(binding) for binding in matcher} == kept
    assert matched(matcher, topic) == matched(other, topic)


def test_a_topic_costs_no_more_than_there_are_nodes() -> None:
    """All filters of twelve levels that are `a` or `+`, and then something else: no way through
    them is looked at twice."""
    topic_filters = [""]
    for _ in range(12):
        topic_filters = [f"{each}{level}/" for each in topic_filters for level in "a+"]
    matcher = bound(*(f"{each}b" for each in topic_filters))
    assert found_in(matcher.search([], None, "a/" * 12 + "c")) == []
    with patch.object(filters, "NODES_AT_ONCE", 1):
        search = matcher.search([], None, "a/" * 12 + "c")
        stops = sum(found is STOP for found in search)
    assert 2**12 < stops <= nodes(matcher)


def test_the_longest_topic_is_looked_at_as_far_as_filters_go() -> None:
    deepest = "/".join("+" * LEVELS_MAX)
    matcher = bound("+/+/#", "#", deepest, "a/#")
    topic = "/" * 65_535
    with patch.object(filters, "NODES_AT_ONCE", 1):
        found = [*matcher.search([], None, topic)]
    assert sorted(str(filter_of(each)) for each in found_in(found)) == ["#", "+/+/#"]
    assert sum(each is STOP for each in found) <= LEVELS_MAX + 1
    assert matched(matcher, "/" * (LEVELS_MAX - 1)) == sorted(["#", "+/+/#", deepest])


@pytest.mark.parametrize(
    "topic_filter",
    ["", "a#", "#a", "a/#/b", "#/", "+a", "a+/b", "a/b+", "++", "a/##", "#/#", "+/a#"],
)
def test_what_is_no_filter_is_refused(topic_filter: str) -> None:
    with pytest.raises(PreconditionFailed, match="invalid topic filter"):
        TopicFilterMatcher().check(subscribed("q", topic_filter))


def test_a_filter_has_so_many_levels() -> None:
    check_filter("/".join("a" * LEVELS_MAX))
    check_filter("/" * (LEVELS_MAX - 2) + "#")
    with pytest.raises(PreconditionFailed, match="202 levels, at most 201"):
        check_filter("/" * LEVELS_MAX)


def test_arguments_of_subscriptions_are_read_as_written_and_hidden() -> None:
    subscription = FilterBinding("a/+", 0x2D, 7)
    binding = to_queue("x", "q", "a.*", arguments_of(subscription, "a.*"))
    assert subscription_of(binding) == subscription
    assert shown_arguments(binding) == {"x-binding-key": ("S", b"a.*")}
    older = to_queue("x", "q", "a.*", arguments_of(FilterBinding("a/+")))
    assert (subscription_of(older), shown_arguments(older)) == (FilterBinding("a/+"), {})


def test_arguments_that_are_no_filter_are_shown() -> None:
    """A filter is a long string; without one the others mean nothing."""
    tables: list[FieldTable] = [{"x-topic-filter": ("l", 1)}, {"x-subscription-id": ("l", 1)}]
    for arguments in tables:
        binding = to_queue("x", "q", "a", arguments)
        assert (subscription_of(binding), shown_arguments(binding)) == (None, arguments)


# Whom a message is matched with


def queues(made: Topology, keys: list[str], topic: str | None = None) -> list[str]:
    router = Router(made, bool)
    return sorted(whole(router.route_in_steps("amq.topic", keys, None, topic)).queues)


def test_a_topic_is_for_filters_and_the_key_for_all_others() -> None:
    made = topology(
        to_queue("amq.topic", "by key", "a.b"),
        to_queue("amq.topic", "all keys", "#"),
        subscribed("exact", "a/b"),
        subscribed("dotted", "a.b"),
        subscribed("all topics", "#"),
        subscribed("one level", "+"),
    )
    assert queues(made, ["a.b"], "a/b") == ["all keys", "all topics", "by key", "exact"]
    assert queues(made, ["a.b"], "a.b") == [
        "all keys", "all topics", "by key", "dotted", "one level",
    ]  # fmt: skip
    assert queues(made, ["a.b"]) == ["all keys", "all topics", "by key", "dotted", "exact"]


def test_only_keys_see_what_begins_with_a_dollar() -> None:
    """An AMQP client that publishes under such a key is matched by RabbitMQ's rules."""
    made = topology(subscribed("all topics", "#"), to_queue("amq.topic", "all keys", "#"))
    assert queues(made, ["$SYS.a"], "$SYS/a") == ["all keys"]
    assert queues(made, ["$SYS.a"]) == ["all keys", "all topics"]


def test_the_topic_goes_along_from_exchange_to_exchange() -> None:
    other = ExchangeSpec("other", "topic")
    made = topology(
        other,
        to_exchange("amq.topic", "other", "#"),
        subscribed("exact", "a/b", source="other"),
        subscribed("dotted", "a.b", source="other"),
        to_exchange("other", "amq.fanout", "a.b"),
        to_queue("amq.fanout", "any"),
    )
    assert queues(made, ["a.b"], "a/b") == ["any", "exact"]


def test_a_subscription_may_lead_to_an_exchange() -> None:
    arguments = arguments_of(FilterBinding("a/+"))
    made = topology(
        to_exchange("amq.topic", "amq.fanout", "a.*", arguments), to_queue("amq.fanout", "q")
    )
    assert queues(made, ["a.b"], "a/b") == ["q"]
    assert queues(made, ["a.b"], "a.b") == []


def test_without_a_key_only_filters_are_asked() -> None:
    """No queue that an AMQP client has bound gets it, by whatever way."""
    made = topology(
        ExchangeSpec("hash", "x-consistent-hash"),
        with_alternate("aside", "amq.fanout", "topic"),
        to_queue("amq.topic", "all keys", "#"),
        to_exchange("amq.topic", "hash", "#"),
        to_exchange("amq.topic", "hash", "level.#", arguments_of(FilterBinding("#"))),
        to_exchange("amq.topic", "aside", "#", arguments_of(FilterBinding("level/#"))),
        to_queue("hash", "hashed", "1"),
        to_queue("amq.fanout", "any"),
        subscribed("long", LONG),
        subscribed("all topics", "#"),
    )
    assert queues(made, [], LONG) == ["all topics", "long"]


def test_a_filter_with_a_long_key_is_found_by_topics_alone() -> None:
    made = topology(subscribed("long", f"{LONG}/#"))
    assert queues(made, [], LONG) == ["long"]
    assert queues(made, [key_of(LONG)]) == []
    assert [binding.destination for binding in made.bindings] == ["long"]


def test_what_goes_in_pieces_is_not_found_meanwhile() -> None:
    pieces: list[Iterator[None]] = []
    made = Topology("/", host=FakeExchangeHost(later=pieces.append))
    for number in range(REMOVED_AT_ONCE + 1):
        apply(made, bind(made, subscribed("gone", f"{number}")))
    apply(made, bind(made, subscribed("there", "0")))
    drop_queue(made, "gone")
    assert pieces, "something is left to be done"
    assert queues(made, ["0"], "0") == queues(made, ["0"]) == ["there"]
    assert bound_by_filter(made, "amq.topic", "gone", "0") == []
    apply(made, subscribe(made, [subscribed("gone", "0", options=2)]))
    assert queues(made, ["0"], "0") == ["gone", "there"]
    for _ in pieces[0]:
        pass
    assert queues(made, ["0"], "0") == ["gone", "there"]
    assert len(bound_by_filter(made, "amq.topic", "gone", "0")) == 1


# Subscriptions of a queue


def options(made: Topology, queue: str, topic_filter: str) -> list[int]:
    found = map(subscription_of, bound_by_filter(made, "amq.topic", queue, topic_filter))
    return [each.options for each in found if each is not None]


def test_a_subscription_is_put_in_the_place_of_the_one_with_the_same_filter() -> None:
    made = topology(
        subscribed("q", "a/#", options=1),
        subscribed("q", "a/+", options=1),
        subscribed("r", "a/#", options=1),
        to_queue("amq.topic", "q", "a.#"),
    )
    epoch = made.epoch
    change = subscribe(made, [subscribed("q", "a/#", options=2)])
    assert (len(change.removes), len(change.puts)) == (1, 1)
    assert {fact.name for fact in change.removes} < {*change.rests_on}
    apply(made, change)
    assert made.epoch > epoch
    assert options(made, "q", "a/#") == [2]
    assert options(made, "q", "a/+") == options(made, "r", "a/#") == [1]
    assert subscribe(made, [subscribed("q", "a/#", options=2)]).changes_nothing
    assert len([*made.bindings]) == 4


def test_of_several_with_one_filter_the_last_counts() -> None:
    made = topology()
    wanted = [subscribed("q", "a", options=1), subscribed("q", "b"), subscribed("q", "a")]
    apply(made, subscribe(made, [*wanted, subscribed("q", "a", options=2)]))
    assert (options(made, "q", "a"), options(made, "q", "b")) == ([2], [1])


def test_what_two_nodes_have_made_at_once_is_one_again() -> None:
    made = topology(subscribed("q", "a", options=1), subscribed("q", "a", options=2))
    assert sorted(options(made, "q", "a")) == [1, 2]
    apply(made, subscribe(made, [subscribed("q", "a", options=2)]))
    assert options(made, "q", "a") == [2]
    made = topology(subscribed("q", "a", options=1), subscribed("q", "a", options=2))
    apply(made, unsubscribe(made, "amq.topic", "q", ["a"]))
    assert [*made.bindings] == []


def test_what_cannot_be_subscribed() -> None:
    made = topology()
    with pytest.raises(NotFound, match="no exchange 'none'"):
        subscribe(made, [subscribed("q", "a", source="none")])
    with pytest.raises(PreconditionFailed, match="invalid topic filter"):
        subscribe(made, [subscribed("q", "a#")])


def test_unsubscribing_takes_what_has_the_filter() -> None:
    made = topology(subscribed("q", "a"), subscribed("q", "b"), subscribed("r", "a"),
                    to_queue("amq.topic", "q", "a"))  # fmt: skip
    apply(made, unsubscribe(made, "amq.topic", "q", ["a", "c", "a"]))
    assert sorted((each.destination, filter_of(each) or "") for each in made.bindings) == [
        ("q", ""), ("q", "b"), ("r", "a"),
    ]  # fmt: skip
    assert unsubscribe(made, "amq.topic", "q", ["a"]) is NOTHING
    assert unsubscribe(made, "none", "q", ["a"]) is NOTHING
    assert unsubscribe(made, "amq.direct", "q", ["a"]) is NOTHING


def test_an_exchange_goes_with_its_last_subscription() -> None:
    made = topology(ExchangeSpec("x", "topic", auto_delete=True), subscribed("q", "a", source="x"))
    apply(made, subscribe(made, [subscribed("q", "a", options=2, source="x")]))
    assert names(made) == ["x"], "it was never without one"
    apply(made, unsubscribe(made, "x", "q", ["a"]))
    assert names(made) == []


@pytest.mark.parametrize("topic", ["a/a/c", None], ids=["by topic", "by key"])
def test_a_message_that_is_being_routed_meets_the_old_subscription_or_the_new(
    topic: str | None,
) -> None:
    """Wherever the search has stopped when one takes the place of the other."""
    made = topology(*(subscribed("q", each) for each in ("a/a/c", "+/a/+", "a/#")),
                    subscribed("other", "a/a/c/d"))  # fmt: skip
    matcher, stops = made.require("amq.topic").matcher, 0
    with (
        patch.object(filters, "NODES_AT_ONCE", 1),
        patch("fluffle.broker.routing.topic.NODES_AT_ONCE", 1),
    ):
        for stop in range(20):
            found: dict[str | None, None] = {}
            for number, some in enumerate(matcher.search(["a.a.c"], None, topic)):
                stops += some is STOP
                found |= dict.fromkeys(map(filter_of, some))
                if number == stop:
                    wanted = [*made.bindings]
                    renewed = [subscribed(each.destination, filter_of(each) or "",
                                          options=stop + 2) for each in wanted]  # fmt: skip
                    apply(made, subscribe(made, renewed))
            assert sorted(map(str, found)) == ["+/a/+", "a/#", "a/a/c"]
    assert stops > 20
    assert isinstance(matcher, TopicFilterMatcher)
    assert nodes(matcher) == nodes(bound("a/a/c/d", "a/a/c", "+/a/+", "a/#"))
