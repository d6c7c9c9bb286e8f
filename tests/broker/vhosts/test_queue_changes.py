"""Log lines about queues that do not get what their declare asks for."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.base.errors import NotFound, ResourceLocked
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.arguments import Declaration, QueueSpec, queue_spec
from fluffle.broker.queues.journal import Owner
from fluffle.broker.queues.settings import EffectivePolicy, QueueSettings, by_arguments, settings_of
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic_filter import FilterBinding, arguments_of
from fluffle.broker.vhosts.queue_changes import DeclareWarnings, subscriptions
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.wire import to_table
from tests.support.definitions import VhostEditor
from tests.support.queue_host import FakeTurn

DROPS = "its overflow is drop-head, and not reject-publish"
WRONG = "its value cannot be used"


def declare(noting: DeclareWarnings, name: str, **asked: Any) -> None:
    noting.new_queue(quorum(name, asked), "v")


def quorum(name: str, asked: dict[str, Any]) -> QueueSpec:
    named = {f"x-{key.replace('_', '-')}": value for key, value in asked.items()}
    table = to_table({"x-queue-type": "quorum", **named})
    return queue_spec(Declaration(name, durable=True, arguments=table), "v")


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    return [(each.getMessage(), getattr(each, FIELDS_ATTRIBUTE)) for each in caplog.records]


def test_a_value_that_is_not_checked_and_not_used_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noting = DeclareWarnings(by_arguments)
    declare(noting, "q", delayed_retry_type="foo", delayed_retry_min="1000")
    declare(noting, "r", delayed_retry_type="foo")
    declare(noting, "s", delayed_retry_type="all", delayed_retry_min=1000)
    assert logged(caplog) == [
        (
            "argument_ignored",
            {"argument": f"x-delayed-retry-{what}", "reason": WRONG, "queue": "q", "vhost": "v"},
        )
        for what in ("type", "min")
    ]


def test_a_delay_of_no_time_is_logged_unless_a_policy_says_how_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def by_policy(_vhost: str, spec: Any) -> QueueSettings:
        return settings_of(spec, {"delayed-retry-min": 5})

    for settings in (by_policy, by_arguments):
        declare(DeclareWarnings(settings), "q", delayed_retry_type="all")
        declare(DeclareWarnings(settings), "q", delayed_retry_type="disabled")
    reason = "x-delayed-retry-min is missing, so nothing waits"
    fields = {"argument": "x-delayed-retry-type", "reason": reason, "queue": "q", "vhost": "v"}
    assert logged(caplog) == [("argument_ignored", fields)]


@pytest.mark.parametrize(
    ("asked", "policy", "reason"),
    [
        ({"dead_letter_exchange": "x"}, {}, DROPS),
        ({}, {"dead-letter-exchange": "x"}, DROPS),
        ({"overflow": "reject-publish"}, {}, "it has no dead-letter-exchange"),
        ({"overflow": "reject-publish", "dead_letter_exchange": "x"}, {}, None),
        ({"dead_letter_exchange": "x"}, {"overflow": "reject-publish"}, None),
        ({"dead_letter_exchange": "x", "dead_letter_strategy": "at-most-once"}, {}, None),
    ],
)
def test_who_asks_that_the_dead_arrive_and_does_not_get_it_is_notified_once_for_each_queue(
    caplog: pytest.LogCaptureFixture,
    asked: dict[str, Any],
    policy: EffectivePolicy,
    reason: str | None,
) -> None:
    noting = DeclareWarnings(
        lambda _vhost, spec: settings_of(spec, policy), lambda _vhost, _spec: policy
    )
    sure = {"dead_letter_strategy": "at-least-once", **asked}
    for name in ("q", "q", "r"):
        spec = quorum(name, sure)
        assert noting.settings_of("v", spec) == settings_of(spec, policy)
    assert logged(caplog) == [
        ("dead_letters_need_not_arrive", {"reason": reason, "queue": queue, "vhost": "v"})
        for queue in ("q", "r")
        if reason is not None
    ]


def test_a_policy_may_ask_for_it_too(caplog: pytest.LogCaptureFixture) -> None:
    policy = {"dead-letter-strategy": "at-least-once", "dead-letter-exchange": "x"}
    noting = DeclareWarnings(
        lambda _vhost, spec: settings_of(spec, policy), lambda _vhost, _spec: policy
    )
    noting.settings_of("v", quorum("q", {}))
    noting.settings_of("v", QueueSpec("classic"))
    assert logged(caplog) == [
        ("dead_letters_need_not_arrive", {"reason": DROPS, "queue": "q", "vhost": "v"})
    ]


@pytest.fixture
def inside() -> VhostEditor:
    return VhostEditor(VirtualHost("/", LocalQueues(FakeTurn())))


def subscription(queue: str, topic_filter: str, options: int = 1) -> Binding:
    arguments = arguments_of(FilterBinding(topic_filter, options))
    return Binding("amq.topic", queue, DestinationKind.QUEUE, topic_filter, arguments)


def found(inside: VhostEditor, queue: str, source: str = "amq.topic") -> dict[str, int]:
    """The filters of a queue, and their options."""
    every = [each for _, each in subscriptions(inside.vhost, source, queue)]
    return {each.topic_filter: each.options for each in every}


def test_subscriptions_of_a_queue(inside: VhostEditor) -> None:
    for name in ("q", "r"):
        inside.declare_queue(Declaration(name))
    inside.bind(Binding("amq.topic", "q", DestinationKind.QUEUE, "a"))
    inside.subscribe(subscription("q", "a"), subscription("q", "b"), subscription("r", "a"))
    inside.subscribe(subscription("q", "b", 2), subscription("q", "c"))
    assert (found(inside, "q"), found(inside, "r")) == ({"a": 1, "b": 2, "c": 1}, {"a": 1})
    inside.unsubscribe("amq.topic", "q", "a", "c", "d")
    assert (found(inside, "q"), found(inside, "r")) == ({"b": 2}, {"a": 1})
    assert found(inside, "q", "amq.direct") == found(inside, "none") == {}
    assert len(inside.vhost.topology.bindings_to(DestinationKind.QUEUE, "q")) == 2


def test_subscriptions_are_for_the_owner_of_their_queue(inside: VhostEditor) -> None:
    mine, yours = Owner("a", 0, 1, "c"), Owner("a", 0, 2, "c")
    inside.declare_queue(Declaration("q", exclusive=True), mine)
    inside.subscribe(subscription("q", "a"), owner=mine)
    with pytest.raises(ResourceLocked):
        inside.subscribe(subscription("q", "b"), owner=yours)
    with pytest.raises(ResourceLocked):
        inside.unsubscribe("amq.topic", "q", "a", owner=yours)
    assert found(inside, "q") == {"a": 1}


def test_what_is_not_there_cannot_be_subscribed_and_needs_no_unsubscribing(
    inside: VhostEditor,
) -> None:
    with pytest.raises(NotFound, match="no queue 'none'"):
        inside.subscribe(subscription("none", "a"))
    nowhere = Binding("none", "none", DestinationKind.QUEUE, "a", subscription("q", "a").arguments)
    with pytest.raises(NotFound, match="no exchange 'none'"):
        inside.subscribe(nowhere)
    inside.unsubscribe("amq.topic", "none", "a")
