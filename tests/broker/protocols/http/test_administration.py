"""Virtual hosts, users, permissions, policies and definitions, as an administrator sees them."""

from threading import current_thread, main_thread
from typing import Any

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.definitions.file_format import ENTRIES_AT_ONCE
from fluffle.broker.protocols.http import call
from fluffle.broker.protocols.http.endpoints.definitions import checked
from tests.support.loop_turns import TurnCounter
from tests.support.management import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_FOUND = 404, {"error": "Object Not Found", "reason": "Not Found"}
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


def bad(reason: str) -> tuple[int, Any]:
    return 400, {"error": "bad_request", "reason": reason}


async def test_the_overview_says_what_there_is(api: Api) -> None:
    answer = await api.get("overview")
    assert answer["object_totals"] == {
        "channels": 0,
        "connections": 0,
        "consumers": 0,
        "exchanges": 7,
        "queues": 0,
    }
    assert answer["node"] == api.node.parts.config.node_name
    assert {row["protocol"] for row in answer["listeners"]} == {"amqp", "http"}
    assert [row["description"] for row in answer["contexts"]] == ["RabbitMQ Management"]
    assert answer["sample_retention_policies"] == {"global": [600, 3600, 28800, 86400]}
    assert answer["rabbitmq_version"] == api.node.parts.config.product_version


async def test_the_past_has_an_end(api: Api) -> None:
    asked = "overview?lengths_age=60&lengths_incr=5&msg_rates_age=60&msg_rates_incr=5"
    answer = await api.get(asked)
    assert answer["cluster_name"]
    assert len(answer["churn_rates"]["queue_declared_details"]["samples"]) == 13
    status, answer = await api.ask("GET", "overview?lengths_age=60000&lengths_incr=5")
    assert (status, answer["error"]) == (400, "bad_request")
    answer = await api.get("overview?lengths_age=61&lengths_incr=7")
    assert len(answer["queue_totals"]["messages_details"]["samples"]) == 9


async def test_anybody_gets_the_version(api: Api) -> None:
    version = api.node.parts.config.product_version
    assert await api.ask("GET", "version", user=None) == (200, version)
    assert await api.ask("GET", "auth", user=None) == (200, {"oauth_enabled": False})
    assert (await api.ask("GET", "extensions", user=None))[0] == 401


async def test_the_cluster_has_a_name(api: Api) -> None:
    assert await api.get("cluster-name") == {"name": api.node.parts.config.node_name}
    assert await api.ask("PUT", "cluster-name", json={}) == bad("[{key_missing,name}]")
    assert await api.ask("PUT", "cluster-name", json={"name": "meadow"}) == (204, None)
    assert await api.get("cluster-name") == {"name": "meadow"}
    assert (await api.get("global-parameters/cluster_name"))["value"] == "meadow"


async def test_nodes(api: Api) -> None:
    (row,) = await api.get("nodes")
    name = row["name"]
    assert (await api.get(f"nodes/{name}"))["running"] is True
    assert (await api.get(f"nodes/{name}/memory"))["memory"]["total"]["rss"] > 1_000_000
    assert (await api.get(f"nodes/{name}/memory/relative"))["memory"]["total"] == 100
    assert await api.ask("GET", "nodes/nope") == NOT_FOUND
    assert await api.ask("GET", "nodes/nope/memory") == NOT_FOUND


async def test_a_virtual_host_comes_and_goes(api: Api) -> None:
    said = {"description": "d", "tags": "x, y", "default_queue_type": "quorum", "tracing": True}
    assert await api.ask("PUT", "vhosts/a%2Fb", json=said) == (201, None)
    row = await api.get("vhosts/a%2Fb")
    assert row["name"] == "a/b"
    assert row["metadata"] == {
        "description": "d",
        "tags": ["x", "y"],
        "default_queue_type": "quorum",
    }
    assert row["tracing"] is True
    assert row["cluster_state"] == {api.node.parts.config.node_name: "running"}
    assert await api.get("permissions/a%2Fb/guest") == {
        "user": "guest",
        "vhost": "a/b",
        **EVERYTHING,
    }
    assert await api.ask("PUT", "vhosts/a%2Fb", json={"tracing": False}) == (204, None)
    row = await api.get("vhosts/a%2Fb")
    assert (row["description"], row["tags"], row["tracing"]) == ("", [], False)
    assert row["default_queue_type"] == "quorum"
    assert {row["name"] for row in await api.get("vhosts")} == {"/", "a/b"}
    node = api.node.parts.config.node_name
    assert await api.ask("POST", f"vhosts/a%2Fb/start/{node}", json={}) == (204, None)
    failure = "Request to node nope failed with nodedown"
    assert await api.ask("POST", "vhosts/a%2Fb/start/nope") == bad(failure)
    failure = f'Request to node {node} failed with {{no_such_vhost,<<"nope">>}}'
    assert await api.ask("POST", f"vhosts/nope/start/{node}") == bad(failure)
    assert await api.ask("DELETE", "vhosts/a%2Fb") == (204, None)
    assert await api.ask("DELETE", "vhosts/a%2Fb") == NOT_FOUND
    assert await api.ask("GET", "vhosts/a%2Fb") == NOT_FOUND


async def test_definitions_say_what_a_virtual_host_is(api: Api) -> None:
    said = {"description": "d", "tags": "x", "default_queue_type": "quorum"}
    await api.ask("PUT", "vhosts/told", json=said)
    await api.ask("PUT", "vhost-limits/told/max-queues", json={"value": 10})
    answer = await api.get("definitions/told")
    assert (answer["description"], answer["default_queue_type"]) == ("d", "quorum")
    assert answer["limits"] == {"max-queues": 10}
    blank = await api.get("definitions/%2F")
    assert (blank["description"], blank["default_queue_type"], blank["limits"]) == (
        "",
        "classic",
        {},
    )
    assert await api.ask("DELETE", "vhosts/told") == (204, None)


@pytest.mark.parametrize("path", ["definitions", "definitions/%2F"])
async def test_definitions_that_are_known_are_not_sent_again(api: Api, path: str) -> None:
    known = await api.headers("GET", path)
    assert known["etag"] == (await api.headers("GET", path))["etag"]
    seen = {"if-none-match": known["etag"]}
    assert await api.ask("GET", path, headers=seen) == (304, None)
    await api.ask("PUT", "exchanges/%2F/tagged", json={"type": "topic"})
    assert (await api.ask("GET", path, headers=seen))[0] == 200
    assert (await api.ask("DELETE", "exchanges/%2F/tagged"))[0] == 204
    named = await api.headers("GET", f"{path}?download=a%20b.json")
    assert named["content-disposition"] == "attachment; filename=a%20b.json"


@pytest.mark.parametrize("what", ["shovels", "federation-links"])
async def test_nothing_is_moved_between_brokers(api: Api, what: str) -> None:
    assert await api.get(what) == []
    assert await api.get(f"{what}/%2F") == []
    assert await api.ask("GET", f"{what}/nope") == NOT_FOUND


async def test_a_virtual_host_that_is_protected_stays(api: Api) -> None:
    protected = {"protected_from_deletion": True}
    assert await api.ask("PUT", "vhosts/kept", json=protected) == (201, None)
    assert (await api.get("vhosts/kept"))["protected_from_deletion"] is True
    assert await api.ask("DELETE", "vhosts/kept") == (
        412,
        {
            "error": "precondition_failed",
            "reason": "Refusing to delete virtual host 'kept' because it is protected from"
            " deletion",
        },
    )
    assert await api.ask("DELETE", "vhosts/kept/deletion/protection") == (204, None)
    assert await api.ask("POST", "vhosts/kept/deletion/protection") == (204, None)
    assert (await api.ask("DELETE", "vhosts/kept"))[0] == 412
    assert await api.ask("DELETE", "vhosts/kept/deletion/protection") == (204, None)
    assert await api.ask("DELETE", "vhosts/kept") == (204, None)


@pytest.mark.parametrize(
    "body",
    [
        {"default_queue_type": "nope"},
        {"default_queue_type": 5},
        {"tags": 5},
        {"tags": [5]},
        {"description": []},
        {"tracing": "yes"},
        {"protected_from_deletion": "yes"},
        [],
        "x",
    ],
)
async def test_a_virtual_host_of_which_nonsense_is_said(api: Api, body: Any) -> None:
    status, answer = await api.ask("PUT", "vhosts/c", json=body)
    assert (status, answer["error"]) == (400, "bad_request")
    assert await api.ask("GET", "vhosts/c") == NOT_FOUND


async def test_a_user_comes_and_goes(api: Api) -> None:
    assert await api.ask("PUT", "users/u", json={}) == bad("tags_not_present")
    both = {"password": "x", "password_hash": "", "tags": ""}
    assert await api.ask("PUT", "users/u", json=both) == bad(
        "both_password_and_password_hash_are_provided"
    )
    answer = {"password": "x", "tags": "management", "limits": {"max-channels": 3}}
    assert await api.ask("PUT", "users/u", json=answer) == (201, None)
    row = await api.get("users/u")
    stored = row.pop("password_hash")
    assert row == {
        "name": "u",
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["management"],
        "limits": {"max-channels": 3},
    }
    assert (await api.ask("GET", "whoami", user=("u", "x")))[0] == 200
    other = {"password_hash": stored, "tags": ["monitoring", "policymaker"]}
    assert await api.ask("PUT", "users/u", json=other) == (204, None)
    row = await api.get("users/u")
    assert (row["tags"], row["password_hash"]) == (["monitoring", "policymaker"], stored)
    assert "u" in [row["name"] for row in await api.get("users")]
    assert [row["name"] for row in await api.get("users/without-permissions")] == ["u"]
    assert await api.ask("DELETE", "users/u") == (204, None)
    assert await api.ask("DELETE", "users/u") == NOT_FOUND


async def test_who_is_put_with_the_password_that_he_has_is_the_same(api: Api) -> None:
    """Earlier requests of the user go on: only another password, or none, is another user."""
    access, said = api.node.parts.access, {"password": "x", "tags": ""}
    await api.ask("PUT", "users/u", json=said)
    before = access.users["u"]
    await api.ask("PUT", "users/u", json={**said, "tags": "monitoring"})
    now = access.users["u"]
    assert list(now.tags) == ["monitoring"]
    assert access.current(before) is now
    await api.ask("PUT", "users/u", json={**said, "password": "y"})
    assert access.current(before) is None
    await api.ask("PUT", "users/u", json={**said, "password": ""})
    assert access.users["u"].password is None
    assert await api.ask("DELETE", "users/u") == (204, None)


async def test_a_user_comes_with_permissions(api: Api) -> None:
    await api.ask("PUT", "vhosts/granted", json={})
    both = {"/": EVERYTHING, "granted": {**EVERYTHING, "write": "^w"}}
    answer = {"password": "x", "tags": "", "permissions": both}
    assert await api.ask("PUT", "users/u", json=answer) == (201, None)
    assert await api.get("permissions/%2F/u") == {"user": "u", "vhost": "/", **EVERYTHING}
    assert (await api.get("permissions/granted/u"))["write"] == "^w"
    nothing_more: tuple[Any, ...] = ({}, [], None)
    for said in nothing_more:  # what is not named stays
        again = {"password": "x", "tags": "", "permissions": said}
        assert await api.ask("PUT", "users/u", json=again) == (204, None)
    assert len(await api.get("users/u/permissions")) == 2
    listed = {**answer, "permissions": [{"vhost": "/", **EVERYTHING}]}
    status, refused = await api.ask("PUT", "users/w", json=listed)
    assert status == 400
    assert "one entry for each virtual host" in refused["reason"]
    unknown = {**answer, "permissions": {"nope": EVERYTHING}}
    assert await api.ask("PUT", "users/u", json=unknown) == (
        400,
        {"error": "bad_request", "reason": ["no_such_vhost", "nope"]},
    )
    assert await api.ask("DELETE", "users/u") == (204, None)
    assert await api.ask("DELETE", "vhosts/granted") == (204, None)


@pytest.mark.parametrize(
    ("said", "tags"),
    [(True, ["administrator"]), ("true", ["administrator"]), (False, []), ("false", [])],
)
async def test_an_administrator_may_be_made_without_tags(
    api: Api, said: object, tags: list[str]
) -> None:
    assert (await api.ask("PUT", "users/u", json={"password": "x", "administrator": said}))[
        0
    ] == 201
    assert (await api.get("users/u"))["tags"] == tags
    others = {"password": "x", "administrator": said, "tags": "monitoring"}
    assert await api.ask("PUT", "users/u", json=others) == (204, None)
    assert (await api.get("users/u"))["tags"] == ["monitoring"]
    assert await api.ask("DELETE", "users/u") == (204, None)


@pytest.mark.parametrize(
    ("stored", "algorithm"),
    [
        ("aGVsbG8=", "rabbit_password_hashing_sha256"),
        ("aGVsbG8=", "somebodys_password_hashing"),
        ("AA==", "rabbit_password_hashing_md5"),
    ],
)
async def test_a_hash_that_no_password_has_is_kept(
    api: Api, stored: str, algorithm: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = {"password_hash": f" {stored}\n", "hashing_algorithm": algorithm, "tags": "management"}
    assert await api.ask("PUT", "users/u", json=answer) == (201, None)
    row = await api.get("users/u")
    assert (row["password_hash"], row["hashing_algorithm"]) == (stored, algorithm)
    assert (await api.ask("GET", "whoami", user=("u", "hello")))[0] == 401
    (failed,) = (each for each in caplog.records if each.getMessage() == "authentication_failed")
    reason = str(vars(failed)[FIELDS_ATTRIBUTE]["reason"])
    assert reason.startswith("user 'u' has no usable hash: ")
    entry = {"name": "u", "tags": "", "password_hash": stored, "hashing_algorithm": algorithm}
    assert (await api.ask("POST", "definitions", json={"users": [entry]}))[0] == 204
    assert await api.ask("DELETE", "users/u") == (204, None)


async def test_users_of_definitions_come_with_permissions(api: Api) -> None:
    entry = {"name": "u", "tags": "", "password": "x", "permissions": {"/": EVERYTHING}}
    assert (await api.ask("POST", "definitions", json={"users": [entry]}))[0] == 204
    assert await api.get("permissions/%2F/u") == {"user": "u", "vhost": "/", **EVERYTHING}
    assert await api.ask("DELETE", "users/u") == (204, None)


async def test_many_users_go_at_once(api: Api) -> None:
    for name in ("u1", "u2"):
        await api.ask("PUT", f"users/{name}", json={"password_hash": "", "tags": ""})
    assert await api.ask("POST", "users/bulk-delete", json={"users": ["u1", "u2", "nope"]}) == (
        204,
        None,
    )
    assert await api.ask("GET", "users/u1") == NOT_FOUND
    assert (await api.ask("POST", "users/bulk-delete", json={"users": "u1"}))[0] == 400
    assert await api.ask("POST", "users/bulk-delete", json={}) == bad("[{key_missing,users}]")


@pytest.mark.parametrize(
    "body",
    [
        {"password": 5, "tags": ""},
        {"password": "x", "tags": 5},
        {"password": "x", "tags": [5]},
        {"password_hash": "!!!", "tags": ""},
        {"password_hash": 5, "tags": ""},
        {"password_hash": "AAAA", "tags": "", "hashing_algorithm": 5},
        {"password": "x", "tags": "", "limits": []},
        {"password": "x", "administrator": 1},
        {"password": "x", "tags": "", "permissions": "x"},
        {"password": "x", "tags": "", "permissions": {"/": ".*"}},
        {"password": "x", "tags": "", "permissions": {"/": {"configure": ".*"}}},
        {"password": "x", "tags": "", "permissions": {"/": {**EVERYTHING, "read": 5}}},
        {"password": "x", "tags": "", "permissions": {"/": {**EVERYTHING, "read": "("}}},
        {"password": "x", "tags": "", "permissions": {"/": EVERYTHING, "nope": EVERYTHING}},
    ],
)
async def test_a_user_of_whom_nonsense_is_said(api: Api, body: Any) -> None:
    status, answer = await api.ask("PUT", "users/nobody", json=body)
    assert (status, answer["error"]) == (400, "bad_request")
    assert await api.ask("GET", "users/nobody") == NOT_FOUND


async def test_what_is_stored_of_a_password(api: Api) -> None:
    stored = (await api.get("auth/hash_password/a%2Fb"))["ok"]
    await api.ask("PUT", "users/u", json={"password_hash": stored, "tags": "management"})
    assert (await api.ask("GET", "whoami", user=("u", "a/b")))[0] == 200
    assert await api.ask("DELETE", "users/u") == (204, None)


async def test_permissions(api: Api) -> None:
    await api.ask("PUT", "users/p", json={"password_hash": "", "tags": ""})
    path = "permissions/%2F/p"
    assert await api.ask("GET", path) == NOT_FOUND
    assert await api.ask("PUT", path, json={"configure": ""}) == bad(
        "[{key_missing,write},{key_missing,read}]"
    )
    assert await api.ask("PUT", path, json=EVERYTHING) == (201, None)
    assert await api.ask("PUT", path, json=EVERYTHING) == (204, None)
    assert await api.get("users/p/permissions") == [await api.get(path)]
    assert await api.get(path) in await api.get("permissions")
    assert await api.get(path) in await api.get("vhosts/%2F/permissions")
    nobody = bad("vhost_or_user_not_found")
    assert await api.ask("PUT", "permissions/%2F/nope", json=EVERYTHING) == nobody
    assert await api.ask("PUT", "permissions/nope/p", json=EVERYTHING) == nobody
    assert (await api.ask("PUT", path, json=EVERYTHING | {"read": "("}))[0] == 400
    assert (await api.ask("PUT", path, json=EVERYTHING | {"read": 5}))[0] == 400
    assert await api.ask("DELETE", path) == (204, None)
    assert await api.ask("DELETE", path) == NOT_FOUND
    assert await api.ask("GET", "users/nope/permissions") == NOT_FOUND


async def test_permissions_for_topics(api: Api) -> None:
    await api.ask("PUT", "users/t", json={"password_hash": "", "tags": ""})
    path, rights = "topic-permissions/%2F/t", {"write": "^a", "read": ".*"}
    assert await api.ask("GET", path) == NOT_FOUND
    of_topic = {"exchange": "amq.topic", **rights}
    assert await api.ask("PUT", path, json=of_topic) == (201, None)
    assert await api.ask("PUT", path, json={"exchange": "other", **rights}) == (204, None)
    row = {"user": "t", "vhost": "/", **of_topic}
    assert row in await api.get(path)
    assert row in await api.get("topic-permissions")
    assert row in await api.get("users/t/topic-permissions")
    assert row in await api.get("vhosts/%2F/topic-permissions")
    assert await api.ask("DELETE", f"{path}/amq.topic") == (204, None)
    assert [row["exchange"] for row in await api.get(path)] == ["other"]
    assert await api.ask("DELETE", path) == (204, None)
    assert await api.ask("DELETE", path) == NOT_FOUND


@pytest.mark.parametrize("word", ["policies", "operator-policies"])
async def test_policies(api: Api, word: str) -> None:
    path, definition = f"{word}/%2F/p", {"max-length": 1}
    assert await api.ask("GET", path) == NOT_FOUND
    answer: dict[str, Any] = {"pattern": "^zz", "definition": definition}
    assert await api.ask("PUT", path, json=answer) == (201, None)
    more = answer | {"priority": 1, "apply-to": "queues"}
    assert await api.ask("PUT", path, json=more) == (204, None)
    row = {"vhost": "/", "name": "p", **more}
    assert await api.get(path) == row
    assert await api.get(word) == [row]
    assert await api.get(f"{word}/%2F") == [row]
    nowhere = {"error": "not_found", "reason": "vhost_not_found"}
    assert await api.ask("PUT", f"{word}/nope/p", json=answer) == (404, nowhere)
    assert await api.ask("PUT", path, json={}) == bad(
        "[{key_missing,pattern},{key_missing,definition}]"
    )
    wrongs: tuple[dict[str, Any], ...] = (
        {"definition": []},
        {"pattern": "("},
        {"pattern": 5},
        {"priority": "x"},
    )
    for wrong in wrongs:
        assert (await api.ask("PUT", path, json=answer | wrong))[0] == 400
    assert await api.ask("DELETE", path) == (204, None)
    assert await api.ask("DELETE", path) == NOT_FOUND


async def test_parameters(api: Api) -> None:
    limits = {"value": {"max-queues": 10}}
    path = "parameters/vhost-limits/%2F/limits"
    assert await api.get("parameters/vhost-limits") == []
    assert await api.ask("PUT", path, json=limits) == (201, None)
    row = {"vhost": "/", "component": "vhost-limits", "name": "limits", **limits}
    assert await api.get(path) == row
    assert await api.get("parameters") == [row]
    assert await api.get("parameters/vhost-limits/%2F") == [row]
    assert await api.ask("PUT", "parameters/nope/%2F/x", json={}) == bad("[{key_missing,value}]")
    assert (await api.ask("PUT", "parameters/nope/%2F/x", json={"value": 1}))[0] == 400
    assert await api.ask("DELETE", path) == (204, None)
    assert await api.ask("DELETE", path) == NOT_FOUND


async def test_global_parameters(api: Api) -> None:
    path = "global-parameters/g"
    assert await api.ask("PUT", path, json={"value": {"a": 1}}) == (201, None)
    assert await api.ask("PUT", path, json={"value": [None]}) == (204, None)
    assert await api.get(path) == {"name": "g", "value": [None]}
    assert await api.get(path) in await api.get("global-parameters")
    assert await api.ask("DELETE", path) == (204, None)
    assert await api.ask("DELETE", path) == NOT_FOUND


def form(boundary: str, **fields: str) -> dict[str, Any]:
    """A request as a browser sends a form."""
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="x.json"\r\n'
        f"Content-Type: application/json\r\n\r\n{text}\r\n"
        for name, text in fields.items()
    )
    data = f"{''.join(parts)}--{boundary}--\r\n".encode()
    return {"data": data, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


async def test_why_a_policy_was_not_taken_is_said_in_a_line(api: Api) -> None:
    policy = {"vhost": "/", "name": "p", "pattern": "", "definition": {"nope": 1}, "priority": 0}
    status, answer = await api.ask("POST", "definitions", json={"policies": [policy]})
    assert status == 400
    assert answer["reason"].endswith(
        ': Validation failed; [{"nope",1}] are not recognised policy settings'
    )


async def test_what_came_before_an_entry_that_cannot_be_stays(api: Api) -> None:
    rights = {"user": "ghost", "vhost": "/", **EVERYTHING}
    content = {
        "vhosts": [{"name": "before"}],
        "permissions": [rights],
        "exchanges": [{"name": "behind", "vhost": "/", "type": "direct"}],
    }
    status, answer = await api.ask("POST", "definitions", json=content)
    assert status == 400
    assert answer["reason"].endswith(": there is no user 'ghost'")
    assert (await api.get("vhosts/before"))["name"] == "before"
    assert await api.ask("GET", "exchanges/%2F/behind") == NOT_FOUND
    assert await api.ask("DELETE", "vhosts/before") == (204, None)


async def test_definitions_come_as_a_file_of_a_form(api: Api) -> None:
    content = '{"vhosts": [{"name": "formed"}]}'
    sent = form("--x", other="{", file=content)
    assert await api.ask("POST", "definitions", **sent) == (204, None)
    assert (await api.get("vhosts/formed"))["name"] == "formed"
    unreadable = bad("failed_to_parse_json")
    for body in (form("--x", other=content), form("--x"), {**sent, "data": b"--x--"}):
        assert await api.ask("POST", "definitions", **body) == unreadable
    for wrong in ("multipart/form-data", "multipart/form-data; boundary=other"):
        headers = {"content-type": wrong}
        assert await api.ask("POST", "definitions", **{**sent, "headers": headers}) == unreadable
    assert await api.ask("POST", "definitions", **form("b", file="{")) == bad("not_json")
    assert await api.ask("DELETE", "vhosts/formed") == (204, None)


async def test_definitions_go_out_and_in(api: Api) -> None:
    queue = {"name": "q", "durable": True, "auto_delete": False, "arguments": {}}
    answer = {"vhosts": [{"name": "w"}], "queues": [{"vhost": "w", **queue}]}
    assert await api.ask("POST", "definitions", json=answer) == (204, None)
    whole = await api.get("definitions")
    assert "guest" in [user["name"] for user in whole["users"]]
    assert [(each["vhost"], each["name"]) for each in whole["queues"]] == [("w", "q")]
    assert await api.ask("POST", "definitions", json=whole) == (204, None)
    one = await api.get("definitions/w")
    assert one["queues"] == [{"type": "classic", **queue}]
    assert await api.ask("PUT", "vhosts/w2", json={}) == (201, None)
    assert await api.ask("POST", "definitions/w2", json=one) == (204, None)
    assert (await api.get("definitions/w2"))["queues"] == one["queues"]
    for name in ("w", "w2"):
        assert await api.ask("DELETE", f"vhosts/{name}") == (204, None)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"queues": 5},
        {"queues": [5]},
        {"queues": [{"name": "q"}]},
        {"queues": [{"name": "q", "vhost": "nope"}]},
        {"queues": [{"name": "q", "vhost": "/", "arguments": {"x-max-length": "x"}}]},
        {"permissions": [{"user": "nope", "vhost": "/", **EVERYTHING}]},
        {"users": [{"name": "k", "tags": "", "password_hash": "!"}]},
    ],
)
async def test_definitions_that_cannot_be_taken(api: Api, content: Any) -> None:
    status, answer = await api.ask("POST", "definitions", json=content)
    assert (status, answer["error"]) == (400, "bad_request")
    assert await api.ask("GET", "definitions/nope") == bad("vhost_not_found")
    assert await api.ask("POST", "definitions/nope", json={}) == (
        404,
        {"error": "not_found", "reason": "vhost_not_found"},
    )


async def test_definitions_are_checked_some_at_a_time() -> None:
    queues = [{"vhost": "/", "name": name} for name in ("amq.gen", *map(str, range(1_000)))]
    exchanges = [{"vhost": "/", "name": "amq.topic", "type": "topic"}]
    others = TurnCounter()
    async with others.counted():
        pieces = await checked({"queues": queues, "exchanges": exchanges}, None)
    counts = [(category, len(entries)) for category, entries in pieces]
    assert counts == [("exchanges", 0), ("queues", 99), *[("queues", 100)] * 9, ("queues", 1)]
    assert [entry["name"] for _, entries in pieces for entry in entries] == [
        *map(str, range(1_000))
    ]
    assert others.turns >= 1_000 / ENTRIES_AT_ONCE


async def test_entries_that_are_left_out_are_checked_some_at_a_time() -> None:
    exchanges = [{"vhost": "/", "name": f"amq.{n}", "type": "topic"} for n in range(1_000)]
    others = TurnCounter()
    async with others.counted():
        pieces = await checked({"exchanges": exchanges}, None)
    assert [*pieces] == [("exchanges", [])] * 10
    assert others.turns >= 1_000 / ENTRIES_AT_ONCE


async def test_which_entry_cannot_be_is_said_and_none_is_made(api: Api) -> None:
    queues: list[dict[str, Any]] = [{"vhost": "/", "name": str(number)} for number in range(250)]
    content = {"vhosts": [{"name": "before"}], "queues": [*queues, {"name": 5, "vhost": "/"}]}
    status, answer = await api.ask("POST", "definitions", json=content)
    assert (status, answer["reason"]) == (400, "queues, entry 251: 'name' cannot be 5")
    assert await api.ask("GET", "vhosts/before") == NOT_FOUND


async def test_definitions_are_read_beside_the_loop(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    read = call.parsed

    def noted(body: bytes) -> Any:
        threads.append(current_thread())
        return read(body)

    monkeypatch.setattr(call, "parsed", noted)
    assert await api.ask("POST", "definitions", json={"vhosts": []}) == (204, None)
    assert len(threads) == 1
    assert threads[0] is not main_thread()
