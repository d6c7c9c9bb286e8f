"""Declaring and deleting exchanges: codes and texts as of RabbitMQ 4.0.5."""

import re
from pathlib import Path

import pytest

from fluffle.broker.admin.nodes import ALWAYS_ENABLED
from fluffle.broker.base.errors import AccessRefused, BrokerError, NotFound, PreconditionFailed
from fluffle.broker.cli.rabbitmq.features import PLUGINS
from fluffle.broker.config.rabbitmq_conf.sources import BUILT_IN
from fluffle.broker.metadata.nodes import DELAYS, SELECTS
from fluffle.broker.routing.exchange import (
    DELAYED,
    DELAYED_TYPE,
    EXCHANGE_TYPES,
    ExchangeSpec,
    since_of,
)
from fluffle.broker.routing.jms_topic import JMS_TOPIC
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.wire import Field
from tests.broker.routing.topologies import (
    declare,
    delete,
    names,
    to_exchange,
    to_queue,
    topology,
    with_alternate,
)
from tests.support.topologies import bindings_from

ON_DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"


def refusal(made: Topology, spec: ExchangeSpec) -> str:
    with pytest.raises(BrokerError) as caught:
        declare(made, spec)
    return caught.value.reply_text


def with_argument(field: Field | None, name: str = "x") -> ExchangeSpec:
    return ExchangeSpec(name, arguments={} if field is None else {"alternate-exchange": field})


def test_every_vhost_has_the_predeclared_exchanges() -> None:
    found = [(x.name, x.type, x.durable, x.internal) for x in Topology("/").exchanges()]
    assert found == [
        ("", "direct", True, False),
        ("amq.direct", "direct", True, False),
        ("amq.fanout", "fanout", True, False),
        ("amq.topic", "topic", True, False),
        ("amq.headers", "headers", True, False),
        ("amq.match", "headers", True, False),
        ("amq.rabbitmq.trace", "topic", True, True),
    ]


@pytest.mark.parametrize("type", ["direct", "fanout", "topic", "headers"])
def test_declare_makes_an_exchange_once(type: str) -> None:
    made = Topology("/")
    spec = ExchangeSpec("x", type, durable=True)
    assert declare(made, spec)
    assert not declare(made, spec)
    assert names(made) == ["x"]
    assert made.require("x").spec is spec


def test_the_type_is_checked_before_the_name() -> None:
    text = "PRECONDITION_FAILED - unknown exchange type 'x-nope'"
    for name in ("x", "", "amq.new", "amq.direct"):
        assert refusal(Topology("/"), ExchangeSpec(name, "x-nope")) == text


def test_types_are_case_sensitive() -> None:
    text = "PRECONDITION_FAILED - unknown exchange type 'DIRECT'"
    assert refusal(Topology("/"), ExchangeSpec("x", "DIRECT")) == text


def test_the_default_exchange_cannot_be_declared_or_deleted() -> None:
    made = Topology("/")
    assert refusal(made, ExchangeSpec("", "direct", durable=True)) == ON_DEFAULT
    with pytest.raises(AccessRefused) as caught:
        delete(made, "")
    assert caught.value.reply_text == ON_DEFAULT


def test_the_reserved_prefix_is_refused_for_new_names_only() -> None:
    made = Topology("/")
    assert refusal(made, ExchangeSpec("amq.new")) == (
        "ACCESS_REFUSED - exchange name 'amq.new' contains reserved prefix 'amq.*'"
    )
    assert not declare(made, ExchangeSpec("amq.direct", "direct", durable=True))
    assert declare(made, ExchangeSpec("amq"))


@pytest.mark.parametrize(
    ("argument", "spec", "received", "current"),
    [
        ("type", ExchangeSpec("x", "fanout"), "fanout", "direct"),
        ("durable", ExchangeSpec("x", durable=True), "true", "false"),
        ("auto_delete", ExchangeSpec("x", auto_delete=True), "true", "false"),
        ("internal", ExchangeSpec("x", internal=True), "true", "false"),
        ("type", ExchangeSpec("x", "topic", durable=True, internal=True), "topic", "direct"),
    ],
)
def test_an_inequivalent_exchange_is_refused(
    argument: str, spec: ExchangeSpec, received: str, current: str
) -> None:
    made = Topology("v")
    declare(made, ExchangeSpec("x"))
    assert refusal(made, spec) == (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for exchange 'x' in vhost 'v':"
        f" received '{received}' but current is '{current}'"
    )


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        (None, ("S", b"ae"), ("the value 'ae' of type 'longstr'", "none")),
        (None, ("I", 5), ("the value '5' of type 'signedint'", "none")),
        (None, ("V", None), ("the value 'undefined' of type 'void'", "none")),
        (
            None,
            ("F", {"a": ("I", 1)}),
            ("the value '[{<<\"a\">>,signedint,1}]' of type 'table'", "none"),
        ),
        (("S", b"ae"), None, ("none", "the value 'ae' of type 'longstr'")),
        (("S", b"ae"), ("S", b"other"), ("'other'", "'ae'")),
        (("S", b"ae"), ("t", True), ("'true'", "'ae'")),
        (("S", b"ae"), ("V", None), ("none", "'ae'")),
        (("S", b"5"), ("I", 5), ("'5'", "'5'")),
    ],
)
def test_an_inequivalent_alternate_is_refused(
    old: Field | None, new: Field | None, texts: tuple[str, str]
) -> None:
    made = Topology("/")
    declare(made, with_argument(old))
    assert refusal(made, with_argument(new)) == (
        "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/':"
        f" received {texts[0]} but current is {texts[1]}"
    )


def test_equal_alternates_and_all_other_arguments_are_equivalent() -> None:
    made = Topology("/")
    declare(made, with_argument(("S", b"ae")))
    assert not declare(made, with_argument(("S", b"ae")))
    assert not declare(made, with_argument(("x", b"ae")))
    assert not declare(
        made, ExchangeSpec("x", arguments={"alternate-exchange": ("S", b"ae"), "more": ("I", 1)})
    )


@pytest.mark.parametrize(
    ("field", "type"),
    [
        (("I", 5), "signedint"),
        (("t", True), "bool"),
        (("x", b"ae"), "binary"),
        (("V", None), "void"),
    ],
)
def test_an_alternate_is_a_longstr(field: Field, type: str) -> None:
    made = Topology("/")
    assert refusal(made, with_argument(field)) == (
        f"PRECONDITION_FAILED - invalid type '{type}' for arg 'alternate-exchange'"
        " in exchange 'x' in vhost '/'"
    )
    assert names(made) == []
    assert "reserved prefix" in refusal(made, with_argument(field, "amq.new"))


def test_passive_compares_the_name_alone() -> None:
    made = topology(ExchangeSpec("x", "topic"))
    assert made.require("x").spec.type == "topic"
    with pytest.raises(NotFound) as caught:
        made.require("nope")
    assert caught.value.reply_text == "NOT_FOUND - no exchange 'nope' in vhost '/'"


def test_deleting_what_is_not_there_is_no_error() -> None:
    made = Topology("/")
    assert delete(made, "nope", if_unused=True).exchanges == []
    assert made.epoch == 0


@pytest.mark.parametrize("name", ["amq.direct", "amq.nope"])
def test_system_exchanges_cannot_be_deleted(name: str) -> None:
    with pytest.raises(AccessRefused) as caught:
        delete(Topology("/"), name, if_unused=True)
    assert caught.value.reply_text == (
        f"ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed"
    )


def test_if_unused_looks_at_bindings_as_source() -> None:
    made = topology(ExchangeSpec("x"), ExchangeSpec("end"), to_exchange("x", "end"))
    with pytest.raises(PreconditionFailed) as caught:
        delete(made, "x", if_unused=True)
    assert caught.value.reply_text == "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use"
    assert [spec.name for spec in delete(made, "end", if_unused=True).exchanges] == ["end"]
    assert [spec.name for spec in delete(made, "x", if_unused=True).exchanges] == ["x"]
    assert names(made) == []


def test_a_name_can_be_declared_as_another_type_after_a_delete() -> None:
    made = topology(with_alternate("x", "ae"), to_queue("x", "q", "k"))
    delete(made, "x")
    assert declare(made, ExchangeSpec("x", "topic"))
    assert bindings_from(made, "x") == []


def test_the_version_of_a_type_and_of_the_one_inside_stand_in_their_rows() -> None:
    def delayed(inside: str) -> ExchangeSpec:
        return ExchangeSpec("x", DELAYED, arguments={DELAYED_TYPE: ("S", inside.encode())})

    plain = {name: since_of(ExchangeSpec("x", name)) for name in EXCHANGE_TYPES if name != DELAYED}
    assert {name: since for name, since in plain.items() if since} == {JMS_TOPIC: SELECTS}
    assert since_of(delayed("direct")) == DELAYS
    assert since_of(delayed(JMS_TOPIC)) == SELECTS


# What the checklist at `EXCHANGE_TYPES` asks for

ROOT = Path(__file__).parents[3]

STANDARD = {"direct", "fanout", "topic", "headers"}


def test_the_page_of_exchanges_offers_every_type() -> None:
    page = (ROOT / "broker/protocols/http/pages/views/exchanges.js").read_text()
    types = re.search(r"const TYPES = \[([^]]*)\]", page)
    assert types is not None
    assert set(re.findall(r'"([^"]+)"', types[1])) == EXCHANGE_TYPES.keys()


def test_every_type_that_is_not_of_amqp_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in EXCHANGE_TYPES.keys() - STANDARD if f"`{name}`" not in text] == []


def test_every_type_of_rabbitmq_is_compared_with_it() -> None:
    """x-delayed-message is not: its plugin has to be installed."""
    scenarios = (ROOT / "tests/compat/section_04_types.py").read_text()
    missing = {name for name in EXCHANGE_TYPES.keys() - STANDARD if f'"{name}"' not in scenarios}
    assert missing == {DELAYED}


def test_plugins_of_exchange_types_are_known_wherever_plugins_are() -> None:
    plugins = {name for name in ALWAYS_ENABLED if name.endswith("_exchange")}
    assert {name for name in BUILT_IN if name.endswith("_exchange")} == plugins
    assert PLUGINS.keys() >= plugins
