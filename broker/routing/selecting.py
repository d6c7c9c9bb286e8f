"""`x-jms-topic`: a binding asks of a message what a JMS selector says; routing keys do not count.

The JMS client binds such an exchange to a topic exchange by the name of the topic, and to it the
queue of whoever subscribes with a selector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fluffle.broker.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.erlang_terms import Unreadable, read_term
from fluffle.broker.routing.matcher import Asks
from fluffle.broker.routing.selector import TRUE, BadPattern, Expression, expression
from fluffle.protocol.properties import Properties

JMS_TOPIC = "x-jms-topic"
SELECTOR = "rjms_erlang_selector"


class SelectorMatcher:
    """Asks every binding; its selector is compiled when it is made."""

    asks = Asks.PROPERTIES

    __slots__ = ("_selectors",)

    def __init__(self) -> None:
        self._selectors: dict[Binding, Expression] = {}

    def check(self, binding: Binding) -> None:
        selector_of(binding)

    def add(self, binding: Binding) -> bool:
        if binding in self._selectors:
            return False
        self._selectors[binding] = selector_of(binding)
        return True

    def discard(self, binding: Binding) -> bool:
        return self._selectors.pop(binding, None) is not None

    def match(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Binding]:
        headers = (properties and properties.headers) or {}
        return (each for each, asks in self._selectors.items() if asks(headers) == TRUE)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._selectors)

    def __len__(self) -> int:
        return len(self._selectors)


def selector_of(binding: Binding) -> Expression:
    """PreconditionFailed if it has none, with the texts of RabbitMQ 4.3.

    One that has no selector at all gets the text that RabbitMQ means for it, and fails to say.
    """
    tag, text = binding.arguments.get(SELECTOR, ("V", None))
    if tag != "S" or not isinstance(text, bytes):
        raise PreconditionFailed(
            f"cannot parse selector 'error' binding destination '{binding.destination}'"
            f" to exchange '{binding.source}'"
        )
    try:
        return expression(read_term(text))
    except Unreadable as unreadable:
        raise PreconditionFailed(f"invalid JMS selector: {unreadable}") from None
    except BadPattern as bad:
        raise PreconditionFailed(f"invalid JMS selector pattern: {bad}") from None
