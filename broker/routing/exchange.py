"""One exchange: what was declared, what it is bound to, and where it sends what it cannot match."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fluffle.broker.errors import AccessRefused
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.headers import HeadersMatcher
from fluffle.broker.routing.matcher import DirectMatcher, FanoutMatcher, Matcher
from fluffle.broker.routing.topic import TopicMatcher
from fluffle.protocol.types import FieldTable

DEFAULT_EXCHANGE = ""
ALTERNATE_EXCHANGE = "alternate-exchange"

MATCHERS: dict[str, Callable[[], Matcher]] = {
    "direct": DirectMatcher,
    "fanout": FanoutMatcher,
    "topic": TopicMatcher,
    "headers": HeadersMatcher,
}
"""The exchange types."""


@dataclass(frozen=True, slots=True)
class ExchangeSpec:
    """What exchange.declare asks for."""

    name: str
    type: str = "direct"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: FieldTable = field(default_factory=dict)


PREDECLARED = (
    ExchangeSpec(DEFAULT_EXCHANGE, "direct", durable=True),
    ExchangeSpec("amq.direct", "direct", durable=True),
    ExchangeSpec("amq.fanout", "fanout", durable=True),
    ExchangeSpec("amq.topic", "topic", durable=True),
    ExchangeSpec("amq.headers", "headers", durable=True),
    ExchangeSpec("amq.match", "headers", durable=True),
    ExchangeSpec("amq.rabbitmq.trace", "topic", durable=True, internal=True),
)
"""The exchanges of every virtual host (AMQP 0-9-1 §3.1.3, and RabbitMQ's own for tracing)."""


class Exchange:
    """An exchange with its bindings."""

    __slots__ = ("alternate", "matcher", "onward", "spec")

    def __init__(self, spec: ExchangeSpec) -> None:
        self.spec = spec
        self.matcher = MATCHERS[spec.type]()
        self.onward: dict[str, int] = {}
        """How many bindings lead to each other exchange."""
        self.alternate = alternate_of(spec)
        """Where messages go that match no binding."""

    def add(self, binding: Binding) -> bool:
        """Whether it is new."""
        is_new = self.matcher.add(binding)
        if is_new and binding.destination_kind is DestinationKind.EXCHANGE:
            self.onward[binding.destination] = self.onward.get(binding.destination, 0) + 1
        return is_new

    def discard(self, binding: Binding) -> bool:
        """Whether it was there."""
        was_there = self.matcher.discard(binding)
        if was_there and binding.destination_kind is DestinationKind.EXCHANGE:
            self.onward[binding.destination] -= 1
            if not self.onward[binding.destination]:
                del self.onward[binding.destination]
        return was_there


def check_not_default(name: str) -> None:
    """The default exchange cannot be declared, deleted, bound to, or bound."""
    if name == DEFAULT_EXCHANGE:
        raise AccessRefused("operation not permitted on the default exchange")


def alternate_of(spec: ExchangeSpec) -> str | None:
    """The name of the alternate exchange that a declaration asks for."""
    _, value = spec.arguments.get(ALTERNATE_EXCHANGE, ("V", None))
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else None
