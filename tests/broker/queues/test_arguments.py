"""Checks and comparison of arguments, with the texts of RabbitMQ 4.0.5."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.base.errors import NotImplementedHere, PreconditionFailed
from fluffle.broker.policies.policies import UNSUPPORTED, PolicyTarget
from fluffle.broker.policies.validation import OPERATOR_POLICY_KEYS, POLICY_KEYS
from fluffle.broker.queues.arguments import (
    ARGUMENTS,
    COMPARED,
    COMPARED_ACROSS_TYPES,
    DECLARED_TYPES,
    ConsumerArguments,
    Declaration,
    QueueSpec,
    QueueType,
    check_equivalent,
    consumer_arguments,
    queue_spec,
    with_type,
)
from fluffle.broker.queues.settings import POLICY_KEY_BY_ARGUMENT, QueueSettings
from fluffle.broker.transfer.conversion import MEANINGLESS
from fluffle.protocol.wire import TYPE_NAMES, Field, FieldTable

VALUES: dict[str, Field] = {
    "t": ("t", True),
    **{tag: (tag, 5) for tag in "bBsuIilLT"},
    **{tag: (tag, 1.5) for tag in "fd"},
    "D": ("D", (1, 5)),
    "S": ("S", b"abc"),
    "x": ("x", b"abc"),
    "F": ("F", {}),
    "A": ("A", []),
    "V": ("V", None),
}
"""Values, one for each type."""

INTEGERS = "lbBsuIiL"
NO_INTEGERS = ["t", *sorted(VALUES.keys() - {*INTEGERS, "t"})]
NO_STRINGS = ["x", *sorted(VALUES.keys() - {"S", "x"})]
INTEGER_ARGUMENTS = (
    "x-expires",
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
)
STRING_ARGUMENTS = (
    "x-overflow",
    "x-queue-mode",
    "x-queue-type",
    "x-queue-leader-locator",
    "x-dead-letter-routing-key",
)


def crossed(keys: Sequence[str], tags: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of each argument with the first type, and of the first argument with each type.

    Which types will do is one function for all of them.
    """
    return [*((key, tags[0]) for key in keys), *((keys[0], tag) for tag in tags[1:])]


def declare(**arguments: Field) -> QueueSpec:
    """Declare 'q' with these arguments, `_` standing for `-`."""
    table = {key.replace("_", "-"): value for key, value in arguments.items()}
    return queue_spec(Declaration("q", arguments=table), "/")


def refusal(table: FieldTable) -> str:
    with pytest.raises(PreconditionFailed) as refused:
        queue_spec(Declaration("q", arguments=table), "/")
    return refused.value.explanation


def number(value: int) -> Field:
    return ("l", value)


def text(value: str) -> Field:
    return ("S", value.encode())


def test_every_type_of_the_wire_is_tried() -> None:
    assert VALUES.keys() == TYPE_NAMES.keys()


def test_a_plain_declare() -> None:
    spec = queue_spec(Declaration("q", durable=True, auto_delete=True), "/")
    assert spec == QueueSpec("q", durable=True, auto_delete=True)
    assert (spec.queue_type, spec.arguments) == (QueueType.CLASSIC, {})


def test_a_queue_for_qos_0_of_mqtt_has_a_type_that_nobody_can_declare() -> None:
    declared = Declaration("q", durable=True, exclusive=True, mailbox_limit=0)
    spec = queue_spec(declared, "/")
    assert (spec.queue_type, spec.durable, spec.arguments) == (QueueType.MQTT_QOS0, False, {})
    assert spec.queue_type.shown == spec.queue_type.module == "rabbit_mqtt_qos0_queue"
    assert [each.shown for each in DECLARED_TYPES] == ["classic", "quorum", "stream"]
    assert with_type(Declaration("q"), "mqtt_qos0").arguments == {}
    check_equivalent(spec, declared, "/")


def test_an_exclusive_queue_is_never_durable() -> None:
    spec = queue_spec(Declaration("q", durable=True, exclusive=True), "/")
    assert (spec.exclusive, spec.durable) == (True, False)


def test_arguments_become_fields_and_are_kept_as_they_came() -> None:
    table: FieldTable = {
        "x-expires": ("i", 60_000),
        "x-message-ttl": ("s", 0),
        "x-dead-letter-exchange": text(""),
        "x-dead-letter-routing-key": text("dead"),
        "x-max-length": ("b", 100),
        "x-max-length-bytes": number(1 << 40),
        "x-max-priority": ("B", 255),
        "x-overflow": text("reject-publish"),
        "x-queue-mode": text("lazy"),
        "x-queue-version": number(2),
        "x-single-active-consumer": ("t", True),
        "x-queue-type": text("classic"),
        "x-queue-leader-locator": text("balanced"),
        "x-queue-master-locator": ("V", None),
        "x-unheard-of": ("F", {"any": ("D", (2, 314))}),
    }
    assert queue_spec(Declaration("q", arguments=table), "/") == QueueSpec(
        "q",
        arguments=table,
        max_priority=255,
        single_active_consumer=True,
    )


@pytest.mark.parametrize(("key", "tag"), crossed(INTEGER_ARGUMENTS, INTEGERS))
def test_an_integer_of_any_width_will_do(key: str, tag: str) -> None:
    spec = queue_spec(Declaration("q", arguments={key: VALUES[tag]}), "/")
    assert spec.arguments[key] == VALUES[tag]


@pytest.mark.parametrize(
    ("key", "tag"), crossed([*INTEGER_ARGUMENTS, "x-queue-version"], NO_INTEGERS)
)
def test_what_is_no_integer_is_named(key: str, tag: str) -> None:
    expected = f'"expected integer, got {TYPE_NAMES[tag]}"'
    assert (
        refusal({key: VALUES[tag]}) == f"invalid arg '{key}' for queue 'q' in vhost '/': {expected}"
    )


@pytest.mark.parametrize(("key", "tag"), crossed(STRING_ARGUMENTS, NO_STRINGS))
def test_what_is_no_string_is_named(key: str, tag: str) -> None:
    expected = f"{{unacceptable_type,{TYPE_NAMES[tag]}}}"
    assert (
        refusal({key: VALUES[tag]}) == f"invalid arg '{key}' for queue 'q' in vhost '/': {expected}"
    )


@pytest.mark.parametrize("tag", sorted(VALUES.keys() - {"t"}))
def test_what_is_no_bool_is_named(tag: str) -> None:
    assert refusal({"x-single-active-consumer": VALUES[tag]}) == (
        "invalid arg 'x-single-active-consumer' for queue 'q' in vhost '/': "
        f"{{unacceptable_type,{TYPE_NAMES[tag]}}}"
    )


@pytest.mark.parametrize("tag", NO_STRINGS)
def test_a_dead_letter_exchange_that_is_no_name_comes_before_all_other_checks(tag: str) -> None:
    table = {"x-queue-type": text("foo"), "x-dead-letter-exchange": VALUES[tag]}
    assert refusal(table) == (
        f"invalid type '{TYPE_NAMES[tag]}' for arg 'x-dead-letter-exchange'"
        " in queue 'q' in vhost '/'"
    )


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("x-expires", number(0), "{value_zero,0}"),
        ("x-expires", number(-1), "{value_negative,-1}"),
        ("x-expires", number(315_360_000_001), "{value_too_large,315360000001}"),
        ("x-message-ttl", number(-1), "{value_negative,-1}"),
        ("x-message-ttl", number(315_360_000_001), "{value_too_large,315360000001}"),
        ("x-max-length", number(-1), "{value_negative,-1}"),
        ("x-max-length-bytes", number(-2), "{value_negative,-2}"),
        ("x-max-priority", number(-1), "{value_negative,-1}"),
        ("x-max-priority", number(256), "{max_value_exceeded,256}"),
        ("x-queue-version", number(3), "\"unsupported queue version '3'\""),
        ("x-queue-version", number(1), "\"unsupported queue version '1'\""),
        ("x-queue-mode", text("foo"), "\"unsupported queue mode 'foo'\""),
        ("x-overflow", text("foo"), "invalid_overflow"),
        ("x-queue-leader-locator", text("foo"), "invalid_queue_locator_arg"),
        ("x-dead-letter-routing-key", text(""), "routing_key_but_no_dlx_defined"),
        ("x-queue-type", text("foo"), "\"unsupported queue type 'foo'\""),
        ("x-queue-type", text("mqtt_qos0"), "\"unsupported queue type 'mqtt_qos0'\""),
        (
            "x-queue-type",
            text("rabbit_mqtt_qos0_queue"),
            "\"unsupported queue type 'rabbit_mqtt_qos0_queue'\"",
        ),
        ("x-queue-type", text(""), "\"unsupported queue type ''\""),
        ("x-queue-type", text('f"o\\o'), '"unsupported queue type \'f\\"o\\\\o\'"'),
        ("x-queue-type", text("f{}öö"), "\"unsupported queue type 'f{}öö'\""),
        ("x-queue-type", ("S", b"\xff\xfe"), "\"unsupported queue type 'ÿþ'\""),
    ],
)
def test_bad_values(key: str, value: Field, why: str) -> None:
    assert refusal({key: value}) == f"invalid arg '{key}' for queue 'q' in vhost '/': {why}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x-expires", 1),
        ("x-expires", 315_360_000_000),
        ("x-message-ttl", 315_360_000_000),
        ("x-max-length", 1 << 62),
        ("x-max-priority", 0),
    ],
)
def test_limits_that_hold(key: str, value: int) -> None:
    spec = queue_spec(Declaration("q", arguments={key: number(value)}), "/")
    assert spec.arguments[key] == number(value)


def test_the_first_bad_argument_in_rabbitmqs_order_is_reported() -> None:
    bad = text("a")
    table = {"x-max-age": bad, "x-delivery-limit": bad, "x-max-length": bad, "x-queue-type": bad}
    assert "'x-queue-type'" in refusal(table)
    del table["x-queue-type"]
    assert "'x-dead-letter-routing-key'" in refusal({**table, "x-dead-letter-routing-key": bad})
    assert "'x-max-length'" in refusal(table)
    del table["x-max-length"]
    assert "'x-delivery-limit'" in refusal(table)


@pytest.mark.parametrize(
    "key", [key for key, row in ARGUMENTS.items() if QueueType.CLASSIC not in row.queue_types]
)
def test_arguments_of_other_types_of_queue(key: str) -> None:
    assert refusal({key: number(1)}) == (
        f"invalid arg '{key}' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"
    )


@pytest.mark.parametrize(
    ("queue_type", "key", "value", "why"),
    [
        ("quorum", "x-max-priority", number(1), " of queue type rabbit_quorum_queue"),
        ("quorum", "x-queue-mode", text("lazy"), " of queue type rabbit_quorum_queue"),
        ("quorum", "x-quorum-initial-group-size", number(0), ": {value_zero,0}"),
        ("quorum", "x-dead-letter-strategy", text("foo"), ": invalid_dlx_strategy"),
        ("stream", "x-message-ttl", number(4), " of queue type rabbit_stream_queue"),
        ("stream", "x-max-age", text("0h"), ": invalid_max_age"),
        ("stream", "x-max-age", text("5hh"), ": invalid_max_age"),
    ],
)
def test_arguments_of_queues_that_do_not_exist_yet_are_checked(
    queue_type: str, key: str, value: Field, why: str
) -> None:
    table = {"x-queue-type": text(queue_type), key: value}
    assert refusal(table) == f"invalid arg '{key}' for queue 'q' in vhost '/'{why}"


def test_streams_are_refused_and_never_served_as_classic() -> None:
    table = {"x-queue-type": text("stream"), "x-max-age": text("07D")}
    with pytest.raises(NotImplementedHere) as refused:
        queue_spec(Declaration("q", durable=True, arguments=table), "/")
    why = "streams are not supported by fluffle: queue 'q' in vhost '/'"
    assert refused.value.reply_text == f"NOT_IMPLEMENTED - {why}"


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (Declaration("q", durable=True), "quorum"),
        (Declaration("q"), "classic"),
        (Declaration("q", durable=True, exclusive=True), "classic"),
        (Declaration("q", durable=True, auto_delete=True), "classic"),
        (Declaration("q", durable=True, arguments={"x-queue-type": text("stream")}), "stream"),
    ],
)
def test_the_default_type_of_a_virtual_host(declared: Declaration, expected: str) -> None:
    """The type is written into the arguments, as with RabbitMQ, and so is classic in its place."""
    arguments = with_type(declared, "quorum").arguments
    assert arguments == {"x-queue-type": text(expected)}


@pytest.mark.parametrize("default", [None, "", "undefined", 5])
def test_without_a_default_nothing_is_written_into_arguments(default: object) -> None:
    assert with_type(Declaration("q", durable=True), default).arguments == {}


@pytest.mark.parametrize(
    ("queue_type", "flags", "name"),
    [
        ("quorum", {}, "non-durable"),
        ("quorum", {"durable": True, "exclusive": True}, "exclusive-owner"),
        ("quorum", {"exclusive": True}, "exclusive-owner"),
        ("quorum", {"durable": True, "auto_delete": True}, "auto-delete"),
        ("quorum", {"exclusive": True, "auto_delete": True}, "auto-delete"),
        ("stream", {}, "non-durable"),
    ],
)
def test_what_only_classic_queues_can_be(queue_type: str, flags: dict[str, Any], name: str) -> None:
    declared = Declaration("q", arguments={"x-queue-type": text(queue_type)}, **flags)
    with pytest.raises(PreconditionFailed) as refused:
        queue_spec(declared, "/")
    assert refused.value.explanation == f"invalid property '{name}' for queue 'q' in vhost '/'"


@pytest.mark.parametrize("tag", VALUES)
def test_a_delivery_limit_may_be_anything(tag: str) -> None:
    table = {"x-queue-type": text("quorum"), "x-delivery-limit": VALUES[tag]}
    assert queue_spec(Declaration("q", durable=True, arguments=table), "/").arguments == table


def inequivalence(
    current: FieldTable, received: FieldTable, *, key: str = "x-queue-master-locator"
) -> str:
    """Error text behind the argument's name."""
    declared = Declaration("q", arguments=received)
    prefix = f"inequivalent arg '{key}' for queue 'q' in vhost '/': "
    with pytest.raises(PreconditionFailed) as refused:
        check_equivalent(QueueSpec("q", arguments=current), declared, "/")
    assert refused.value.explanation.startswith(prefix)
    return refused.value.explanation.removeprefix(prefix)


def equivalent(current: FieldTable, received: FieldTable) -> bool:
    check_equivalent(QueueSpec("q", arguments=current), Declaration("q", arguments=received), "/")
    return True


@pytest.mark.parametrize(
    ("current", "received"),
    [
        (("l", 5), ("b", 5)),
        (("u", 5), ("T", 5)),
        (("d", 4.0), ("f", 4.0)),
        (("S", b"a"), ("x", b"a")),
    ],
)
def test_values_are_compared_without_their_width(current: Field, received: Field) -> None:
    key = "x-queue-master-locator"
    assert equivalent({key: current}, {key: received})


@pytest.mark.parametrize(
    ("current", "received", "text"),
    [
        (number(5), number(6), "received '6' but current is '5'"),
        (number(4), text("4"), "received '4' but current is '4'"),
        (("d", 4.0), number(4), "received '4' but current is '4.0'"),
        (("t", True), number(1), "received '1' but current is 'true'"),
        (("V", None), number(1), "received '1' but current is none"),
        (text("ö"), text("öä"), "received 'öä' but current is 'ö'"),
        (None, number(5), "received the value '5' of type 'long' but current is none"),
        (None, ("i", 5), "received the value '5' of type 'unsignedint' but current is none"),
        (None, ("t", False), "received the value 'false' of type 'bool' but current is none"),
        (("I", 5), None, "received none but current is the value '5' of type 'signedint'"),
        (("d", 4.5), None, "received none but current is the value '4.5' of type 'double'"),
        (("V", None), None, "received none but current is the value 'undefined' of type 'void'"),
        (
            ("x", b"a\xff\"'"),
            None,
            "received none but current is the value 'aÿ\"'' of type 'binary'",
        ),
    ],
)
def test_how_a_difference_is_reported(
    current: Field | None, received: Field | None, text: str
) -> None:
    key = "x-queue-master-locator"
    tables = [{} if value is None else {key: value} for value in (current, received)]
    assert inequivalence(*tables) == text


def test_the_first_difference_in_rabbitmqs_order_is_reported() -> None:
    current = {"x-overflow": text("drop-head"), "x-expires": number(9), "x-message-ttl": number(4)}
    received = {"x-overflow": text("reject-publish"), "x-max-length": number(5)}
    assert inequivalence(current, received, key="x-expires").startswith("received none")
    assert inequivalence({}, received, key="x-max-length").endswith("current is none")


def test_quorum_queues_are_compared_in_an_order_of_their_own() -> None:
    """RabbitMQ 4.3 names the first difference in this order."""
    current = {"x-expires": number(9), "x-message-ttl": number(4)}
    received = {"x-delivery-limit": number(5), "x-overflow": text("drop-head")}
    for key in ("x-expires", "x-overflow", "x-delivery-limit", "x-message-ttl"):
        spec = QueueSpec("q", arguments=current, queue_type=QueueType.QUORUM)
        with pytest.raises(PreconditionFailed, match=f"inequivalent arg '{key}'"):
            check_equivalent(spec, Declaration("q", arguments=received), "/")
        for table in (current, received):
            table.pop(key, None)
    for kind, compared in COMPARED.items():
        assert {*compared} == {key for key, row in ARGUMENTS.items() if kind in row.queue_types}


def test_values_are_not_checked_when_a_queue_is_declared_again() -> None:
    assert inequivalence({}, {"x-message-ttl": text("x")}, key="x-message-ttl") == (
        "received the value 'x' of type 'longstr' but current is none"
    )


def test_classic_is_what_a_queue_is_when_nothing_is_said() -> None:
    classic = {"x-queue-type": text("classic")}
    assert equivalent({}, classic)
    assert equivalent(classic, {})
    assert inequivalence({}, {"x-queue-type": text("quorum")}, key="x-queue-type") == (
        "received 'quorum' but current is 'classic'"
    )


def test_unknown_arguments_are_not_compared() -> None:
    assert equivalent({"x-foo": number(1)}, {"x-foo": text("a"), "x-max-age": number(3)})


@pytest.mark.parametrize(
    ("current", "declared", "text"),
    [
        (
            QueueSpec("q", durable=True),
            Declaration("q", auto_delete=True),
            "'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'",
        ),
        (
            QueueSpec("q", auto_delete=True),
            Declaration("q", arguments={"x-expires": number(1)}),
            "'auto_delete' for queue 'q' in vhost '/': received 'false' but current is 'true'",
        ),
    ],
)
def test_flags_come_first(current: QueueSpec, declared: Declaration, text: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        check_equivalent(current, declared, "/")
    assert refused.value.explanation == f"inequivalent arg {text}"


def test_durable_means_nothing_on_an_exclusive_queue() -> None:
    current = queue_spec(Declaration("q", exclusive=True), "/")
    check_equivalent(current, Declaration("q", exclusive=True, durable=True), "/")
    assert current == queue_spec(Declaration("q", exclusive=True, durable=True), "/")


def test_consumer_arguments() -> None:
    queue = QueueSpec("q")
    table: FieldTable = {"x-priority": ("b", -5), "x-cancel-on-ha-failover": ("l", 1)}
    assert consumer_arguments(table, queue, "/") == ConsumerArguments(priority=-5)
    assert consumer_arguments({}, queue, "/") == ConsumerArguments(priority=0)
    assert consumer_arguments({"x-consumer-timeout": number(5)}, queue, "/").timeout_ms == 5


@pytest.mark.parametrize(
    ("table", "key", "why"),
    [
        (
            {"x-stream-offset": number(1), "x-priority": text("a")},
            "x-priority",
            ': "expected integer, got longstr"',
        ),
        *(
            ({key: number(1)}, key, " of queue type rabbit_classic_queue")
            for key in ("x-stream-offset", "x-stream-filter")
        ),
    ],
)
def test_bad_consumer_arguments(table: FieldTable, key: str, why: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        consumer_arguments(table, QueueSpec("q"), "/")
    assert refused.value.explanation == f"invalid arg '{key}' for queue 'q' in vhost '/'{why}"


def test_every_field_of_a_spec_is_filled_by_a_row() -> None:
    fields = {row.spec_field for row in ARGUMENTS.values()} - {None}
    declared = set(Declaration.__dataclass_fields__) | {"queue_type"}
    assert fields == set(QueueSpec.__dataclass_fields__) - declared


# What the checklist above `ARGUMENTS` asks for

ROOT = Path(__file__).parents[3]

AT_THE_DECLARE = {
    *("x-queue-type", "x-quorum-initial-group-size", "x-queue-leader-locator"),
    *("x-max-priority", "x-single-active-consumer"),
}
"""Arguments that count once, when the queue is made, and are no settings."""

WITHOUT_EFFECT = {
    *("x-queue-mode", "x-queue-version", "x-queue-master-locator"),
    *("x-max-in-memory-length", "x-max-in-memory-bytes"),
    *("x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes"),
    "x-initial-cluster-size",
}
"""Arguments that are checked and compared, and that nothing goes by."""

NOT_COMPARED_WITH_RABBITMQ = {
    *("x-consumer-disconnected-timeout", "x-delayed-retry-type", "x-delayed-retry-min"),
    *("x-delayed-retry-max", "x-stream-filter-size-bytes"),
    *("x-message-deduplication", "x-cache-size", "x-cache-ttl"),
}
"""Arguments of RabbitMQ 4.3, which is not at hand, of streams, which are refused, and ours."""


def types_of(argument: str) -> frozenset[QueueType]:
    return ARGUMENTS[argument].queue_types


def test_an_argument_is_a_setting_counts_at_the_declare_or_does_nothing() -> None:
    settings = POLICY_KEY_BY_ARGUMENT.keys() - {"x-quorum-target-group-size"}
    assert ARGUMENTS.keys() == settings | AT_THE_DECLARE | WITHOUT_EFFECT
    assert len(ARGUMENTS) == len(settings) + len(AT_THE_DECLARE) + len(WITHOUT_EFFECT)


@pytest.mark.parametrize("name", QueueSettings.__dataclass_fields__)
def test_no_setting_is_without_a_reader(name: str) -> None:
    read = re.compile(rf"\.{name}\b")
    assert any(read.search(path.read_text()) for path in (ROOT / "broker").rglob("*.py"))


def test_all_that_a_quorum_queue_takes_is_compared() -> None:
    quorum = {argument for argument in ARGUMENTS if QueueType.QUORUM in types_of(argument)}
    assert set(COMPARED[QueueType.QUORUM]) == quorum
    for argument in COMPARED_ACROSS_TYPES:
        assert types_of(argument) >= {QueueType.CLASSIC, QueueType.QUORUM}


def test_a_conversion_leaves_out_what_a_quorum_queue_does_not_take() -> None:
    assert {
        argument
        for argument in ARGUMENTS
        if QueueType.CLASSIC in types_of(argument) and QueueType.QUORUM not in types_of(argument)
    } == MEANINGLESS


def test_settings_have_keys_of_policies() -> None:
    assert set(POLICY_KEY_BY_ARGUMENT.values()) - POLICY_KEYS.keys() == {
        "consumer-disconnected-timeout"  # RabbitMQ 4.3 has no such key
    }
    assert POLICY_KEYS.keys() >= OPERATOR_POLICY_KEYS


@pytest.mark.parametrize(
    ("queue_type", "target", "missing"),
    [
        (QueueType.CLASSIC, PolicyTarget.CLASSIC, {"stream-filter-size-bytes"}),
        (QueueType.QUORUM, PolicyTarget.QUORUM, {"stream-filter-size-bytes", "queue-version"}),
    ],
)
def test_a_policy_does_not_apply_to_what_cannot_have_its_keys(
    queue_type: QueueType, target: PolicyTarget, missing: set[str]
) -> None:
    """`missing` are those that RabbitMQ's lists have not got either."""
    of_others = {each.removeprefix("x-") for each in ARGUMENTS if queue_type not in types_of(each)}
    assert of_others & POLICY_KEYS.keys() - UNSUPPORTED[target] == missing


def test_what_rabbitmq_knows_is_compared_with_it() -> None:
    scenarios = (ROOT / "tests/compat/section_05_arguments.py").read_text()
    assert {
        each for each in ARGUMENTS if f'"{each}"' not in scenarios
    } == NOT_COMPARED_WITH_RABBITMQ
