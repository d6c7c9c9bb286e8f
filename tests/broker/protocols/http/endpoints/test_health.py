"""Health checks, and the limits and features around them."""

import sys
from pathlib import Path
from typing import Any, cast

import pytest

from fluffle.broker.config.config import Config
from fluffle.broker.process.certificates import ends_in
from fluffle.broker.protocols.http.endpoints import health
from fluffle.broker.protocols.http.endpoints.health import expiring
from tests.support.certificates import Authority
from tests.support.loop_turns import TurnCounter
from tests.support.management import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_FOUND = 404, {"error": "Object Not Found", "reason": "Not Found"}
OK = 200, {"status": "ok"}
NO_LEADER = "quorum-queues-without-elected-leaders"


def bad(reason: str) -> tuple[int, Any]:
    return 400, {"error": "bad_request", "reason": reason}


async def check(api: Api, name: str) -> tuple[int, Any]:
    return await api.ask("GET", f"health/checks/{name}")


@pytest.mark.parametrize(
    "name",
    [
        "alarms",
        "local-alarms",
        "virtual-hosts",
        "certificate-expiration/1/months",
        f"{NO_LEADER}/all-vhosts",
        f"{NO_LEADER}/all-vhosts/pattern/x",
        f"{NO_LEADER}/vhost/%2F",
        f"{NO_LEADER}/vhost/%2F/pattern/x",
        "metadata-store/initialized",
        "metadata-store/initialized/with-data",
        "is-in-service",
        "ready-to-serve-clients",
    ],
)
async def test_all_is_well(api: Api, name: str) -> None:
    assert await check(api, name) == OK


async def test_a_protocol_is_asked_for_by_several_names(api: Api) -> None:
    addresses = dict.fromkeys(("mqtt", "mqtts", "mqtt-ws-2"), ("::", 1))
    asked = (
        "mqtt",
        "mqtt3.1.1",
        "mqtts",
        "mqtt%2Fssl",
        "web-mqtt",
        "http%2Fweb-mqtt",
        "management",
        "amqp0-9-1",
    )
    bound = cast(dict[str, tuple[str, int]], api.node.parts.addresses)
    bound.update(addresses)
    found = [(await check(api, f"protocol-listener/{each}"))[0] for each in asked]
    rows = {row["protocol"]: row["tls"] for row in (await api.get("overview"))["listeners"]}
    for name in addresses:
        del bound[name]
    assert found == [200] * len(asked)
    assert (rows["mqtt"], rows["mqtt/ssl"], rows["http/web-mqtt"]) == (False, True, False)
    assert (await check(api, "protocol-listener/mqtt"))[0] == 503


async def test_what_all_is_well_with(api: Api) -> None:
    assert await check(api, f"port-listener/{api.amqp_port}") == (
        200,
        {"status": "ok", "port": api.amqp_port},
    )
    assert await check(api, "protocol-listener/amqp091") == (
        200,
        {"status": "ok", "protocol": "amqp091"},
    )
    assert await check(api, "node-is-quorum-critical") == (
        200,
        {"status": "ok", "reason": "single node cluster"},
    )
    assert await check(api, "below-node-connection-limit") == (
        200,
        {"status": "ok", "limit": "infinity", "connections": 0},
    )
    assert await check(api, "reached-target-cluster-size") == (
        200,
        {"status": "ok", "cluster_size": 1, "target_cluster_size": 1},
    )
    assert await api.ask("GET", "aliveness-test/%2F") == OK
    assert await api.ask("GET", "healthchecks/node") == OK
    node = api.node.parts.config.node_name
    assert await api.ask("GET", f"healthchecks/node/{node}") == OK


async def test_aliveness_is_tried(api: Api) -> None:
    await api.ask("PUT", "vhosts/alive", json={"default_queue_type": "quorum"})
    for _ in range(2):  # what the first has left does not disturb the second
        assert await api.ask("GET", "aliveness-test/alive") == OK
    (queue,) = await api.get("queues/alive")
    assert (queue["name"], queue["durable"], queue["messages"]) == ("aliveness-test", False, 0)
    assert (await api.ask("DELETE", "queues/alive/aliveness-test"))[0] == 204
    await api.ask("PUT", "vhost-limits/alive/max-queues", json={"value": 0})
    status, answer = await api.ask("GET", "aliveness-test/alive")
    assert (status, answer["error"]) == (400, "bad_request")
    assert answer["reason"].startswith("406 PRECONDITION_FAILED - cannot declare queue")
    assert (await api.ask("DELETE", "vhosts/alive"))[0] == 204


async def test_aliveness_is_tried_with_the_rights_of_who_asks(api: Api) -> None:
    nothing = {"configure": "", "write": "", "read": ""}
    answer = {"password": "x", "tags": "management", "permissions": {"/": nothing}}
    await api.ask("PUT", "users/prober", json=answer)
    assert await api.ask("GET", "aliveness-test/%2F", user=("prober", "x")) == (
        401,
        {
            "error": "not_authorised",
            "reason": "ACCESS_REFUSED - configure access to queue 'aliveness-test' in vhost '/'"
            " refused for user 'prober'",
        },
    )
    assert (await api.ask("DELETE", "users/prober"))[0] == 204


async def test_nothing_is_alive_where_a_message_cannot_be_kept(api: Api) -> None:
    policy = {"pattern": "^aliveness-test$", "definition": {"max-length": 0}}
    assert (await api.ask("PUT", "policies/%2F/none", json=policy))[0] == 201
    status, answer = await api.ask("GET", "aliveness-test/%2F")
    assert (status, answer["status"]) == (503, "failed")
    assert answer["reason"] == "what was published to 'aliveness-test' is not there"
    assert (await api.ask("DELETE", "policies/%2F/none"))[0] == 204
    assert await api.ask("GET", "aliveness-test/%2F") == OK


async def test_a_node_with_an_alarm_is_alive(api: Api) -> None:
    alarms = api.node.parts.alarms
    alarms.move_memory_watermark(0)
    try:
        assert await api.ask("GET", "aliveness-test/%2F") == OK
    finally:
        alarms.move_memory_watermark(sys.maxsize)


async def test_what_nothing_listens_at(api: Api) -> None:
    status, answer = await check(api, "port-listener/1")
    assert (status, answer["status"], answer["reason"], answer["missing"]) == (
        503,
        "failed",
        "No active listener",
        1,
    )
    assert api.amqp_port in answer["ports"]
    status, answer = await check(api, "protocol-listener/mqtt")
    assert (status, answer["missing"], answer["protocols"]) == (503, "mqtt", ["amqp", "http"])


async def test_who_asks_by_a_pattern_lets_others_have_their_turn(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"name": f"q{number}", "virtual_host": "/"} for number in range(1_000)]
    monkeypatch.setattr(health, "leaderless", lambda _parts: rows)
    others = TurnCounter()
    async with others.counted():
        status, answer = await check(api, f"{NO_LEADER}/all-vhosts/pattern/^(q+)%2B[0-9]*7$")
    assert (status, len(answer["queues"])) == (503, 100)
    assert others.turns >= 250


async def test_what_cannot_be_checked(api: Api) -> None:
    assert await check(api, "port-listener/x") == bad("Invalid port")
    assert await check(api, "certificate-expiration/x/days") == bad("Invalid expiration value.")
    assert await check(api, "certificate-expiration/1/x") == bad(
        "Time unit not recognised. Supported units: days, weeks, months, years."
    )
    assert (await check(api, f"{NO_LEADER}/all-vhosts/pattern/("))[0] == 400
    assert await check(api, f"{NO_LEADER}/vhost/nope") == NOT_FOUND
    assert await api.ask("GET", "aliveness-test/nope") == NOT_FOUND
    assert await api.ask("GET", "healthchecks/node/nope") == NOT_FOUND


async def test_what_is_low_is_reported(api: Api) -> None:
    node, alarms = api.node.parts.config.node_name, api.node.parts.alarms
    alarms.move_memory_watermark(0)
    try:
        answer = [{"node": node, "resource": "memory"}]
        assert await check(api, "alarms") == (
            503,
            {
                "status": "failed",
                "reason": "There are alarms in effect in the cluster",
                "alarms": answer,
            },
        )
        assert await check(api, "local-alarms") == (
            503,
            {
                "status": "failed",
                "reason": "There are alarms in effect on the node",
                "alarms": answer,
            },
        )
    finally:
        alarms.move_memory_watermark(sys.maxsize)


async def test_a_node_that_is_drained_is_not_in_service(api: Api) -> None:
    assert (await api.ask("POST", "fluffle/verbs/node.drain", json={}))[0] == 200
    try:
        assert (await check(api, "is-in-service"))[0] == 503
        assert (await check(api, "ready-to-serve-clients"))[0] == 503
        assert (await check(api, "protocol-listener/amqp"))[0] == 503
        assert (await check(api, "protocol-listener/http"))[0] == 200
    finally:
        assert (await api.ask("POST", "fluffle/verbs/node.revive", json={}))[0] == 200
    assert await check(api, "ready-to-serve-clients") == OK


async def test_certificates_end(tmp_path: Path) -> None:
    cert = Authority(tmp_path).cert_file
    end = max(ends_in(cert))
    config = Config(data_dir=tmp_path, tls_cert=cert)
    row = {"node": "n", "protocol": "amqp/ssl", "ip_address": "::", "port": 1, "tls": True}
    end_ms = int(end.timestamp() * 1000)
    assert list(expiring(config, [row], 0)) == []
    (found,) = expiring(config, [row, {**row, "tls": False}], end_ms + 1)
    assert f"{end:%Y-%m-%d %H:%M:%S}" in found["certfile_expires_on"]
    assert ends_in(tmp_path / "nothing") == []
    (tmp_path / "odd").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
    assert ends_in(tmp_path / "odd") == []


@pytest.mark.parametrize(
    ("path", "one", "other", "key"),
    [
        ("vhost-limits/%2F", "max-queues", "max-connections", ("vhost", "/")),
        ("user-limits/guest", "max-channels", "max-connections", ("user", "guest")),
    ],
)
async def test_limits(api: Api, path: str, one: str, other: str, key: tuple[str, str]) -> None:
    kind, _, _ = path.partition("/")
    assert await api.get(path) == []
    assert await api.ask("PUT", f"{path}/{one}", json={"value": 100}) == (204, None)
    assert await api.ask("PUT", f"{path}/{other}", json={"value": 200}) == (204, None)
    row = dict([key]) | {"value": {one: 100, other: 200}}
    assert await api.get(path) == [row]
    assert await api.get(kind) == [row]
    assert await api.ask("PUT", f"{path}/{one}", json={}) == bad("[{key_missing,value}]")
    assert (await api.ask("PUT", f"{path}/nope", json={"value": 1}))[0] == 400
    assert (await api.ask("PUT", f"{path}/{one}", json={"value": "x"}))[0] == 400
    for name in (one, other, "nope"):
        assert await api.ask("DELETE", f"{path}/{name}") == (204, None)
    assert await api.get(path) == []
    assert await api.ask("GET", f"{kind}/nope") == NOT_FOUND
    assert (await api.ask("DELETE", f"{kind}/nope/{one}"))[0] == 404


async def test_what_is_on_already(api: Api) -> None:
    names = [row["name"] for row in await api.get("feature-flags")]
    assert "quorum_queue" in names
    assert await api.ask("PUT", "feature-flags/quorum_queue/enable", json={}) == (204, None)
    assert await api.ask("PUT", "feature-flags/nope/enable", json={}) == bad("unsupported")
    assert await api.get("deprecated-features") == []
    assert await api.get("deprecated-features/used") == []
    assert await api.ask("DELETE", "reset") == (204, None)
    assert await api.ask("DELETE", "reset/nope") == NOT_FOUND


async def test_who_logs_in_is_counted(api: Api) -> None:
    node = api.node.parts.config.node_name
    assert await api.get(f"auth/attempts/{node}") == [
        {
            "protocol": "amqp091",
            "auth_attempts": 0,
            "auth_attempts_failed": 0,
            "auth_attempts_succeeded": 0,
        }
    ]
    assert await api.get(f"auth/attempts/{node}/source") == []
    assert await api.ask("DELETE", f"auth/attempts/{node}") == (204, None)
    assert await api.ask("GET", "auth/attempts/nope") == NOT_FOUND
