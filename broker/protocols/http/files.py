"""The pages at `/`: files beside this module, read once, found by their whole path or not at all.

A browser asks with the tag that it has whether a file is still the same.  What the pages may do is
said with each of them: load what comes from here, speak to where they come from, and make no text
into markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from fluffle.broker.protocols.http.responses import Refusal, Reply, not_found

FOLDER = "pages"
INDEX = "index.html"
TYPES: Mapping[str, str] = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Content types by the suffix of names; files with another are not served."""

POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
))  # fmt: skip
ALWAYS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
}


class StaticFiles:
    """Files that are served, by path."""

    def __init__(self) -> None:
        found = dict(replies(files(__package__) / FOLDER, "/"))
        self._replies: Mapping[str, Reply] = MappingProxyType({**found, "/": found[f"/{INDEX}"]})

    def reply(self, method: str, path: str, known: str) -> Reply:
        """Reply to a request whose header `If-None-Match` is `known`.  Refusal."""
        reply = self._replies.get(path)
        if reply is None:
            raise not_found()
        if method not in ("GET", "HEAD"):
            raise Refusal(Reply(HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": "GET, HEAD"}))
        if is_known(reply.headers["etag"], known):
            return Reply(HTTPStatus.NOT_MODIFIED, headers=reply.headers)
        return reply


def replies(folder: Traversable, path: str) -> Iterator[tuple[str, Reply]]:
    """A folder's files with their paths, and those of the folders in it."""
    for each in folder.iterdir():
        if each.is_dir():
            yield from replies(each, f"{path}{each.name}/")
        elif content_type := TYPES.get(each.name.rpartition(".")[2]):
            body = each.read_bytes()
            headers = {**ALWAYS, "etag": f'"{sha256(body).hexdigest()[:24]}"'}
            yield path + each.name, Reply(HTTPStatus.OK, body, content_type, headers)


def is_known(tag: str, known: str) -> bool:
    """True if a list of tags has this one; a proxy may have made them weak."""
    tags = {each.strip().removeprefix("W/") for each in known.split(",")}
    return tag in tags or "*" in tags
