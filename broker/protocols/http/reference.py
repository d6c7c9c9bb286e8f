"""The page at `/api/index.html`: all endpoints, for who asks the API what there is.

As with RabbitMQ, `/api` leads there, with and without a slash, and it needs no user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus

from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.files import ALWAYS, INDEX, TYPES
from fluffle.broker.protocols.http.responses import Reply

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
    cells = endpoint.method, f"{api}{endpoint.path}", endpoint.may.value, endpoint.summary
    return f"<tr>{''.join(f'<td>{escape(each)}</td>' for each in cells)}</tr>"
