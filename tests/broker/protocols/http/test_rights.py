"""Rights by endpoint: each tag of users, with permissions in the virtual host and without."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.management import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAGS = ("", "management", "policymaker", "monitoring", "administrator")
NO_MANAGER = "Not management user"
NO_MONITOR = "Not monitor user"
NO_ADMINISTRATOR = "Not administrator user"
NO_OBJECT = "User not authorised to access object"
NOT_THERE = "User not authorised to access virtual host"

MANAGERS = """
    whoami overview cluster-name extensions feature-flags deprecated-features vhosts policies
    operator-policies vhost-limits user-limits user-limits/guest health/checks/alarms
    healthchecks/node
"""
MONITORS = "nodes nodes/@ nodes/@/memory auth/attempts/@ auth/attempts/@/source"
ADMINISTRATORS = """
    definitions definitions/%2F auth/hash_password/foo vhosts/%2F vhosts/%2F/permissions
    vhosts/%2F/topic-permissions users users/guest users/guest/permissions
    users/guest/topic-permissions users/without-permissions permissions permissions/%2F/guest
    topic-permissions
"""
POLICYMAKERS = "parameters parameters/vhost-limits global-parameters"
POLICYMAKERS_THERE = "parameters/vhost-limits/%2F"
THERE = "policies/%2F operator-policies/%2F"
SEEN_THERE = "vhost-limits/%2F"


def refused(path: str, tag: str, *, is_there: bool) -> str | None:
    """RabbitMQ's reason, as it was asked for it; None where it answers."""
    if not tag:
        return NO_MANAGER
    if tag == "administrator" or path in MANAGERS.split():
        return None
    if path in ADMINISTRATORS.split():
        return NO_ADMINISTRATOR
    if path in MONITORS.split():
        return None if tag == "monitoring" else NO_MONITOR
    if path in POLICYMAKERS.split() or (is_there and path == POLICYMAKERS_THERE):
        return None if tag == "policymaker" else NO_OBJECT
    if path == POLICYMAKERS_THERE:
        return NO_OBJECT
    may = is_there or (path == SEEN_THERE and tag == "monitoring")
    return None if may else NOT_THERE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def users(api: Api) -> None:
    for tag in TAGS:
        for where in ("in", "out"):
            user = {"password": "x", "tags": tag}
            assert (await api.ask("PUT", f"users/{where}-{tag}", json=user))[0] == 201
        blank = dict.fromkeys(("configure", "write", "read"), "")
        assert (await api.ask("PUT", f"permissions/%2F/in-{tag}", json=blank))[0] == 201


async def ask_as(api: Api, method: str, path: str, user: str, **more: Any) -> str | None:
    """Why not; None if it was not refused."""
    path = path.replace("@", api.node.parts.config.node_name)
    status, answer = await api.ask(method, path, user=(user, "x"), **more)
    if status != 401:
        return None
    assert answer["error"] == "not_authorised"
    return str(answer["reason"])


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("where", ["in", "out"])
async def test_who_may_look(api: Api, tag: str, where: str) -> None:
    groups = (MANAGERS, MONITORS, ADMINISTRATORS, POLICYMAKERS, THERE)
    paths = [path for group in groups for path in group.split()]
    for path in (*paths, POLICYMAKERS_THERE, SEEN_THERE):
        why = await ask_as(api, "GET", path, f"{where}-{tag}")
        assert why == refused(path, tag, is_there=where == "in"), path


POLICY = {"pattern": "^zz", "definition": {"max-length": 1}}
CHANGES: tuple[tuple[str, str, Any, str], ...] = (
    ("PUT", "cluster-name", {"name": "c"}, NO_ADMINISTRATOR),
    ("POST", "definitions", {}, NO_ADMINISTRATOR),
    ("POST", "definitions/%2F", {}, NO_ADMINISTRATOR),
    ("DELETE", "reset", None, NO_ADMINISTRATOR),
    ("PUT", "feature-flags/quorum_queue/enable", {}, NO_ADMINISTRATOR),
    ("PUT", "vhosts/w", {}, NO_ADMINISTRATOR),
    ("DELETE", "vhosts/nope", None, NO_ADMINISTRATOR),
    ("POST", "vhosts/nope/deletion/protection", {}, NO_ADMINISTRATOR),
    ("PUT", "users/u", {"tags": ""}, NO_ADMINISTRATOR),
    ("DELETE", "users/nope", None, NO_ADMINISTRATOR),
    ("POST", "users/bulk-delete", {"users": []}, NO_ADMINISTRATOR),
    ("PUT", "permissions/%2F/nope", {}, NO_ADMINISTRATOR),
    ("PUT", "topic-permissions/%2F/nope", {}, NO_ADMINISTRATOR),
    ("PUT", "policies/%2F/p", POLICY, NO_OBJECT),
    ("DELETE", "policies/%2F/nope", None, NO_OBJECT),
    ("PUT", "operator-policies/%2F/p", POLICY, NO_ADMINISTRATOR),
    ("PUT", "parameters/nope/%2F/p", {"value": 1}, NO_OBJECT),
    ("PUT", "global-parameters/g", {"value": 1}, NO_OBJECT),
    ("PUT", "vhost-limits/%2F/max-queues", {"value": 1000}, NO_ADMINISTRATOR),
    ("PUT", "user-limits/guest/max-channels", {"value": 1000}, NO_ADMINISTRATOR),
    ("DELETE", "user-limits/guest/max-channels", None, NO_ADMINISTRATOR),
    ("POST", "fluffle/verbs/ping", {}, NO_ADMINISTRATOR),
)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("tag", TAGS)
async def test_who_may_change(api: Api, tag: str) -> None:
    for method, path, body, reason in CHANGES:
        wanted: str | None = reason
        if tag == "administrator" or (tag == "policymaker" and reason == NO_OBJECT):
            wanted = None
        why = await ask_as(api, method, path, f"in-{tag}", json=body)
        assert why == (wanted if tag else NO_MANAGER), (method, path)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("component", ["operator_policy", "vhost-limits"])
async def test_what_has_a_path_for_administrators_has_no_other(api: Api, component: str) -> None:
    path = f"parameters/{component}/%2F/limits"
    policy = {**POLICY, "priority": 0, "apply-to": "queues"}
    value = policy if component == "operator_policy" else {"max-queues": 1000}
    assert await ask_as(api, "PUT", path, "in-policymaker", json={"value": value}) == NO_OBJECT
    assert (await api.ask("PUT", path, json={"value": value}))[0] in (201, 204)
    assert await ask_as(api, "DELETE", path, "in-policymaker") == NO_OBJECT
    assert (await api.ask("DELETE", path))[0] == 204


@pytest.mark.usefixtures("users")
async def test_who_may_not_does_not_get_in_while_his_body_comes(api: Api) -> None:
    """A virtual host that is not there keeps nobody out: it may be there once the body is."""

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        assert (await api.ask("PUT", "vhosts/late", json={}))[0] == 201
        yield json.dumps(POLICY).encode()[1:]

    why = await ask_as(api, "PUT", "policies/late/p", "in-policymaker", data=body())
    assert why == NO_OBJECT


@pytest.mark.usefixtures("users")
async def test_who_does_not_monitor_sees_where_he_may_go(api: Api) -> None:
    assert (await api.ask("PUT", "vhosts/hidden", json={}))[0] == 201
    for user, seen in (("in-management", False), ("in-monitoring", True)):
        _status, rows = await api.ask("GET", "vhosts", user=(user, "x"))
        assert ("hidden" in [row["name"] for row in rows]) is seen
        _status, answer = await api.ask("GET", "overview", user=(user, "x"))
        assert ("listeners" in answer) is seen
        assert answer["object_totals"]["exchanges"] == (7 * len(rows))
