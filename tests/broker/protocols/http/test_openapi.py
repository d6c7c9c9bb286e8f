"""The OpenAPI document says of each endpoint what a client needs, and of nothing else."""

import re
from typing import Any

import pytest

from fluffle.broker.protocols.http.endpoints import TABLE
from fluffle.broker.protocols.http.openapi import document
from fluffle.broker.protocols.http.server import DEFINED_PATHS
from tests.support.management import Api

Operation = dict[str, Any]
METHODS = {"get", "put", "post", "delete"}

OF_NO_DEFINITIONS = {
    "aliveness-test", "auth", "channels", "cluster-name", "connections", "consumers",
    "deprecated-features", "extensions", "feature-flags", "federation-links", "health",
    "healthchecks", "nodes", "overview", "rebalance", "reset", "shovels", "version", "whoami",
}  # fmt: skip
"""First parts of the paths of endpoints that look for nothing that is defined."""


def operations() -> list[tuple[str, str, Operation]]:
    paths = document(TABLE.endpoints, "1")["paths"]
    return [(path, method, each) for path, all_ in paths.items() for method, each in all_.items()]


def test_each_endpoint_is_there_once() -> None:
    found = {(method.upper(), path[1:]) for path, method, _ in operations()}
    assert found == {(each.method, each.path) for each in TABLE.endpoints}
    names = [each["operationId"] for _, _, each in operations()]
    assert len(names) == len(set(names))
    assert {method for _, method, _ in operations()} <= METHODS


def test_each_first_part_of_a_path_is_of_definitions_or_not() -> None:
    parts = {each.path.partition("/")[0] for each in TABLE.endpoints}
    assert parts == DEFINED_PATHS | OF_NO_DEFINITIONS
    assert not DEFINED_PATHS & OF_NO_DEFINITIONS


def test_each_name_in_a_path_is_a_parameter() -> None:
    for path, _, each in operations():
        names = [row["name"] for row in each["parameters"] if row["in"] == "path"]
        assert names == re.findall(r"\{(\w+)\}", path)
        assert all(row["required"] for row in each["parameters"] if row["in"] == "path")


def test_each_answer_is_described() -> None:
    for path, method, each in operations():
        good = [status for status in each["responses"] if status.startswith("2")]
        assert good, (method, path)
        assert all(row["description"] for row in each["responses"].values())


def test_what_is_read_has_a_schema() -> None:
    for path, method, each in operations():
        (endpoint,) = [
            e for e in TABLE.endpoints if (e.method, f"/{e.path}") == (method.upper(), path)
        ]
        assert ("requestBody" in each) == (endpoint.body is not None)
        if endpoint.body is not None:
            check_schema(endpoint.body)


def check_schema(schema: Any) -> None:
    """Check that a schema uses known words of JSON Schema correctly."""
    known = {"type", "properties", "required", "items", "anyOf", "enum", "default", "description"}
    known |= {"minimum", "maximum", "additionalProperties", "maxItems"}
    assert schema.keys() <= known, schema
    for inner in schema.get("properties", {}).values():
        check_schema(inner)
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])):
        check_schema(inner)
    assert set(schema.get("required", ())) <= schema.get("properties", {}).keys()


def test_a_list_can_be_asked_for_by_the_page() -> None:
    (vhosts,) = [
        each for path, method, each in operations() if (path, method) == ("/vhosts", "get")
    ]
    assert "page_size" in [row["name"] for row in vhosts["parameters"]]
    assert "200" in vhosts["responses"]


@pytest.mark.asyncio(loop_scope="module")
async def test_it_is_served_to_anybody(api: Api) -> None:
    status, answer = await api.ask("GET", "fluffle/openapi.json", user=None)
    assert status == 200
    assert answer == document(TABLE.endpoints, api.node.parts.config.version)
