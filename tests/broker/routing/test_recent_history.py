"""x-recent-history: what is kept, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.routing.changes import declare_exchange
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.recent_history import HistoryMessage, MessageHistory
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import Field, FieldTable
from tests.broker.routing.topologies import to_exchange, to_queue, topology

ORIGIN = Origin("x", "k")


def message(body: str, headers: FieldTable | None = None) -> HistoryMessage:
    raw = encode_properties(Properties(headers=headers))
    return HistoryMessage(ORIGIN, build_content(raw, body.encode()), (), persistent=False)


@given(st.integers(1, 30), st.integers(0, 60))
def test_the_last_ones_are_there_the_oldest_first(length: int, count: int) -> None:
    history = MessageHistory({"x-recent-history-length": ("l", length)})
    messages = [message(str(number)) for number in range(count)]
    for each in messages:
        history.keep(each)
    assert list(history) == messages[-length:]
    assert len(history) == min(length, count)


def test_twenty_are_kept_if_nobody_says_how_many() -> None:
    history = MessageHistory({})
    for number in range(50):
        history.keep(message(str(number)))
    assert len(history) == 20


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ({"x-recent-history-no-store": ("t", True)}, 0),
        ({"x-recent-history-no-store": ("t", False)}, 1),
        ({"x-recent-history-no-store": ("S", b"true")}, 1),
        ({"x-other": ("S", b"x-recent-history-no-store")}, 1),
        (None, 1),
    ],
)
def test_a_header_says_that_a_message_is_not_kept(headers: FieldTable | None, count: int) -> None:
    history = MessageHistory({})
    history.keep(message("x-recent-history-no-store", headers))
    assert len(history) == count


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (("l", 0), "0"),
        (("I", -1), "-1"),
        (("S", b"5"), '<<"5">>'),
        (("t", True), "true"),
        (("i", 5), "5"),
        (("V", None), "undefined"),
    ],
)
def test_lengths_are_positive_integers(length: Field, shown: str) -> None:
    arguments = {"x-recent-history-length": length}
    with pytest.raises(PreconditionFailed) as caught:
        declare_exchange(Topology("/"), ExchangeSpec("x", "x-recent-history", arguments=arguments))
    assert caught.value.explanation == (
        f"Invalid argument {shown}, 'x-recent-history-length' must be a positive integer"
    )


def test_a_way_names_the_histories_that_it_passes() -> None:
    made = topology(
        ExchangeSpec("front", "topic"),
        ExchangeSpec("recent", "x-recent-history"),
        to_exchange("front", "recent", "a.*"),
        to_queue("recent", "q"),
        to_queue("front", "r", "b.*"),
    )
    recent = made.require("recent").history
    router = Router(made, bool)
    assert recent is not None
    assert whole(router.route_in_steps("front", ["a.b"], None))[:2] == (("q",), (recent,))
    assert whole(router.route_in_steps("front", ["b.b"], None))[:2] == (("r",), ())
    assert whole(router.route_in_steps("", ["b.b"], None)).histories == ()
    assert made.require("front").history is None
