"""The OpenAPI document of the endpoints, and the HTML page that lists them.

Clients can be generated from it, and the API is fuzzed by it.  What an object has in it is as with
RabbitMQ, so answers are described no further than by their status.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from html import escape
from http import HTTPStatus
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.files import ALWAYS, INDEX, TYPES
from fluffle.broker.protocols.http.pagination import COLUMNS, LISTED
from fluffle.broker.protocols.http.responses import JSON, Reply
from fluffle.broker.protocols.http.rights import Right

OPENAPI = "3.1.0"
PATH = "fluffle/openapi.json"
NAME_IN_PATH = re.compile(r"\{(\w+)\}")
WORD = re.compile(r"[A-Za-z0-9]+")
SCHEME = "basic"

PAGED: Mapping[str, Any] = {
    "oneOf": [{"type": "array", "items": {"type": "object"}}, {"type": "object"}]
}
SUCCESSES: Mapping[str, tuple[HTTPStatus, str, Mapping[str, Any] | None]] = {
    "ListingResponse": (
        HTTPStatus.OK,
        "What there is; an object with a page of it if asked for.",
        PAGED,
    ),
    "Row": (HTTPStatus.OK, "What there is.", {"type": "object"}),
    "list": (HTTPStatus.OK, "What there is.", {"type": "array"}),
    "Reply": (HTTPStatus.OK, "What there is.", {}),
    "Created": (HTTPStatus.CREATED, "It is made.", None),
    "None": (HTTPStatus.NO_CONTENT, "It is done.", None),
}
"""Successful responses by what a handler returns: status, description, schema."""

FAILURES: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "What is asked for cannot be.",
    HTTPStatus.UNAUTHORIZED: "Nobody is who he says, or he may not.",
    HTTPStatus.NOT_FOUND: "There is no such object.",
    HTTPStatus.PRECONDITION_FAILED: "It is protected.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too long.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Something is wrong with the node, or it is busy.",
}
ERROR: Mapping[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "reason": {}},
}


def document(endpoints: Iterable[Endpoint], version: str) -> Row:
    """OpenAPI document of endpoints below `/api`, for this version of the node."""
    paths: Row = {}
    for each in endpoints:
        paths.setdefault(f"/{each.path}", {})[each.method.lower()] = operation(each)
    return {
        "openapi": OPENAPI,
        "info": {"title": "fluffle management", "version": version},
        "servers": [{"url": "/api"}],
        "paths": paths,
        "components": {
            "securitySchemes": {SCHEME: {"type": "http", "scheme": "basic"}},
            "schemas": {"Error": ERROR},
        },
        "security": [{SCHEME: []}],
    }


def operation(endpoint: Endpoint) -> Row:
    """Operation object of one method of one path."""
    words = WORD.findall(f"{endpoint.method.lower()} {endpoint.path}")
    found: Row = {
        "operationId": "_".join(words),
        "summary": endpoint.summary,
        "tags": [endpoint.path.partition("/")[0]],
        "parameters": [*names_in(endpoint.path), *queries_of(endpoint)],
        "responses": responses(endpoint),
    }
    if endpoint.body is not None:
        is_required = bool(endpoint.body.get("required"))
        content = {JSON: {"schema": dict(endpoint.body)}}
        found["requestBody"] = {"required": is_required, "content": content}
    if endpoint.required_right is Right.ANYBODY:
        found["security"] = []
    else:
        found["x-right"] = endpoint.required_right.value
    return found


def names_in(path: str) -> list[Row]:
    """The segments of a path that are names."""
    text = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in NAME_IN_PATH.findall(path)
    ]


def queries_of(endpoint: Endpoint) -> list[Row]:
    """Query parameters of an endpoint: those of listings or single objects, and its own."""
    names = returned(endpoint)
    common = LISTED if "ListingResponse" in names else COLUMNS if "Row" in names else {}
    queries = {**common, **endpoint.query}
    return [
        {"name": name, "in": "query", "description": what, "schema": {"type": "string"}}
        for name, what in queries.items()
    ]


def returned(endpoint: Endpoint) -> list[str]:
    """The names of the types that its handler may return."""
    handler = endpoint.handler
    function = handler.func if isinstance(handler, partial) else handler
    return WORD.findall(str(function.__annotations__["return"]))


def responses(endpoint: Endpoint) -> Row:
    """Responses of an endpoint by status."""
    found: Row = {}
    for name in returned(endpoint):
        if name in SUCCESSES:
            status, what, schema = SUCCESSES[name]
            content = {} if schema is None else {"content": {JSON: {"schema": schema}}}
            found[str(status.value)] = {"description": what, **content}
            if name == "list":
                break  # what is in it says nothing
    error = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return found | {
        str(status.value): {"description": what, "content": error}
        for status, what in FAILURES.items()
    }


def describing(endpoints: Iterable[Endpoint]) -> Endpoint:
    """Where the document is served that is about these endpoints and itself."""

    async def show(call: Call) -> Row:
        return document((*described, own), call.context.config.version)

    described = tuple(endpoints)
    own = Endpoint("GET", PATH, Right.ANYBODY, show, "This document.")
    return own


TITLE = "fluffle management HTTP API"


def reference(api: str, endpoints: Iterable[Endpoint]) -> Mapping[str, Reply]:
    """Replies by path; `api` is what stands before the paths of endpoints."""
    page = f"{api}{INDEX}"
    found = Reply(HTTPStatus.MOVED_PERMANENTLY, headers={"location": page})
    body = html(api, endpoints).encode()
    shown = Reply(HTTPStatus.OK, body, TYPES["html"], ALWAYS)
    return {api: found, api.removesuffix("/"): found, page: shown}


def html(api: str, endpoints: Iterable[Endpoint]) -> str:
    """A table of them."""
    rows = "".join(row(api, each) for each in endpoints)
    head = f'<meta charset="utf-8"><title>{TITLE}</title>'
    return f"<!DOCTYPE html><html><head>{head}</head><body><h1>{TITLE}</h1><table>{rows}</table>"


def row(api: str, endpoint: Endpoint) -> str:
    """The row of one endpoint, with the right that it asks for."""
    cells = (
        endpoint.method,
        f"{api}{endpoint.path}",
        endpoint.required_right.value,
        endpoint.summary,
    )
    return f"<tr>{''.join(f'<td>{escape(each)}</td>' for each in cells)}</tr>"
