"""Out of one node and into another: the second is like the first."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access.access import Permission, TopicPermission, User
from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.access.passwords import PasswordHash
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.file_format import plain, read, table_of
from fluffle.broker.metadata.change import Kind
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.journal import Owner
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.topic_filter import FilterBinding, arguments_of, subscription_of
from fluffle.protocol.wire import to_table
from tests.broker.definitions.test_importer import HASH, empty, import_all
from tests.support.definitions import Editor
from tests.support.exports import export_all, export_vhost

VERSION = "4.3.5"
ARGUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=60), inner),
    max_leaves=8,
)


def filled() -> Catalogue:
    """Catalogue with definitions of each kind."""
    catalogue = empty()
    editor = Editor(catalogue)
    inside = editor.inside("v")
    editor.vhost("v", limits=VhostLimits(max_queues=9))
    editor.vhost("w", metadata={"description": "d", "tags": ["t"]})
    editor.put_user(User("u", PasswordHash(HASH), ("monitoring",), UserLimits(1, 2)))
    editor.put_user(User("certificate"))
    editor.put_permission("u", "v", Permission("a", "b", ""))
    editor.put_topic_permission("u", "v", "x", TopicPermission("c", ""))
    inside.declare_exchange(ExchangeSpec("x", "topic", durable=True))
    inside.declare_exchange(ExchangeSpec("i", "fanout", internal=True))
    arguments = to_table({"x-max-length": 5, "x-unknown": [1, "b", {"c": 1.5}]})
    inside.declare_queue(Declaration("q", durable=True, arguments=arguments))
    inside.declare_queue(Declaration("own", exclusive=True), Owner("a", 0, 1, "c"))
    for destination, kind in (("q", DestinationKind.QUEUE), ("i", DestinationKind.EXCHANGE)):
        inside.bind(Binding("x", destination, kind, "key", to_table({"n": 1})))
        inside.bind(Binding("amq.direct", destination, kind, "key"))
    policy = {"pattern": "", "definition": {"expires": 5}, "apply-to": "all", "priority": 0}
    editor.keep(Kind.POLICY, {"vhost": "v", "name": "p", **policy})
    return catalogue


def again(exported: dict[str, Any], vhost: str = "/") -> Catalogue:
    catalogue = empty()
    Editor(catalogue).vhost(vhost)
    definitions = read(json.dumps(exported), vhost=vhost)
    assert import_all(definitions, catalogue) == []
    return catalogue


def test_what_is_exported_makes_an_equal_node() -> None:
    exported = export_all(filled(), VERSION)
    catalogue = again(exported, "v")
    assert export_all(catalogue, VERSION) == exported
    original = filled()
    assert catalogue.access.users == original.access.users
    assert catalogue.access.permissions == original.access.permissions
    assert catalogue.access.topic_permissions == original.access.topic_permissions
    assert catalogue.vhosts["v"].queues["q"].spec == original.vhosts["v"].queues["q"].spec


def test_subscriptions_are_restored_however_long_their_keys_are() -> None:
    """Listings may hide parts of them; definitions do not."""
    catalogue = filled()
    inside = Editor(catalogue).inside("v")
    subscriptions = [FilterBinding("a/+", 0x2E, 7), FilterBinding("level/" * 60 + "#", 1)]
    for subscription in subscriptions:
        key = subscription.topic_filter.replace("/", ".").replace("+", "*")
        arguments = arguments_of(subscription, key)
        inside.bind(Binding("amq.topic", "q", DestinationKind.QUEUE, key, arguments))
    exported = export_all(catalogue, VERSION)
    imported = again(exported, "v")
    assert export_all(imported, VERSION) == exported
    bindings = imported.vhosts["v"].topology.bindings_to(DestinationKind.QUEUE, "q")
    assert [each for each in map(subscription_of, bindings) if each] == subscriptions
    assert import_all(read(json.dumps(exported)), catalogue) == []
    assert export_all(catalogue, VERSION) == exported, "none is there twice"


def test_what_belongs_to_others_or_to_the_broker_is_not_exported() -> None:
    exported = export_all(filled(), VERSION)
    assert [entry["name"] for entry in exported["queues"]] == ["q"]
    assert [entry["name"] for entry in exported["exchanges"]] == ["x"]
    ends = {(entry["source"], entry["destination"]) for entry in exported["bindings"]}
    assert ends == {("x", "q"), ("amq.direct", "q")}


def test_a_user_is_exported_as_rabbitmq_does() -> None:
    users = export_all(filled(), VERSION)["users"]
    assert users == [
        {
            "name": "u",
            "password_hash": HASH,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["monitoring"],
            "limits": {"max-connections": 1, "max-channels": 2},
        },
        {
            "name": "certificate",
            "password_hash": "",
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
            "limits": {},
        },
    ]


def test_one_virtual_host_becomes_another() -> None:
    catalogue = filled()
    exported = export_vhost(catalogue, catalogue.vhosts["v"], VERSION)
    assert "users" not in exported
    assert "vhost" not in json.dumps(exported["queues"])
    other = again(exported, "elsewhere")
    vhost = other.vhosts["elsewhere"]
    assert vhost.limits == VhostLimits(max_queues=9)
    assert vhost.route("x", ("key",), None)[0] == (vhost.queues["q"],)
    assert [entry["vhost"] for entry in other.kept.policies] == ["elsewhere"]


def test_a_virtual_host_that_is_deleted_leaves_nothing() -> None:
    catalogue = filled()
    Editor(catalogue).delete_vhost("v")
    Editor(catalogue).delete_vhost("never there")
    exported = export_all(catalogue, VERSION)
    assert [vhost["name"] for vhost in exported["vhosts"]] == ["w"]
    assert '"vhost": "v"' not in json.dumps(exported)


@given(st.dictionaries(st.text(max_size=60), ARGUMENTS))
def test_arguments_come_back_as_they_were(arguments: dict[str, Any]) -> None:
    assert plain(table_of(arguments)) == arguments


def test_arguments_that_json_has_no_word_for() -> None:
    table = to_table({"decimal": ("D", (2, 314)), "time": ("T", 5), "octets": b"\xff"})
    assert plain(table) == {"decimal": 3.14, "time": 5, "octets": "\ufffd"}
