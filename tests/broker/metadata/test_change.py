"""Facts that end in groups: the same as if each stood there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access.access import Access, Permission, TopicPermission, User
from fluffle.broker.access.limits import VhostLimits, VhostSettings
from fluffle.broker.definitions import catalogue
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.durability.change_codec import decode_proposals, encode_proposals
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import (
    Change,
    Fact,
    FactGroup,
    Key,
    Kind,
    RemovedFacts,
    in_groups,
)
from fluffle.broker.metadata.metadata import LocalMetadata
from fluffle.broker.metadata.state import Proposal
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.journal import Owner
from fluffle.broker.queues.queue_api import Consumer, SharedCredit
from fluffle.broker.routing import changes, topology
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.wire import FieldTable
from tests.broker.durability.test_fact_codec_restart_model import Sink
from tests.broker.metadata.sample_facts import binding, exchange, queue
from tests.support.definitions import Editor, VhostEditor, editor_of, engine_of
from tests.support.fact_recorder import FactRecorder
from tests.support.queue_host import FakeTurn

KEYS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4)


def key_of(vhost: str, key: Any) -> Key:
    """Key of a binding whose value is its routing key."""
    return vhost, "x", "queue", "q", key, b""


def never_named(vhost: str, key: Any) -> Key:
    raise AssertionError((vhost, key))


def group(*keys: str, outlives: bool = True) -> FactGroup:
    return FactGroup(Kind.BINDING, "v", keys, key_of, outlives)


def named(*keys: str, outlives: bool = True) -> tuple[Fact, ...]:
    return tuple(Fact(Kind.BINDING, key_of("v", key), key, outlives) for key in keys)


@given(KEYS, st.booleans(), KEYS, st.sampled_from([(), (exchange(),), (exchange(), queue())]))
def test_groups_are_the_facts_that_they_name(
    some: list[str],
    outlives: bool,
    more: list[str],
    others: tuple[Fact, ...],
) -> None:
    grouped = RemovedFacts((group(*some), group(*more, outlives=outlives)), others)
    facts = (*named(*some), *named(*more, outlives=outlives), *others)
    assert tuple(grouped) == facts
    assert len(grouped) == len(facts)
    assert bool(grouped) == bool(facts)
    assert all(fact in grouped for fact in facts)
    assert binding(key="none") not in grouped
    assert Change(grouped).changes_nothing == (not facts)
    decoded = [decode_proposals(encode_proposals([proposal(each)])) for each in (grouped, facts)]
    assert decoded[0] == decoded[1]


def proposal(removes: RemovedFacts | tuple[Fact, ...]) -> Proposal:
    return Proposal("a", 1, 1, 1, Change(removes), ())


@pytest.mark.parametrize("is_grouped", [(True, False), (False, True), (True, True), (False, False)])
def test_joined_changes_remove_what_both_do(is_grouped: tuple[bool, bool]) -> None:
    changes = [
        Change(RemovedFacts((group(*keys),), (other,)) if grouped else (*named(*keys), other))
        for keys, other, grouped in zip(
            ("ab", "cd"), (exchange(), queue()), is_grouped, strict=True
        )
    ]
    removes = changes[0].joined(changes[1]).removes
    assert sorted(removes, key=str) == sorted((*named(*"abcd"), exchange(), queue()), key=str)
    assert sorted(in_groups(removes), key=str) == sorted(removes, key=str)


def test_what_is_not_recorded_is_not_named() -> None:
    applied: list[Change] = []

    def apply(change: Change) -> tuple[()]:
        applied.append(change)
        return ()

    facts = FactRecorder()
    metadata = LocalMetadata(apply, facts)
    metadata.ensure(lambda: Change(puts=(*named(*"ab"), exchange(), queue())))
    unnamed = FactGroup(Kind.BINDING, "v", "cd", never_named, outlives=False)
    change = Change(RemovedFacts((group("a"), unnamed, group("b")), (exchange(),)))
    metadata.ensure(lambda: change)
    assert set(facts.known) == {queue().name}
    assert applied[-1] is change


OWNER = Owner("a", 0, 1, "c")
QUEUE, EXCHANGE = DestinationKind.QUEUE, DestinationKind.EXCHANGE


@pytest.fixture
def facts() -> FactRecorder:
    return FactRecorder()


@pytest.fixture(params=[0, topology.REMOVED_AT_ONCE])
def removed_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 0 one binding is removed as very many are."""
    for module in (catalogue, changes, topology):
        monkeypatch.setattr(module, "REMOVED_AT_ONCE", request.param)


@pytest.fixture
def vhost(facts: FactRecorder) -> VhostEditor:
    vhost = VirtualHost("v", LocalQueues(FakeTurn()))
    return VhostEditor(vhost, editor_of(vhost, facts=facts))


def new_editor(facts: FactRecorder) -> Editor:
    def make_vhost(name: str) -> VirtualHost:
        return VirtualHost(name, LocalQueues(FakeTurn()))

    return Editor(Catalogue(Access(), {}, make_vhost), facts)


def declare(vhost: VhostEditor, name: str, **flags: Any) -> None:
    vhost.declare_queue(Declaration(name, **flags), OWNER)


def bind(
    vhost: VhostEditor,
    source: str,
    destination: str,
    kind: DestinationKind = QUEUE,
    arguments: FieldTable | None = None,
) -> Binding:
    binding = Binding(source, destination, kind, "k", arguments or {})
    vhost.bind(binding, OWNER)
    return binding


@pytest.mark.parametrize(
    ("flags", "is_reported"),
    [
        ({}, False),
        ({"durable": True}, True),
        ({"durable": True, "auto_delete": True}, True),
        ({"durable": True, "exclusive": True}, False),
        ({"exclusive": True}, False),
    ],
)
def test_durable_queues_are_reported(
    vhost: VhostEditor, facts: FactRecorder, flags: dict[str, bool], is_reported: bool
) -> None:
    declare(vhost, "q", **flags)
    declare(vhost, "q", **flags)
    assert facts.reported == is_reported
    vhost.delete_queue(engine_of(vhost.vhost, "q"))
    assert (facts.reported, facts.known) == (2 * is_reported, {})


@pytest.mark.parametrize("durable", [False, True])
def test_durable_exchanges_are_reported(
    vhost: VhostEditor, facts: FactRecorder, durable: bool
) -> None:
    spec = ExchangeSpec("x", "topic", durable=durable)
    for _ in range(2):
        vhost.declare_exchange(spec)
    assert facts.known == ({(Kind.EXCHANGE, ("v", "x")): spec} if durable else {})
    assert facts.reported == durable
    vhost.delete_exchange("x")
    assert (facts.reported, facts.known) == (2 * durable, {})


@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize("destination", [False, True])
@pytest.mark.parametrize("kind", [QUEUE, EXCHANGE])
@pytest.mark.parametrize("ending", ["unbind", "source", "destination", "vhost"])
@pytest.mark.usefixtures("removed_at_once")
def test_a_binding_is_reported_if_both_its_ends_are_durable(
    facts: FactRecorder, source: bool, destination: bool, kind: DestinationKind, ending: str
) -> None:
    editor = new_editor(facts)
    vhost = editor.inside("v")
    vhost.declare_exchange(ExchangeSpec("s", durable=source))
    if kind is QUEUE:
        declare(vhost, "d", durable=destination)
    else:
        vhost.declare_exchange(ExchangeSpec("d", durable=destination))
    reported_ends = facts.reported
    binding = bind(vhost, "s", "d", kind)
    bind(vhost, "s", "d", kind)
    is_reported = source and destination
    assert facts.reported - reported_ends == is_reported
    assert len(facts.names(Kind.BINDING)) == is_reported
    if ending == "unbind":
        vhost.unbind(binding, OWNER)
    elif ending == "source":
        vhost.delete_exchange("s")
    elif ending == "vhost":
        editor.delete_vhost("v")
        assert facts.known == {}
    elif kind is QUEUE:
        vhost.delete_queue(engine_of(vhost.vhost, "d"))
    else:
        vhost.delete_exchange("d")
    assert facts.names(Kind.BINDING) == []
    assert ending == "vhost" or not list(vhost.vhost.topology.bindings)


def test_what_goes_by_itself_is_taken_back(vhost: VhostEditor, facts: FactRecorder) -> None:
    """A consumer goes, with him his queue, with that a chain of exchanges."""
    declare(vhost, "q", durable=True, auto_delete=True)
    for name in ("x", "y"):
        vhost.declare_exchange(ExchangeSpec(name, durable=True, auto_delete=True))
    bind(vhost, "y", "x", EXCHANGE)
    bind(vhost, "x", "q")
    queue = engine_of(vhost.vhost, "q")
    consumer = Consumer("c", queue, Sink(), shared=SharedCredit(), no_ack=False)
    vhost.vhost.attach(consumer)
    assert len(facts.known) == 5
    vhost.detach(consumer)
    assert facts.known == {}


@pytest.mark.parametrize(
    ("bound", "unbound"),
    [
        ({"a": ("l", 1), "b": ("l", 2)}, {"b": ("l", 2), "a": ("l", 1)}),
        ({"a": ("d", 0.0)}, {"a": ("d", -0.0)}),
        (
            {"a": ("A", [("F", {"x": ("V", None), "y": ("f", 0.0)})])},
            {"a": ("A", [("F", {"y": ("f", -0.0), "x": ("V", None)})])},
        ),
    ],
)
def test_equal_bindings_have_one_name(
    vhost: VhostEditor, facts: FactRecorder, bound: FieldTable, unbound: FieldTable
) -> None:
    declare(vhost, "q", durable=True)
    bind(vhost, "amq.headers", "q", arguments=bound)
    vhost.unbind(Binding("amq.headers", "q", QUEUE, "k", unbound), OWNER)
    assert facts.names(Kind.BINDING) == []


def test_bindings_with_other_tags_have_other_names(vhost: VhostEditor, facts: FactRecorder) -> None:
    declare(vhost, "q", durable=True)
    for tag in "lsI":
        bind(vhost, "amq.headers", "q", arguments={"a": (tag, 1)})
    assert len(facts.names(Kind.BINDING)) == 3


def test_settings_of_a_virtual_host_are_reported(facts: FactRecorder) -> None:
    limits, editor = VhostLimits(max_queues=5), new_editor(facts)
    editor.vhost("v", limits=limits)
    vhost = editor.vhost("v", metadata={"description": "d"})
    editor.vhost("v", metadata={"description": "d"})
    expected = VhostSettings(limits, {"description": "d"})
    assert (facts.known, facts.reported) == ({(Kind.VHOST, ("v",)): expected}, 2)
    assert (vhost.limits, vhost.metadata) == (limits, {"description": "d"})


def test_users_and_their_rights_are_reported(facts: FactRecorder) -> None:
    editor = new_editor(facts)

    def fill() -> None:
        editor.vhost("v")
        editor.put_user(User("u"))
        editor.put_permission("u", "v", Permission())
        editor.put_topic_permission("u", "v", "x", TopicPermission())

    def clear() -> None:
        editor.clear_permission("u", "v")
        editor.clear_topic_permission("u", "v", "x")

    endings: list[tuple[Callable[[], None], set[Kind]]] = [
        (clear, {Kind.USER, Kind.VHOST}),
        (lambda: editor.delete_vhost("v"), {Kind.USER}),
        (lambda: editor.delete_user("u"), {Kind.VHOST}),
    ]
    for end, left in endings:
        fill()
        assert {kind for kind, _ in facts.known} == {
            Kind.USER,
            Kind.VHOST,
            Kind.PERMISSION,
            Kind.TOPIC_PERMISSION,
        }
        for _ in range(2):  # what is gone is reported once
            end()
        assert {kind for kind, _ in facts.known} == left


def test_what_a_virtual_host_has_goes_with_it(facts: FactRecorder) -> None:
    editor = new_editor(facts)
    editor.put_user(User("u"))
    for name in ("v", "w"):
        vhost = editor.inside(name)
        editor.put_permission("u", name, Permission())
        editor.put_topic_permission("u", name, "x", TopicPermission())
        declare(vhost, "q", durable=True)
        declare(vhost, "r")
        vhost.declare_exchange(ExchangeSpec("x", durable=True))
        bind(vhost, "x", "q")
        bind(vhost, "x", "r")
        bind(vhost, "amq.topic", "amq.direct", EXCHANGE)
        editor.keep(Kind.POLICY, {"vhost": name, "name": "p"})
        editor.keep(Kind.PARAMETER, {"vhost": name, "component": "c", "name": "p"})
    editor.keep(Kind.GLOBAL_PARAMETER, {"name": "p"})
    for name, left in (("w", 11), ("v", 2), ("v", 2)):
        editor.delete_vhost(name)
        assert len(facts.known) == left
    assert facts.names(Kind.GLOBAL_PARAMETER) == [("p",)]
