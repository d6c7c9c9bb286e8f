"""Settings of a queue that may change while it exists, from its arguments and from policies.

`settings_of` is the one place where both are read.  What serves a queue holds the result, and is
given another when policies change: `Queue.settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from fluffle.broker.queues.arguments import (
    CACHE_SIZE_MAX,
    DEFAULT_DELIVERY_LIMIT,
    DURATION_MS_MAX,
    QueueSpec,
    QueueType,
)
from fluffle.protocol.wire import FieldValue

EffectivePolicy: TypeAlias = Mapping[str, object]
"""Merged policy of a queue, by policy keys; the values are JSON."""

NO_POLICY: EffectivePolicy = MappingProxyType({})


class Overflow(StrEnum):
    """Behaviour at the length limit of a queue."""

    DROP_HEAD = "drop-head"
    REJECT_PUBLISH = "reject-publish"
    REJECT_PUBLISH_DLX = "reject-publish-dlx"


class DeadLetterStrategy(StrEnum):
    """How sure it is that what has died arrives where it is to go."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"


class DelayedRetry(StrEnum):
    """Kind of requeued messages that wait before they are delivered again."""

    DISABLED = "disabled"
    ALL = "all"
    FAILED = "failed"
    RETURNED = "returned"


class DeduplicationCache(NamedTuple):
    """How much is known of messages that a queue has taken."""

    size: int
    """Number of keys, those of the last messages."""
    ttl_ms: int | None
    """Time in ms for which each is kept; None: as long as there is room."""
    reads_headers: bool = True
    """True if headers of a message may name its key."""


DEFAULT_CACHE_SIZE = 10_000
"""Default number of keys."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Settings of a queue that are in force, by arguments and policies.  None: not set, and
    nothing of that kind is done."""

    expires_ms: int | None = None
    message_ttl_ms: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    dead_letter_strategy: DeadLetterStrategy = DeadLetterStrategy.AT_MOST_ONCE
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: Overflow = Overflow.DROP_HEAD
    delivery_limit: int | None = DEFAULT_DELIVERY_LIMIT
    """How often handing out a message of a quorum queue may fail before it dies of that; None: as
    often as it likes."""
    consumer_timeout_ms: int | None = None
    consumer_disconnected_timeout_ms: int | None = None
    delayed_retry: DelayedRetry = DelayedRetry.DISABLED
    delayed_retry_min_ms: int | None = None
    delayed_retry_max_ms: int | None = None
    deduplicates: bool = False
    """True if messages with a known key are dropped."""
    cache_size: int | None = None
    cache_ttl_ms: int | None = None
    target_group_size: int | None = None
    """How many members a quorum queue is to get, if members are made where there are too few."""
    is_still: bool = False
    """True if nothing in it expires for now, whatever the time."""

    @property
    def limits(self) -> tuple[int | None, int | None, Overflow]:
        """Length limit in messages and in bytes, and what happens beyond it."""
        return self.max_length, self.max_length_bytes, self.overflow

    @property
    def cache(self) -> DeduplicationCache | None:
        """Size and time of the deduplication cache; None if the queue does not deduplicate."""
        if not self.deduplicates:
            return None
        return DeduplicationCache(self.cache_size or DEFAULT_CACHE_SIZE, self.cache_ttl_ms)

    @property
    def of_successor(self) -> QueueSettings:
        """Settings of a successor while it is being filled and serves no client: it takes all
        messages, and stays.  Messages bring what is left of their time; none dies of that before it
        is known which of the two queues has them, or it might die in both."""
        return replace(
            self, expires_ms=None, message_ttl_ms=None, max_length=None, max_length_bytes=None,
            deduplicates=False, is_still=True,
        )  # fmt: skip


DEFAULTS = QueueSettings()
"""Settings of most queues; a shared object."""


def smaller(policy: Any, argument: Any) -> Any:
    return min(policy, argument)


def larger(policy: Any, argument: Any) -> Any:
    return max(policy, argument)


def of_argument(_policy: Any, argument: Any) -> Any:
    return argument


def of_policy(policy: Any, _argument: Any) -> Any:
    return policy


def laxer_limit(policy: int, argument: int) -> int:
    """The smaller one, but none, which is below zero, beats any."""
    return max(policy, argument) if policy < 0 or argument < 0 else min(policy, argument)


def is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_truth(value: object) -> bool:
    return isinstance(value, bool)


def is_positive(value: object) -> bool:
    return is_count(value) and value != 0


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_of(words: type[StrEnum]) -> Callable[[object], bool]:
    """Check that a value is one of `words`."""
    return lambda value: value in tuple(words)


NUMBER_MAX = 2**63 - 1
"""Policies may say more; nothing here comes to so much."""


def bounded(value: int) -> int:
    return min(value, NUMBER_MAX)


def bounded_ms(value: int) -> int:
    """RabbitMQ takes what is more than ten years from policies, and not from most arguments."""
    return min(value, DURATION_MS_MAX)


def bounded_size(value: int) -> int:
    return min(value, CACHE_SIZE_MAX)


def none_below_zero(value: int) -> int | None:
    return bounded(value) if value >= 0 else None


class SettingRule(NamedTuple):
    """Rule of one setting: the values allowed, and which one wins if an argument and a policy give
    it."""

    field: str
    is_usable: Callable[[object], bool]
    """Check of the value; a value that fails it is ignored: RabbitMQ does not check some
    arguments."""
    resolve: Callable[[Any, Any], Any]
    """(what the policy says, what the argument says) -> what is so."""
    read: Callable[[Any], object] = bounded


SETTING_RULES: Mapping[str, SettingRule] = {
    "expires": SettingRule("expires_ms", is_count, smaller, bounded_ms),
    "message-ttl": SettingRule("message_ttl_ms", is_count, smaller, bounded_ms),
    "dead-letter-exchange": SettingRule("dead_letter_exchange", is_text, of_argument, str),
    "dead-letter-routing-key": SettingRule("dead_letter_routing_key", is_text, of_argument, str),
    "dead-letter-strategy": SettingRule(
        "dead_letter_strategy", is_of(DeadLetterStrategy), of_argument, DeadLetterStrategy
    ),
    "max-length": SettingRule("max_length", is_count, smaller),
    "max-length-bytes": SettingRule("max_length_bytes", is_count, smaller),
    "overflow": SettingRule("overflow", is_of(Overflow), of_argument, Overflow),
    "delivery-limit": SettingRule("delivery_limit", is_number, laxer_limit, none_below_zero),
    "consumer-timeout": SettingRule("consumer_timeout_ms", is_count, smaller, bounded_ms),
    "consumer-disconnected-timeout": SettingRule(
        "consumer_disconnected_timeout_ms", is_count, smaller, bounded_ms
    ),
    "delayed-retry-type": SettingRule(
        "delayed_retry", is_of(DelayedRetry), of_policy, DelayedRetry
    ),
    "delayed-retry-min": SettingRule("delayed_retry_min_ms", is_count, smaller, bounded_ms),
    "delayed-retry-max": SettingRule("delayed_retry_max_ms", is_count, smaller, bounded_ms),
    "target-group-size": SettingRule("target_group_size", is_count, larger),
    "x-message-deduplication": SettingRule("deduplicates", is_truth, of_argument, bool),
    "x-cache-size": SettingRule("cache_size", is_positive, smaller, bounded_size),
    "x-cache-ttl": SettingRule("cache_ttl_ms", is_positive, smaller, bounded_ms),
}
"""Rules by policy key: arguments have the same names after `x-`, with one exception.

RabbitMQ 4.3: process_args_policy of rabbit_amqqueue_process, gather_policy_config of
rabbit_quorum_queue.
"""

QUORUM_RULES = {**SETTING_RULES, "overflow": SETTING_RULES["overflow"]._replace(resolve=of_policy)}

TARGET_GROUP_SIZE = "x-quorum-target-group-size"

DELAYED_RETRY_TYPE = "x-delayed-retry-type"

POLICY_KEY_BY_ARGUMENT: Mapping[str, str] = {
    key if key.startswith("x-") else f"x-{key}": key
    for key in SETTING_RULES
    if key != "target-group-size"
} | {TARGET_GROUP_SIZE: "target-group-size"}
"""Policy keys by the argument of the same meaning."""


EXPIRY_GRACE_MS = 60_000
"""Time in ms for which a queue whose protocol knows messages by keys may be unused after its
x-expires.  It is deleted with its session; a client that comes back at the last moment may have to
wait until definitions are known."""


def settings_of(spec: QueueSpec, policy: EffectivePolicy = NO_POLICY) -> QueueSettings:
    """Settings of a queue under its merged policy, which may be empty.

    What may not have been checked is as if it was not said.
    """
    rules = QUORUM_RULES if spec.queue_type is QueueType.QUORUM else SETTING_RULES
    values: dict[str, Any] = {
        key: value for key, value in policy.items() if key in rules and rules[key].is_usable(value)
    }
    for name, (_tag, raw) in spec.arguments.items():
        key = POLICY_KEY_BY_ARGUMENT.get(name)
        if key is None:
            continue
        value: Any = read_raw(raw)
        if rules[key].is_usable(value):
            if key == "expires":
                value += EXPIRY_GRACE_MS if spec.guarantee.takes_keys else 0
            values[key] = rules[key].resolve(values[key], value) if key in values else value
    if not values:
        return DEFAULTS
    fields = {rules[key].field: rules[key].read(value) for key, value in values.items()}
    return QueueSettings(**drop_incompatible(fields, spec.queue_type))


def read_raw(raw: FieldValue) -> object:
    """Value in the form that a policy would give it."""
    return raw.decode(errors="surrogateescape") if isinstance(raw, bytes) else raw


WRONG = "its value cannot be used"
NO_DELAY = "x-delayed-retry-min is missing, so nothing waits"


def unusable_arguments(spec: QueueSpec, settings: QueueSettings) -> dict[str, str]:
    """Arguments that RabbitMQ accepts at a declare and then ignores, with the reason; `settings`
    are those in force."""
    unusable = {
        name: WRONG
        for name, (_tag, raw) in spec.arguments.items()
        if name in POLICY_KEY_BY_ARGUMENT
        and not SETTING_RULES[POLICY_KEY_BY_ARGUMENT[name]].is_usable(read_raw(raw))
    }
    if (
        DELAYED_RETRY_TYPE in spec.arguments.keys() - unusable
        and settings.delayed_retry is not DelayedRetry.DISABLED
        and settings.delayed_retry_min_ms is None
    ):
        unusable[DELAYED_RETRY_TYPE] = NO_DELAY
    return unusable


def why_at_most_once(spec: QueueSpec, policy: EffectivePolicy, settings: QueueSettings) -> str:
    """Reason why dead letters of a queue need not arrive though that was asked for; empty if it was
    not, or they must.  `settings` are those of the two together."""
    said = [policy.get("dead-letter-strategy")]
    if (argument := spec.arguments.get("x-dead-letter-strategy")) is not None:
        said.append(read_raw(argument[1]))
    is_quorum = spec.queue_type is QueueType.QUORUM
    if not is_quorum or said[-1] != DeadLetterStrategy.AT_LEAST_ONCE:
        return ""
    if settings.dead_letter_strategy is DeadLetterStrategy.AT_LEAST_ONCE:
        return ""
    if settings.dead_letter_exchange is None:
        return "it has no dead-letter-exchange"
    return "its overflow is drop-head, and not reject-publish"


SettingsFrom: TypeAlias = Callable[[str, QueueSpec], QueueSettings]
"""Function that gives the settings of a queue: virtual host name, specification."""


def by_arguments(_vhost: str, spec: QueueSpec) -> QueueSettings:
    """Where there are no policies."""
    return settings_of(spec)


def drop_incompatible(fields: dict[str, Any], queue_type: QueueType) -> dict[str, Any]:
    """Without what cannot be together, or not with a type of queue: RabbitMQ logs it, and goes on
    with what remains."""
    is_quorum = queue_type is QueueType.QUORUM
    if is_quorum and fields.get("overflow") is Overflow.REJECT_PUBLISH_DLX:
        del fields["overflow"]
    if "dead_letter_exchange" not in fields:
        fields.pop("dead_letter_routing_key", None)
        fields.pop("dead_letter_strategy", None)
    elif not (is_quorum and fields.get("overflow") is Overflow.REJECT_PUBLISH):
        fields.pop("dead_letter_strategy", None)
    return fields
