"""A file that a form sends: `curl -F file=@definitions.json`, or a page of RabbitMQ's."""

from __future__ import annotations

import re
from dataclasses import replace

from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.responses import bad_request

FORM = "multipart/form-data"
BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
NAME = re.compile(rb';[ \t]*name=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
LINE_END = b"\r\n"
PARTS_MAX = 100
FILE = "file"
UNREADABLE = "failed_to_parse_json"
"""What RabbitMQ says of a form without one."""


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
    """What stands in the field of this name; None if none of the first has it."""
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
