"""Endpoint of the management API, how one is found by path and method, and schemas of bodies.

Handlers stand in `endpoints/<subject>.py`, each below its endpoint: a decorator of the module's
`routes`, which `endpoints/__init__.py` joins to one table.  Requests are found in it, and the
OpenAPI document is made of it.  A new endpoint needs, beside its handler there:

- the verbs that it asks, which know or do what it is for: see below for a new one;
- the first part of its path in `server.DEFINED_PATHS`, if it looks for what is defined;
- a row in `openapi.SUCCESSES`, if the type that it is annotated to return is a new one: it gives
  the schema of its answer;
- its row in docs/management.md, which lists all of them; and a new subject is named in
  `endpoints/__init__.py`.

A new verb is a function of a module of `admin/`, and a row in its `READS` or `CHANGES`.  It needs,
too (tests/broker/admin/test_dispatch.py says what was forgotten):

- if the module or the first word of its name is new: a row in `admin.dispatch.GROUPS`, and the
  module in `MODULES_OF_DEFINITIONS` if its verbs look for what is defined;
- `admin.dispatch.AUDITED`, for arguments of a change that are to be logged;
- `admin.all_nodes.OF_A_NODE`, if each node has its own part of what is asked for: other nodes may
  ask for these verbs alone, by `everywhere.rows`.

Paths are RabbitMQ's, below `/api/`; `{name}` is one segment, percent-decoded after the path was
split, so that a name may have any letter in it, a slash too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

from fluffle.broker.protocols.http.responses import Answer
from fluffle.broker.protocols.http.rights import Right

if TYPE_CHECKING:
    from fluffle.broker.protocols.http.call import Call


Handler: TypeAlias = Callable[["Call"], Awaitable[Answer]]
H = TypeVar("H", bound=Handler)
Schema: TypeAlias = Mapping[str, Any]
"""JSON Schema."""
Query: TypeAlias = Mapping[str, str]
"""Parameters of the query string, with descriptions."""
NO_QUERY: Query = MappingProxyType({})


BODY_BYTES_MAX = 1 << 20
"""Most bytes of a body: reading it holds up the loop."""
MESSAGE_BODY_BYTES_MAX = 2_500_000
"""Most bytes of a body that is mostly one text: it takes some ten milliseconds to parse."""
LONG_BODY_BYTES_MAX = 20_000_000
"""RabbitMQ's limit for definitions, which only administrators send."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a path, its handler and its right."""

    method: str
    path: str
    """Below `/api/`, as `queues/{vhost}/{name}`."""
    required_right: Right
    handler: Handler
    summary: str
    """Summary for the OpenAPI document, one line."""
    query: Query = field(default_factory=dict)
    body: Schema | None = None
    """None where nothing is read."""
    body_bytes_max: int = BODY_BYTES_MAX


class Routes:
    """Endpoints of one subject, whose handlers it decorates:

    @routes.get("queues/{vhost}", Right.VHOST, "The queues of a virtual host.")
    """

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []

    def add(
        self, method: str, path: str, right: Right, summary: str, **more: Any
    ) -> Callable[[H], H]:
        """Return the decorator of a handler; `more` are the other fields of its `Endpoint`."""

        def decorate(handler: H) -> H:
            self.endpoints.append(Endpoint(method, path, right, handler, summary, **more))
            return handler

        return decorate

    def get(
        self, path: str, right: Right, summary: str, query: Query = NO_QUERY
    ) -> Callable[[H], H]:
        return self.add("GET", path, right, summary, query=query)

    def put(self, path: str, right: Right, summary: str, **more: Any) -> Callable[[H], H]:
        return self.add("PUT", path, right, summary, **more)

    def post(self, path: str, right: Right, summary: str, **more: Any) -> Callable[[H], H]:
        return self.add("POST", path, right, summary, **more)

    def delete(self, path: str, right: Right, summary: str, **more: Any) -> Callable[[H], H]:
        return self.add("DELETE", path, right, summary, **more)


class NoSuchPath(Exception):
    """Error that no endpoint has this path."""


class NoSuchMethod(Exception):
    """Error that this path has other methods only: `allowed`."""

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__(allowed)
        self.allowed = allowed


@dataclass(slots=True)
class PathNode:
    """The endpoints below one segment of a path."""

    named: dict[str, PathNode] = field(default_factory=dict)
    any: PathNode | None = None
    """Behind a segment that is a name."""
    methods: dict[str, Endpoint] = field(default_factory=dict)
    """Endpoints of the path that ends here, by method."""


class EndpointTable:
    """Endpoints by their paths."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._root = PathNode()
        for each in self.endpoints:
            self._add(each)

    def _add(self, endpoint: Endpoint) -> None:
        branch = self._root
        for segment in endpoint.path.split("/"):
            if segment.startswith("{"):
                branch.any = branch.any or PathNode()
                branch = branch.any
            else:
                branch = branch.named.setdefault(segment, PathNode())
        known = branch.methods.setdefault(endpoint.method, endpoint)
        assert known is endpoint, f"{endpoint.method} {endpoint.path} is there twice"

    def find(self, method: str, raw_path: str) -> tuple[Endpoint, Mapping[str, str]]:
        """Endpoint for a request, and the names in its path.  NoSuchPath, NoSuchMethod.

        A path may end with a slash; of two, the first ends a name without a letter.  HEAD is GET
        without the body.
        """
        segments = [decoded(segment) for segment in raw_path.removesuffix("/").split("/")]
        branch = match_path(self._root, segments, 0)
        if branch is None:
            raise NoSuchPath(raw_path)
        endpoint = branch.methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise NoSuchMethod(tuple(branch.methods))
        pairs = zip(endpoint.path.split("/"), segments, strict=True)
        return endpoint, {part[1:-1]: text for part, text in pairs if part.startswith("{")}


def match_path(branch: PathNode, segments: Sequence[str], at: int) -> PathNode | None:
    """Where these segments lead; a word of the path comes before a name."""
    if at == len(segments):
        return branch if branch.methods else None
    for following in (branch.named.get(segments[at]), branch.any):
        if following is not None and (found := match_path(following, segments, at + 1)) is not None:
            return found
    return None


def decoded(segment: str) -> str:
    """Decode a segment of a path; octets that are no UTF-8 name nothing that exists."""
    return unquote_to_bytes(segment).decode(errors="surrogateescape")


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
YES_OR_NO: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
ARGUMENTS: Schema = {"anyOf": [OBJECT, {"type": "array", "maxItems": 0}]}
"""A table; PHP says an empty one as a list."""
ANYTHING: Schema = {}
TEXTS: Schema = {"type": "array", "items": TEXT}
TAGS: Schema = {"anyOf": [TEXT, TEXTS]}
"""A text with commas will do."""


def fields(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these keys; others are not looked at."""
    schema = {"type": "object", "properties": {**required, **(optional or {})}}
    return {**schema, "required": list(required)} if required else schema


def texts(*names: str) -> Schema:
    """An object of texts."""
    return fields(dict.fromkeys(names, TEXT))
