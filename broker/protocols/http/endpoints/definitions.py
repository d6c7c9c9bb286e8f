"""definitions: everything that clients and operators have made, out and in, as RabbitMQ's JSON."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import replace
from hashlib import sha256
from http import HTTPStatus
from itertools import islice
from typing import Any
from urllib.parse import quote

from fluffle.broker.admin.context import Row, in_own_thread
from fluffle.broker.definitions.file_format import (
    ENTRIES_AT_ONCE,
    ORDER,
    DefinitionsError,
    entries_of,
)
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import LONG_BODY_BYTES_MAX, OBJECT, Routes
from fluffle.broker.protocols.http.endpoints.overview import cluster_name
from fluffle.broker.protocols.http.files import is_known
from fluffle.broker.protocols.http.pagination import shown
from fluffle.broker.protocols.http.responses import Reply, as_json, bad_request
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.routing.exchange import RESERVED_PREFIX

routes = Routes()

FORM = "multipart/form-data"
BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
NAME = re.compile(rb';[ \t]*name=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
LINE_END = b"\r\n"
PARTS_MAX = 100
FILE = "file"
UNREADABLE = "failed_to_parse_json"
"""Error of RabbitMQ for a form without a file."""


def uploaded(call: Call) -> Call:
    """With the file in the place of the form that it came in, if it came in one.  Refusal."""
    content_type = call.headers.get("content-type", "")
    if not content_type.lower().startswith(FORM):
        return call
    boundary = BOUNDARY.search(content_type)
    if boundary is None:
        raise bad_request(UNREADABLE)
    file = field(call.body, boundary[1] or boundary[2], FILE)
    if file is None:
        raise bad_request(UNREADABLE)
    return replace(call, body=file)


def field(form: bytes, boundary: str, name: str) -> bytes | None:
    """Content of the form field `name`; None if the first parts have none."""
    mark = LINE_END + b"--" + boundary.encode(errors="surrogateescape")
    whole = LINE_END + form
    start = whole.find(mark)
    for _ in range(PARTS_MAX):
        end = whole.find(mark, start + len(mark))
        if start < 0 or end < 0:
            return None
        head, blank, content = whole[start + len(mark) : end].partition(2 * LINE_END)
        said = NAME.search(head)
        if blank and said is not None and (said[1] or said[2]) == name.encode():
            return content
        start = end
    return None


REASONS_MAX = 10
"""Entries that were not taken and are named in the answer."""


@routes.get("definitions", Right.ADMINISTRATOR, "All that was made.")
async def export_all(call: Call) -> Row | Reply:
    """Everything."""
    name = cluster_name(call.context)
    explanation = f"Definitions of cluster '{name}'"
    definitions = {
        **product(call),
        **await exported(call),
        "original_cluster_name": name,
        "explanation": explanation,
    }
    return await tagged(call, definitions)


async def tagged(call: Call, definitions: Row) -> Reply:
    """With a tag, so that a client that has them already need not read them again; `download` names
    the file that a browser makes of them."""
    body = await in_own_thread(lambda: as_json(shown(definitions, call.query)))
    headers = {"etag": f'"{sha256(body).hexdigest()[:24]}"'}
    if is_known(headers["etag"], call.headers.get("if-none-match", "")):
        return Reply(HTTPStatus.NOT_MODIFIED, headers=headers)
    if name := call.query.get("download"):
        headers["content-disposition"] = f"attachment; filename={quote(name)}"
    return Reply(HTTPStatus.OK, body, headers=headers)


@routes.get("definitions/{vhost}", Right.ADMINISTRATOR, "What was made in a virtual host.")
async def export_vhost(call: Call) -> Row | Reply:
    """Definitions of one virtual host, without its users."""
    name = call.path["vhost"]
    if name not in call.context.catalogue.vhosts:
        raise bad_request("vhost_not_found")
    explanation = f"Definitions of virtual host '{name}'"
    definitions = {**product(call), **await exported(call, vhost=name), "explanation": explanation}
    return await tagged(call, definitions)


def product(call: Call) -> Row:
    config = call.context.config
    return {"product_name": config.product, "product_version": config.product_version}


async def exported(call: Call, **arguments: str) -> Row:
    """The rows of the verb as one object.  Here RabbitMQ says of exchanges what its commands do
    not: none that is internal is shown."""
    first, *rows = await call.rows("definitions.export", **arguments)
    found: Row = {**first["head"], **{category: [] for category in first["categories"]}}
    for row in rows:
        found[row["category"]].append(row["entry"])
    for exchange in found.get("exchanges", ()):
        exchange["internal"] = False
    return found


@routes.post(
    "definitions",
    Right.ADMINISTRATOR,
    "Make what is not there; take nothing away.",
    body=OBJECT,
    body_bytes_max=LONG_BODY_BYTES_MAX,
)
async def import_all(call: Call) -> None:
    await taken(call, None)


@routes.post(
    "definitions/{vhost}",
    Right.ADMINISTRATOR,
    "Make what is not there in a virtual host.",
    body=OBJECT,
    body_bytes_max=LONG_BODY_BYTES_MAX,
)
async def import_vhost(call: Call) -> None:
    await taken(call, call.vhost_to_change().name)


async def taken(call: Call, home: str | None) -> None:
    """Make what the body names.  Refusal: with nothing done if it cannot be read, else with all
    done but for what cannot be."""
    pieces, skipped = await checked(await uploaded(call).long_json(), home), list[str]()
    while pieces:
        category, entries = pieces.popleft()  # and let go of them: all at once would take long
        asked: dict[str, Any] = {"category": category, "entries": entries, "home": home}
        skipped += (await call.result("definitions.import", **asked))["skipped"]
    if skipped:
        more = len(skipped) - REASONS_MAX
        tail = [f"and {more} more"] if more > 0 else []
        raise bad_request("; ".join([*skipped[:REASONS_MAX], *tail]))


async def checked(content: Row, home: str | None) -> deque[tuple[str, list[Row]]]:
    """Checked entries in the order of their creation, in pieces of one category.  Refusal."""
    found = deque[tuple[str, list[Row]]]()
    for category in ORDER:
        entries = content.get(category) or []
        if not isinstance(entries, list):
            raise bad_request(f"{category} is no list")
        rows = entries_of(category, entries, home)
        try:
            while some := [*islice(rows, ENTRIES_AT_ONCE)]:
                found.append((category, [row for row in some if not is_ours(category, row)]))
                await asyncio.sleep(0)
        except DefinitionsError as error:
            raise bad_request(str(error)) from None
    return found


def is_ours(category: str, row: Row) -> bool:
    """True if RabbitMQ leaves it out without a word, since each broker makes its own."""
    return category in ("exchanges", "queues") and row["name"].startswith(RESERVED_PREFIX)
