"""`x-jms-topic`: a binding asks of a message what a JMS selector says; routing keys do not count.

The JMS client binds such an exchange to a topic exchange by the name of the topic, and to it the
queue of whoever subscribes with a selector.
"""

from __future__ import annotations

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.erlang_terms import InvalidTerm, read_term
from fluffle.broker.routing.jms_selector import TRUE, BadPattern, Expression, compiled
from fluffle.broker.routing.matcher import ConditionMatcher
from fluffle.protocol.properties import Properties
from fluffle.protocol.types import FieldTable

JMS_TOPIC = "x-jms-topic"
SELECTOR_ARGUMENT = "rjms_erlang_selector"


def selector_matcher() -> ConditionMatcher[FieldTable]:
    """Selectors are compiled once, when their bindings are made."""
    return ConditionMatcher(Selector, headers_of)


def headers_of(properties: Properties | None) -> FieldTable:
    return (properties and properties.headers) or {}


class Selector:
    """That of a binding."""

    __slots__ = ("_value",)

    def __init__(self, binding: Binding) -> None:
        """PreconditionFailed if it has none."""
        self._value = selector_of(binding)

    def holds(self, headers: FieldTable) -> bool:
        return self._value(headers) == TRUE


def selector_of(binding: Binding) -> Expression:
    """PreconditionFailed if it has none, with the texts of RabbitMQ 4.3.

    One that has no selector at all gets the text that RabbitMQ means for it, and fails to say.
    """
    tag, text = binding.arguments.get(SELECTOR_ARGUMENT, ("V", None))
    if tag != "S" or not isinstance(text, bytes):
        raise PreconditionFailed(
            f"cannot parse selector 'error' binding destination '{binding.destination}'"
            f" to exchange '{binding.source}'"
        )
    try:
        return compiled(read_term(text))
    except InvalidTerm as unreadable:
        raise PreconditionFailed(f"invalid JMS selector: {unreadable}") from None
    except BadPattern as bad:
        raise PreconditionFailed(f"invalid JMS selector pattern: {bad}") from None
