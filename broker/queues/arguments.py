"""Arguments of queues and consumers: read, checked and compared.

A `Declaration` is queue.declare as it came; `queue_spec` turns it into the `QueueSpec` that the
rest of the broker reads, so a holder of one need check nothing.  For a queue that exists RabbitMQ
compares first and checks the values not at all: `check_equivalent` takes the declaration.

The table `ARGUMENTS` has a row for each argument that RabbitMQ 4.3 knows, in the order in which
it checks them, and ours behind; all others are kept, and never looked at.  The check of a row is
given the argument and the table it stands in, returns the value as the broker keeps it, and raises
`InvalidArgument` with the reason that RabbitMQ gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from fluffle.broker.base.errors import (
    NotImplementedHere,
    PreconditionFailed,
    check_same,
    inequivalent,
    plain,
)
from fluffle.broker.base.queue_names import delayed_queue_of, is_delayed_queue
from fluffle.protocol.terms import escaped, text
from fluffle.protocol.wire import TYPE_NAMES, Field, FieldTable, FieldValue, to_table

QUEUE_TYPE = "x-queue-type"

DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"

COMPARED_ACROSS_TYPES = (
    *(DEAD_LETTER_EXCHANGE, "x-dead-letter-routing-key", "x-expires", "x-max-length"),
    *("x-max-length-bytes", "x-single-active-consumer", "x-message-ttl"),
)
"""Arguments that must be equal on redeclaration even where the queue type may differ."""

DEFAULT_QUEUE_TYPE = "default_queue_type"
"""Metadata key of a virtual host's default queue type, used by queues that name none."""

DURATION_MS_MAX = 315_360_000_000
"""Ten years: RabbitMQ's limit for what becomes a timer."""

CACHE_SIZE_MAX = 100_000
"""x-cache-size: all of it is in each snapshot of a quorum queue."""

MAX_PRIORITY_MAX = 255
"""x-max-priority: a priority is one octet of the wire."""

DEFAULT_DELIVERY_LIMIT = 20
"""RabbitMQ's, of a quorum queue that is declared without one."""

INTEGER_TAGS = frozenset("bBsuIilL")


class QueueType(StrEnum):
    """Types of queues: the values of x-queue-type, and one more."""

    CLASSIC = "classic"
    QUORUM = "quorum"
    STREAM = "stream"
    MQTT_QOS0 = "mqtt_qos0"
    """Classic queue that MQTT makes for messages to a connected client with QoS 0: it cannot be
    declared."""

    @property
    def shown(self) -> str:
        """Type by the name that RabbitMQ shows."""
        return self.module if self is QueueType.MQTT_QOS0 else self.value

    @property
    def module(self) -> str:
        """RabbitMQ's name for what implements it, which counters and events have."""
        return f"rabbit_{self.value}_queue"


class DeliveryGuarantee(StrEnum):
    """Guarantees of a queue for its messages: the protocol that declares it names one."""

    AT_LEAST_ONCE = "at-least-once"
    """A message that is published again is in it again."""
    EXACTLY_ONCE = "exactly-once"
    """A message that has a key is in it once."""
    AT_MOST_ONCE = "at-most-once"
    """Likewise; and a publisher does not hear of what is lost with the queue's node."""

    @property
    def takes_keys(self) -> bool:
        """True if the queue knows messages by the keys that their protocol has given them."""
        return self is not DeliveryGuarantee.AT_LEAST_ONCE


DECLARED_TYPES = (QueueType.CLASSIC, QueueType.QUORUM, QueueType.STREAM)
"""Queue types that x-queue-type may name."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """queue.declare as it came, with a name."""

    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: FieldTable = field(default_factory=dict)
    mailbox_limit: int | None = None
    """If it is to be of the type `MQTT_QOS0`: how many messages may wait for a client that takes
    none; 0: as many as come."""
    guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_LEAST_ONCE

    @property
    def is_durable(self) -> bool:
        """An exclusive queue ends with its connection: RabbitMQ ignores durable=true on it."""
        return self.durable and not self.exclusive


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """The properties of a queue.  While it is there, only its protocol may exchange its arguments.
    What is in force of these and of policies: see `QueueSettings`."""

    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    queue_type: QueueType = QueueType.CLASSIC
    arguments: FieldTable = field(default_factory=dict)
    """Arguments as declared, unknown ones included: listings show these."""
    max_priority: int | None = None
    single_active_consumer: bool = False
    mailbox_limit: int = 0
    """While no consumer has room what comes is dropped if more messages wait; 0: it is not."""
    guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_LEAST_ONCE


@dataclass(frozen=True, slots=True)
class ConsumerArguments:
    """The checked arguments of a basic.consume."""

    priority: int = 0
    timeout_ms: int | None = None
    """How long it may hold a message; None: as its queue says."""


class InvalidArgument(Exception):
    """Why a value is refused, as the Erlang term that RabbitMQ prints."""


Check = Callable[[Field, FieldTable], object]
"""(the argument, all of them) -> its value; raises `InvalidArgument`."""


def integer(argument: Field, _table: FieldTable) -> int:
    tag, value = argument
    if not isinstance(value, int) or tag not in INTEGER_TAGS:
        raise InvalidArgument(f'"expected integer, got {TYPE_NAMES[tag]}"')
    return value


def non_negative(argument: Field, table: FieldTable) -> int:
    value = integer(argument, table)
    if value < 0:
        raise InvalidArgument(f"{{value_negative,{value}}}")
    return value


def positive(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value == 0:
        raise InvalidArgument("{value_zero,0}")
    return value


def duration(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value > DURATION_MS_MAX:
        raise InvalidArgument(f"{{value_too_large,{value}}}")
    return value


def positive_duration(argument: Field, table: FieldTable) -> int:
    positive(argument, table)
    return duration(argument, table)


def cache_size(argument: Field, table: FieldTable) -> int:
    value = positive(argument, table)
    if value > CACHE_SIZE_MAX:
        raise InvalidArgument(f"{{value_too_large,{value}}}")
    return value


def max_priority(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value > MAX_PRIORITY_MAX:
        raise InvalidArgument(f"{{max_value_exceeded,{value}}}")
    return value


def queue_version(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value != 2:
        raise InvalidArgument(f"\"unsupported queue version '{value}'\"")
    return value


def boolean(argument: Field, _table: FieldTable) -> bool:
    tag, value = argument
    if not isinstance(value, bool):
        raise InvalidArgument(f"{{unacceptable_type,{TYPE_NAMES[tag]}}}")
    return value


def string(argument: Field, _table: FieldTable) -> str:
    tag, value = argument
    if not isinstance(value, bytes) or tag != "S":
        raise InvalidArgument(f"{{unacceptable_type,{TYPE_NAMES[tag]}}}")
    return value.decode(errors="surrogateescape")


def dead_letter_routing_key(argument: Field, table: FieldTable) -> str:
    value = string(argument, table)
    if DEAD_LETTER_EXCHANGE not in table:
        raise InvalidArgument("routing_key_but_no_dlx_defined")
    return value


def max_age(argument: Field, table: FieldTable) -> str:
    value = string(argument, table)
    if re.fullmatch("0*[1-9][0-9]*[YMDhms]", value) is None:
        raise InvalidArgument("invalid_max_age")
    return value


def one_of(*words: str, refusal: str) -> Check:
    """Check that an argument is one of `words`; a `{}` in `refusal` stands for the value given."""

    def check(argument: Field, table: FieldTable) -> str:
        value = string(argument, table)
        if value not in words:
            raise InvalidArgument(refusal.format(escaped(text(argument[1]))))
        return value

    return check


def anything(argument: Field, _table: FieldTable) -> FieldValue:
    return argument[1]


_CLASSIC = frozenset({QueueType.CLASSIC})

_QUORUM = frozenset({QueueType.QUORUM})

_STREAM = frozenset({QueueType.STREAM})

_QUEUES = _CLASSIC | _QUORUM

_ALL = _QUEUES | _STREAM


class ArgumentRule(NamedTuple):
    """Row of the table of arguments: how a value is checked, which types of queue have it, where a
    QueueSpec keeps it."""

    check: Check
    queue_types: frozenset[QueueType]
    spec_field: str | None = None


# A new argument, or one that another type of queue takes from now on, is written in these places,
# too (tests/broker/queues/test_arguments.py says which of the tables have not got it):
# - its check, here; its place in `COMPARED[QUORUM]`, and in `COMPARED_ACROSS_TYPES` if classic
#   queues have it too;
# - in `settings`: its rule in `SETTING_RULES`, with its default as a field of `QueueSettings`;
#   `QueueSettings.of_successor`, if messages die by it: one that a conversion has in two queues
#   would die in both; `drop_incompatible`, if it cannot be with another one;
#   `why_at_most_once` or `unusable_arguments`, if the log is to say that nothing comes of it;
# - where it is read.  The engine's are passed on by `Queue._apply_settings`, once they change.
#   Others are read when they are wanted: `quorum.settlement` and `requeue.delay_ms` (delivery
#   limit, delayed retry), `quorum.dead_letter_outbox`, `session_server` (disconnected consumers),
#   `membership` (target group size).  What counts only at the declare is no setting: group size and
#   leader locator are read by `QuorumQueues.define`;
# - `conversion.MEANINGLESS`, if a quorum queue has no use for it, and `conversion.as_quorum`, if it
#   would mean another thing there, or would not know what it has to: that is refused;
# - the key of policies in `validation.POLICY_KEYS`, and in `OPERATOR_POLICY_KEYS` if operators may
#   set it; the types of queue that policies with it do not apply to, `policies.UNSUPPORTED`; which
#   of two values counts, `policies.MERGED`;
# - `admin.queues` and `protocols/http/objects`, if listings show what is in force, as they do for
#   the delivery limit; its badge in the page views/queues.js, if lists should show it;
# - `tests/compat/section_05_arguments.py`, if RabbitMQ has it; its row in docs/compatibility.md if
#   it does not, or does another thing with it.
# How a setting is written in the log of a quorum queue follows from the type of its field
# (`quorum.entry_codec.SETTING_TYPES`).  Nothing says that a member of an older version knows it:
# one that leads leaves out a setting that it does not know, and a word that a setting has from now
# on, and goes by the default.  Where that would cost messages, a declare and a policy that say it
# are refused while there is such a node, as exchanges are by the `since` of their type.
ARGUMENTS: Mapping[str, ArgumentRule] = {
    "x-expires": ArgumentRule(positive_duration, _QUEUES),
    "x-message-ttl": ArgumentRule(duration, _QUEUES),
    DEAD_LETTER_EXCHANGE: ArgumentRule(string, _QUEUES),
    "x-dead-letter-routing-key": ArgumentRule(dead_letter_routing_key, _QUEUES),
    "x-dead-letter-strategy": ArgumentRule(
        one_of("at-most-once", "at-least-once", refusal="invalid_dlx_strategy"), _QUORUM
    ),
    "x-max-length": ArgumentRule(non_negative, _QUEUES),
    "x-max-length-bytes": ArgumentRule(non_negative, _ALL),
    "x-max-in-memory-length": ArgumentRule(non_negative, _QUORUM),
    "x-max-in-memory-bytes": ArgumentRule(non_negative, _QUORUM),
    "x-max-priority": ArgumentRule(max_priority, _CLASSIC, "max_priority"),
    "x-overflow": ArgumentRule(
        one_of("drop-head", "reject-publish", "reject-publish-dlx", refusal="invalid_overflow"),
        _QUEUES,
    ),
    "x-queue-mode": ArgumentRule(
        one_of("default", "lazy", refusal="\"unsupported queue mode '{}'\""), _CLASSIC
    ),
    "x-queue-version": ArgumentRule(queue_version, _CLASSIC),
    "x-single-active-consumer": ArgumentRule(boolean, _QUEUES, "single_active_consumer"),
    QUEUE_TYPE: ArgumentRule(
        one_of(*DECLARED_TYPES, refusal="\"unsupported queue type '{}'\""), _ALL
    ),
    "x-quorum-initial-group-size": ArgumentRule(positive, _QUORUM),
    "x-delivery-limit": ArgumentRule(anything, _QUORUM),
    "x-consumer-timeout": ArgumentRule(non_negative, _QUEUES),
    "x-consumer-disconnected-timeout": ArgumentRule(non_negative, _QUORUM),
    "x-delayed-retry-type": ArgumentRule(anything, _QUORUM),
    "x-delayed-retry-min": ArgumentRule(anything, _QUORUM),
    "x-delayed-retry-max": ArgumentRule(anything, _QUORUM),
    "x-max-age": ArgumentRule(max_age, _STREAM),
    "x-stream-max-segment-size-bytes": ArgumentRule(non_negative, _STREAM),
    "x-stream-filter-size-bytes": ArgumentRule(non_negative, _STREAM),
    "x-initial-cluster-size": ArgumentRule(positive, _STREAM),
    "x-queue-master-locator": ArgumentRule(anything, _CLASSIC),
    "x-queue-leader-locator": ArgumentRule(
        one_of(
            "client-local",
            "balanced",
            "random",
            "least-leaders",
            "min-masters",
            refusal="invalid_queue_locator_arg",
        ),
        _ALL,
    ),
    "x-message-deduplication": ArgumentRule(boolean, _QUEUES),
    "x-cache-size": ArgumentRule(cache_size, _QUEUES),
    "x-cache-ttl": ArgumentRule(positive_duration, _QUEUES),
}

COMPARED: Mapping[QueueType, Sequence[str]] = {
    QueueType.MQTT_QOS0: (),
    **{kind: [key for key, row in ARGUMENTS.items() if kind in row.queue_types] for kind in _ALL},
    QueueType.QUORUM: (
        *(DEAD_LETTER_EXCHANGE, "x-dead-letter-routing-key", "x-dead-letter-strategy"),
        *("x-expires", "x-max-length", "x-max-length-bytes"),
        *("x-max-in-memory-length", "x-max-in-memory-bytes"),
        *("x-overflow", "x-single-active-consumer", QUEUE_TYPE, "x-quorum-initial-group-size"),
        *("x-delivery-limit", "x-message-ttl", "x-queue-leader-locator"),
        *("x-consumer-disconnected-timeout", "x-consumer-timeout"),
        *("x-delayed-retry-type", "x-delayed-retry-min", "x-delayed-retry-max"),
        *("x-message-deduplication", "x-cache-size", "x-cache-ttl"),
    ),
}
"""Arguments that must be equal on redeclaration, by the type of the existing queue, in RabbitMQ's
order of comparison, which is not always the order of its checks."""

CONSUMER_ARGUMENTS: Mapping[str, ArgumentRule] = {
    "x-priority": ArgumentRule(integer, _ALL, "priority"),
    "x-consumer-timeout": ArgumentRule(non_negative, _QUEUES, "timeout_ms"),
    "x-stream-offset": ArgumentRule(anything, _STREAM),
    "x-stream-filter": ArgumentRule(anything, _STREAM),
    "x-stream-match-unfiltered": ArgumentRule(anything, _STREAM),
}


def queue_spec(declared: Declaration, vhost: str) -> QueueSpec:
    """The specification of a new queue.  PreconditionFailed for a bad argument.

    NotImplementedHere for a stream: a classic queue in its place would break what the client counts
    on.
    """
    where = _where(declared.name, vhost)
    table = declared.arguments
    tag, _ = table.get(DEAD_LETTER_EXCHANGE, ("S", b""))
    if tag != "S":
        raise PreconditionFailed(
            f"invalid type '{TYPE_NAMES[tag]}' for arg '{DEAD_LETTER_EXCHANGE}' in {where}"
        )
    _checked({QUEUE_TYPE: ARGUMENTS[QUEUE_TYPE]}, table, QueueType.CLASSIC, where)
    queue_type = QueueType(text(_queue_type(table)[1]))
    values = _checked(ARGUMENTS, table, queue_type, where)
    if queue_type is not QueueType.CLASSIC and not is_delayed_queue(declared.name):
        _check_properties(declared, where)
    if queue_type is QueueType.STREAM:
        raise NotImplementedHere(f"streams are not supported by fluffle: {where}")
    if declared.mailbox_limit is not None:
        queue_type = QueueType.MQTT_QOS0
    return QueueSpec(
        name=declared.name,
        durable=declared.is_durable,
        exclusive=declared.exclusive,
        auto_delete=declared.auto_delete,
        queue_type=queue_type,
        arguments=table,
        mailbox_limit=declared.mailbox_limit or 0,
        guarantee=declared.guarantee,
        **values,
    )


def with_type(declared: Declaration, default: object) -> Declaration:
    """The same with the default type of its virtual host, if it names none and there is a default.

    What cannot be of that type is classic.
    """
    if QUEUE_TYPE in declared.arguments or default not in DECLARED_TYPES:
        return declared
    is_lasting = declared.is_durable and not declared.auto_delete
    queue_type = QueueType(str(default)) if is_lasting else QueueType.CLASSIC
    arguments = {**declared.arguments, QUEUE_TYPE: ("S", queue_type.encode())}
    return replace(declared, arguments=arguments)


def check_server_named(table: FieldTable) -> None:
    """PreconditionFailed for a type of queue that only clients can name: any but classic."""
    queue_type = text(_queue_type(table)[1])
    if queue_type in (QueueType.QUORUM, QueueType.STREAM):
        raise PreconditionFailed(
            f"Cannot declare a server-named queue for type rabbit_{queue_type}_queue"
        )


def consumer_arguments(table: FieldTable, queue: QueueSpec, vhost: str) -> ConsumerArguments:
    """The arguments of a consumer of `queue`.  PreconditionFailed for a bad one."""
    where = _where(queue.name, vhost)
    return ConsumerArguments(**_checked(CONSUMER_ARGUMENTS, table, queue.queue_type, where))


def check_equivalent(current: QueueSpec, declared: Declaration, vhost: str) -> None:
    """PreconditionFailed when a queue is declared again as another.

    Whether the declaring connection may use the queue is for the caller to see, before this.
    """
    where = _where(current.name, vhost)
    for name, received, is_now in (
        ("durable", declared.is_durable, current.durable),
        ("auto_delete", declared.auto_delete, current.auto_delete),
    ):
        if received != is_now:
            raise inequivalent(name, where, plain(received), plain(is_now))
    for key in COMPARED[current.queue_type]:
        _check_equal(key, current, declared, vhost)


def check_close(current: QueueSpec, declared: Declaration, vhost: str) -> None:
    """Check equivalence as `check_equivalent` does, but only for arguments that classic and quorum
    queues share."""
    for key in COMPARED_ACROSS_TYPES:
        _check_equal(key, current, declared, vhost)


def takes_for_classic(current: QueueSpec, declared: Declaration) -> bool:
    """True if a quorum queue is declared again as a classic one."""
    is_quorum = current.queue_type is QueueType.QUORUM
    return is_quorum and _queue_type(declared.arguments) == ("S", QueueType.CLASSIC.encode())


def _checked(
    rows: Mapping[str, ArgumentRule], table: FieldTable, queue_type: QueueType, where: str
) -> dict[str, Any]:
    """The checked values by their fields; what other types of queue know is refused last."""
    values = {}
    for key, row in rows.items():
        if key not in table or queue_type not in row.queue_types:
            continue
        try:
            value = row.check(table[key], table)
        except InvalidArgument as why:
            raise PreconditionFailed(f"invalid arg '{key}' for {where}: {why}") from None
        if row.spec_field is not None:
            values[row.spec_field] = value
    for key in sorted(table):
        if key in rows and queue_type not in rows[key].queue_types:
            raise PreconditionFailed(
                f"invalid arg '{key}' for {where} of queue type rabbit_{queue_type}_queue"
            )
    return values


def _check_equal(key: str, current: QueueSpec, declared: Declaration, vhost: str) -> None:
    received, is_now = declared.arguments.get(key), current.arguments.get(key)
    if key == QUEUE_TYPE:
        received, is_now = _queue_type(declared.arguments), _queue_type(current.arguments)
    check_same(key, _where(current.name, vhost), received, is_now)


def _check_properties(declared: Declaration, where: str) -> None:
    """Refuse properties that only classic queues may have, in RabbitMQ's order."""
    for name, is_wrong in (
        ("auto-delete", declared.auto_delete),
        ("exclusive-owner", declared.exclusive),
        ("non-durable", not declared.durable),
    ):
        if is_wrong:
            raise PreconditionFailed(f"invalid property '{name}' for {where}")


def _queue_type(table: FieldTable) -> Field:
    return table.get(QUEUE_TYPE, ("S", QueueType.CLASSIC.encode()))


def _where(name: str, vhost: str) -> str:
    return f"queue '{name}' in vhost '{vhost}'"


def delayed_queue_spec(exchange: str, vhost: str, *, durable: bool) -> QueueSpec:
    """Specification of an exchange's delayed queue, which dead-letters back to that exchange and is
    as durable as it is."""
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    declared = Declaration(
        delayed_queue_of(exchange), durable=durable, arguments=to_table(arguments)
    )
    return queue_spec(declared, vhost)
