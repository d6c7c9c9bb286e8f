"""Import of definitions: its effects, what it leaves alone, and what ends it."""

import asyncio
import json
from typing import Any

import pytest

from fluffle.broker.access.access import Access, Permission, TopicPermission, User
from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.access.passwords import PasswordHash, matches
from fluffle.broker.base.errors import DeleteProtected
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import doom
from fluffle.broker.definitions.file_format import (
    ENTRIES_AT_ONCE,
    Definitions,
    DefinitionsError,
    read,
)
from fluffle.broker.definitions.importer import import_definitions
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.arguments import DURATION_MS_MAX
from fluffle.broker.queues.settings import settings_of
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.support.definitions import Editor
from tests.support.exports import export_all
from tests.support.loop_turns import TurnCounter
from tests.support.queue_host import FakeTurn

HASH = "O751Ptex24hgk3T2j0yhCE5FTrHd8CJ/JCEeiBbdfeGtx9U1"
"""Hash of `secret`, made by RabbitMQ 4.0.5."""


def empty() -> Catalogue:
    return Catalogue(Access(), {}, lambda name: VirtualHost(name, LocalQueues(FakeTurn())))


def imported(catalogue: Catalogue | None = None, **content: list[dict[str, Any]]) -> Catalogue:
    """A catalogue with a virtual host `v`, and these definitions, all of which are taken."""
    catalogue = catalogue or empty()
    Editor(catalogue).vhost("v")
    assert import_all(read(json.dumps(cluster(content))), catalogue) == []
    return catalogue


def skipped(**content: list[dict[str, Any]]) -> list[str]:
    catalogue = empty()
    Editor(catalogue).vhost("v")
    return import_all(read(json.dumps(cluster(content))), catalogue)


def import_all(definitions: Definitions, catalogue: Catalogue) -> list[str]:
    """Texts about skipped definitions."""
    return asyncio.run(import_definitions(definitions, catalogue, Editor(catalogue).metadata))


def cluster(content: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {"rabbitmq_definition_format": "cluster", **content}


QUORUM_BY_DEFAULT = {"default_queue_type": "quorum"}


def queue(name: str, **more: Any) -> dict[str, Any]:
    return {"vhost": "v", "name": name, "durable": True, "arguments": {}} | more


def exchange(name: str, **more: Any) -> dict[str, Any]:
    return {"vhost": "v", "name": name, "type": "direct", "arguments": {}} | more


def binding(source: str, destination: str, **more: Any) -> dict[str, Any]:
    return {
        "vhost": "v",
        "source": source,
        "destination": destination,
        "destination_type": "queue",
        "routing_key": "key",
        "arguments": {},
    } | more


def permission(**more: str) -> dict[str, Any]:
    return {"vhost": "v", "user": "u", "configure": "", "write": "^a", "read": ".*"} | more


def test_a_user_keeps_his_password() -> None:
    entry = {
        "name": "u",
        "password_hash": HASH,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["monitoring", "impersonator"],
        "limits": {"max-connections": 3, "max-channels": -1},
    }
    user = imported(users=[entry]).access.users["u"]
    assert user == User(
        "u", PasswordHash(HASH), ("monitoring", "impersonator"), UserLimits(3, max_channels=-1)
    )
    assert user.password is not None
    assert matches(user.password, b"secret")


PERMISSION = {"configure": "", "write": "", "read": ""}


@pytest.mark.parametrize("fields", [{"password_hash": HASH}, {"password": "secret"}])
def test_without_an_algorithm_it_is_sha256(fields: dict[str, str]) -> None:
    entry = {"name": "u", "tags": "administrator, other", **fields}
    user = imported(users=[entry]).access.users["u"]
    assert user.tags == ("administrator", "other")
    assert user.password is not None
    assert matches(user.password, b"secret")


@pytest.mark.parametrize("fields", [{}, {"password_hash": ""}, {"password": ""}])
def test_a_user_without_a_password(fields: dict[str, str]) -> None:
    assert imported(users=[{"name": "u", **fields}]).access.users["u"].password is None


def test_permissions_and_limits() -> None:
    catalogue = imported(
        users=[{"name": "u"}],
        vhosts=[{"name": "w", "metadata": {"description": "d"}, "limits": {"max-queues": 1}}],
        permissions=[permission()],
        topic_permissions=[{"vhost": "v", "user": "u", "exchange": "x", "write": "a", "read": "b"}],
        parameters=[
            {
                "vhost": "v",
                "component": "vhost-limits",
                "name": "limits",
                "value": {"max-connections": 2},
            }
        ],
    )
    access, vhosts = catalogue.access, catalogue.vhosts
    assert access.permissions == {("u", "v"): Permission("", "^a", ".*")}
    assert access.topic_permissions == {("u", "v", "x"): TopicPermission("a", "b")}
    assert vhosts["v"].limits == VhostLimits(max_connections=2)
    assert (vhosts["w"].metadata, vhosts["w"].limits) == ({"description": "d"}, VhostLimits())


@pytest.mark.parametrize(
    ("entry", "description", "tags"),
    [
        ({}, "", []),
        ({"metadata": {}}, "", []),
        ({"metadata": {"description": "new"}}, "new", []),
        ({"description": "new", "tags": ["b"]}, "new", ["b"]),
        ({"tags": "b, c", "metadata": {"description": "d", "tags": ["a"]}}, "d", ["b", "c"]),
    ],
)
def test_what_a_virtual_host_says_of_itself_is_as_definitions_have_it(
    entry: dict[str, Any], description: str, tags: list[str]
) -> None:
    """RabbitMQ 4.0.5 does so, and leaves the rest, such as the default queue type, as it was."""
    before = {"description": "old", "tags": ["a"], "default_queue_type": "quorum"}
    catalogue = imported(vhosts=[{"name": "w", "metadata": before}])
    imported(catalogue, vhosts=[{"name": "w", **entry}])
    said = {"description": description, "tags": tags, "default_queue_type": "quorum"}
    assert catalogue.vhosts["w"].metadata == said


def test_protection_is_a_truth_value() -> None:
    entry = {"name": "w", "metadata": {"protected_from_deletion": "true"}}
    with pytest.raises(DefinitionsError, match="'protected_from_deletion' is neither true nor"):
        imported(vhosts=[entry])


def test_what_definitions_do_not_say_of_a_virtual_host_stays() -> None:
    kept = {"protected_from_deletion": True, "default_queue_type": "quorum"}
    catalogue = imported(vhosts=[{"name": "w", "metadata": {**kept, "description": "old"}}])
    imported(catalogue, vhosts=[{"name": "w", "metadata": {"description": "new"}}])
    assert catalogue.vhosts["w"].metadata == {**kept, "description": "new"}
    with pytest.raises(DeleteProtected):
        doom(catalogue, "w")


def test_exchanges_queues_and_bindings() -> None:
    vhost = imported(
        exchanges=[
            exchange("x", type="topic", arguments={"alternate-exchange": "y"}),
            exchange("i", internal=True, durable=False, auto_delete=True),
        ],
        queues=[queue("q", arguments={"x-max-length": 5, "x-f": 1.5}), queue("r", durable=False)],
        bindings=[
            binding("x", "q", arguments={"n": 1}),
            binding("x", "i", destination_type="exchange"),
        ],
    ).vhosts["v"]
    spec = vhost.topology.require("x").spec
    assert (spec.type, spec.durable, spec.arguments) == (
        "topic",
        True,
        {"alternate-exchange": ("S", b"y")},
    )
    assert vhost.topology.require("i").spec.internal
    assert settings_of(vhost.queues["q"].spec).max_length == 5
    assert vhost.queues["q"].spec.arguments["x-f"] == ("d", 1.5)
    assert not vhost.queues["r"].spec.durable
    assert vhost.route("x", ("key",), None)[0] == (vhost.queues["q"],)
    (to_exchange,) = vhost.topology.bindings_to(DestinationKind.EXCHANGE, "i")
    assert to_exchange.source == "x"


def test_an_import_adds_and_changes_no_queue_or_exchange() -> None:
    catalogue = imported(queues=[queue("q", arguments={"x-max-length": 5})])
    imported(
        catalogue,
        queues=[queue("q", durable=False), queue("r")],
        exchanges=[exchange("x")],
    )
    imported(catalogue, exchanges=[exchange("x", type="fanout")])
    vhost = catalogue.vhosts["v"]
    assert settings_of(vhost.queues["q"].spec).max_length == 5
    assert vhost.topology.require("x").spec.type == "direct"
    assert list(vhost.queues) == ["q", "r"]


def test_what_is_kept_as_it_came() -> None:
    policy = {
        "vhost": "v", "name": "p", "apply-to": "all", "priority": 0, "pattern": "^x",
        "definition": {"max-length": 5},
    }  # fmt: skip
    shovel = {"vhost": "v", "component": "shovel", "name": "s", "value": {"src-uri": "amqp://"}}
    names = [{"name": "cluster_name", "value": "c"}, {"name": "internal_cluster_id", "value": "i"}]
    catalogue = imported(policies=[policy], parameters=[shovel], global_parameters=names)
    imported(catalogue, policies=[policy | {"pattern": "^y"}], parameters=[shovel])
    kept = catalogue.kept
    assert kept.policies == [policy | {"pattern": "^y"}]
    assert (kept.parameters, kept.global_parameters) == ([shovel], names[:1])


@pytest.mark.parametrize("ttl_ms", [2**44, 2**63 - 1, 10**30])
def test_no_policy_has_messages_live_for_more_than_ten_years(ttl_ms: int) -> None:
    policy = {"vhost": "v", "name": "p", "pattern": "^x", "definition": {"message-ttl": ttl_ms}}
    catalogue = imported(policies=[policy], queues=[queue("x")])
    spec = catalogue.vhosts["v"].queues["x"].spec
    assert catalogue.policies.settings_of("v", spec).message_ttl_ms == DURATION_MS_MAX
    [kept] = catalogue.kept.policies
    assert kept["definition"] == {"message-ttl": ttl_ms}


def test_policies_take_effect_and_bad_ones_are_skipped() -> None:
    policy = {"vhost": "v", "name": "p", "pattern": "^x", "definition": {"max-length": 5}}
    operators = {"pattern": "", "definition": [["max-length", 4]], "priority": 1}
    parameter = {"vhost": "v", "component": "operator_policy", "name": "o", "value": operators}
    catalogue = imported(policies=[policy], parameters=[parameter], queues=[queue("x")])
    [row] = catalogue.kept.parameters
    assert row["value"]["definition"] == {"max-length": 4}
    in_force = catalogue.policies.for_queue("v", catalogue.vhosts["v"].queues["x"].spec)
    assert in_force.definition == {"max-length": 4}
    bad = parameter | {"value": operators | {"definition": {"alternate-exchange": "x"}}}
    assert skipped(policies=[policy | {"definition": {"max-length": "5"}}], parameters=[bad]) == [
        "policies, vhost 'v' name 'p': Validation failed\n\n"
        '<<"5">> is not a valid maximum length\n',
        "parameters, vhost 'v' name 'o': Validation failed\n\n"
        '[{<<"alternate-exchange">>,<<"x">>}] are not recognised policy settings\n',
    ]


def test_reserved_names_and_what_is_refused_are_skipped() -> None:
    reasons = skipped(
        exchanges=[exchange("amq.x"), exchange(""), exchange("d", type="x-no-such")],
        queues=[queue("amq.q"), queue("n", arguments={"x-max-length": "a"}), queue("good")],
        bindings=[binding("d", "good"), binding("amq.direct", "good")],
    )
    assert reasons == [
        "exchanges, vhost 'v' name 'amq.x': such names are the broker's own",
        "exchanges, vhost 'v' name '': such names are the broker's own",
        "exchanges, vhost 'v' name 'd': unknown exchange type 'x-no-such'",
        "queues, vhost 'v' name 'amq.q': such names are the broker's own",
        "queues, vhost 'v' name 'n': invalid arg 'x-max-length' for queue 'n' in vhost 'v': "
        '"expected integer, got longstr"',
        "bindings, vhost 'v' source 'd' destination 'good': no exchange 'd' in vhost 'v'",
    ]


def test_names_that_no_frame_holds_are_skipped() -> None:
    """A message that came by such an exchange or key could be given to nobody."""
    reasons = skipped(
        exchanges=[exchange("x" * 255), exchange("é" * 128)],
        queues=[queue("q" * 256), queue("good")],
        bindings=[binding("x" * 255, "good", routing_key="k" * count) for count in (255, 256)],
    )
    assert [reason.rpartition(": ")[2] for reason in reasons] == [
        "a name has at most 255 bytes",
        "a name has at most 255 bytes",
        "a routing key has at most 255 bytes",
    ]


def test_a_queue_type_that_is_not_there_is_skipped_and_not_another() -> None:
    (reason,) = skipped(queues=[queue("q", arguments={"x-queue-type": "stream"})])
    assert reason.startswith("queues, vhost 'v' name 'q': ")
    assert "stream" in reason


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"permissions": [permission(user="w")]},
            "permissions, vhost 'v' user 'w': there is no user",
        ),
        ({"permissions": [permission(vhost="w")]}, "there is no virtual host 'w'"),
        ({"permissions": [permission(read="(")]}, "cannot use the regular expression '('"),
        (
            {
                "topic_permissions": [
                    {"vhost": "v", "user": "u", "exchange": "x", "write": "(", "read": ""}
                ]
            },
            "topic_permissions, vhost 'v' user 'u' exchange 'x': cannot use",
        ),
        ({"users": [{"name": "w", "password_hash": "AAA"}]}, "users, name 'w': the password hash"),
        (
            {"users": [{"name": "w", "permissions": {"nope": PERMISSION}}]},
            "there is no virtual host 'nope'",
        ),
        (
            {"users": [{"name": "w", "permissions": {"v": {**PERMISSION, "read": "("}}}]},
            "users, name 'w': cannot use",
        ),
        (
            {"users": [{"name": "w", "limits": {"max-channels": "2"}}]},
            "'max-channels' is no number",
        ),
        ({"queues": [queue("q", vhost="w")]}, "there is no virtual host 'w'"),
        ({"queues": [queue("q", arguments={"n": 2**63})]}, "is too large for an argument"),
    ],
)
def test_what_ends_an_import(content: dict[str, list[dict[str, Any]]], text: str) -> None:
    catalogue = imported(users=[{"name": "u"}])
    with pytest.raises(DefinitionsError) as refused:
        import_all(read(json.dumps(cluster(content))), catalogue)
    assert text in str(refused.value)


def test_a_queue_without_a_type_is_of_the_default_type_of_its_virtual_host() -> None:
    catalogue = imported(
        vhosts=[{"name": "v", "metadata": QUORUM_BY_DEFAULT}],
        queues=[
            queue("lasting"),
            queue("passing", auto_delete=True),
            queue("said", arguments={"x-queue-type": "classic"}),
            queue("said beside", type="classic"),
        ],
    )
    types = {q.name: q.spec.queue_type.value for q in catalogue.vhosts["v"].queues.values()}
    assert types == {
        "lasting": "quorum",
        "passing": "classic",
        "said": "classic",
        "said beside": "quorum",
    }


def test_queues_keep_their_type_where_another_one_is_the_default() -> None:
    catalogue = imported(vhosts=[{"name": "v"}], queues=[queue("early")])
    import_all(
        read(json.dumps(cluster({"vhosts": [{"name": "v", "metadata": QUORUM_BY_DEFAULT}]}))),
        catalogue,
    )
    again = empty()
    import_all(read(json.dumps(export_all(catalogue, "4.3.5"))), again)
    assert again.vhosts["v"].queues["early"].spec.queue_type == "classic"


def test_the_queue_of_an_mqtt_session_takes_each_message_once() -> None:
    catalogue = imported(
        vhosts=[{"name": "v"}], queues=[queue("mqtt-subscription-cqos1"), queue("orders")]
    )
    guarantees = {q.name: q.spec.guarantee.value for q in catalogue.vhosts["v"].queues.values()}
    assert guarantees == {"mqtt-subscription-cqos1": "exactly-once", "orders": "at-least-once"}


async def test_others_have_their_turn_in_between() -> None:
    catalogue, others = empty(), TurnCounter()
    Editor(catalogue).vhost("v")
    definitions = read(json.dumps(cluster({"queues": [queue(f"q{n}") for n in range(1_000)]})))
    async with others.counted():
        await import_definitions(definitions, catalogue, Editor(catalogue).metadata)
    assert [*catalogue.vhosts["v"].queues] == [f"q{n}" for n in range(1_000)]
    assert others.turns >= 1_000 / ENTRIES_AT_ONCE
