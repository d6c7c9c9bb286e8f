"""Requests between nodes: a client, a server, and questions to several nodes at once.

    begin     [0, number, request]               say the first page
    go on     [1, number]                        and the next
    give up   [2, number]                        it is not read any more
    page      [3, number, has_more, rows]
    refusal   [4, number, code, text]            there is nothing behind it

What a request and rows are is known to those that write and read them.  A page comes when it is
asked for, so that neither end holds more of a list than two, however long it is; and within some
seconds, or the node is *silent*: it is not there, it is paused, it is of an older version.  The
server keeps a list open until its last page is sent, its reader gives up, or its next page is not
asked for in time; another node may have some open and no more, so that it cannot make this one hold
much.

`Gather` is for small questions with frames of their own: the caller goes on when all nodes have
answered, or after a while with the answers that have come.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from fluffle.broker.base.clock import EventLoop, Timer
from fluffle.broker.base.errors import ResourceError
from fluffle.broker.cluster.codec import BadFrame, are_numbers, pack, unpack
from fluffle.broker.cluster.ports import FrameSender
from fluffle.broker.queues.queue_api import Deferred
from fluffle.raft.config import NodeId

BEGIN, GO_ON, GIVE_UP, PAGE, REFUSAL = range(5)

REPLY_TIMEOUT_S = 5.0
"""Time in seconds to wait for a page: longer than a link needs to be given up, which is the better
reason to report."""

OPEN_MAX = 64
"""Listings that one node may hold open."""

UNREAD_S_MAX = 60.0
"""A page that is not asked for by then never is."""

GIVE_UP_S = 2.0
"""Time in seconds within which every reachable node has answered."""


class Page(NamedTuple):
    """Some rows of a list."""

    rows: bytes
    has_more: bool


class RpcRefused(NamedTuple):
    """The reason of a node that does not answer, or no further."""

    code: int
    """Reply code of AMQP."""
    text: str


class NoReply(NamedTuple):
    """A node that does not answer, or no further."""

    why: str


RpcReply: TypeAlias = Page | RpcRefused | NoReply


class RpcRequest:
    """A request to one node.  `take` when there is something; `stop` it in the end."""

    __slots__ = ("_awaited", "_client", "_reply", "_waiting", "node", "number")

    def __init__(self, client: RpcClient, node: NodeId, number: int) -> None:
        self._client = client
        self.node = node
        self.number = number
        self._reply: RpcReply | None = None
        self._awaited: Deferred[None] | None = None
        self._waiting: Timer | None = None

    @property
    def has_reply(self) -> bool:
        """True if there is something to take."""
        return self._reply is not None

    def wait(self) -> Deferred[None]:
        """Return what is answered as soon as there is something to take."""
        self._awaited = awaited = Deferred[None]()
        return awaited

    def take(self) -> RpcReply:
        """Take the reply of the node, and have it send the next page of a list."""
        reply, self._reply = self._reply, None
        assert reply is not None, "it was waited for"
        if isinstance(reply, Page) and reply.has_more:
            self._client.send(self, GO_ON)
        return reply

    def stop(self) -> None:
        """End it: its reply is not waited for any more."""
        self._awaited = None
        self._client.end(self)

    # Called by the client

    def wait_at_most(self, waiting: Timer | None) -> None:
        """Keep the timer of the next reply in the place of the one before."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = waiting

    def answer(self, reply: RpcReply) -> None:
        """Have a reply to be taken."""
        self.wait_at_most(None)
        self._reply = reply
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.answer(None)


class RpcClient:
    """Requests of one node to others that have not been answered."""

    def __init__(
        self, sender: FrameSender, loop: EventLoop, *, reply_timeout_s: float = REPLY_TIMEOUT_S
    ) -> None:
        self._sender = sender
        self._loop = loop
        self.reply_timeout_s = reply_timeout_s
        """Time in seconds to wait for a page."""
        self._begun: dict[int, RpcRequest] = {}
        self._number = 0
        self.on_asked: Callable[[NodeId, list[Any]], None] = _nothing
        """Handler of other nodes' requests: see `RpcServer`."""

    def begin(self, node: NodeId, body: bytes) -> RpcRequest:
        """Send a request; there is a reply to be taken at once, or in a bounded time."""
        self._number = number = self._number + 1
        request = RpcRequest(self, node, number)
        if hindrance := self._sender.hindrance(node):
            request.answer(NoReply(hindrance))
        else:
            self._begun[number] = request
            self.send(request, BEGIN, body)
        return request

    def send(self, request: RpcRequest, kind: int, *fields: object) -> None:
        """Send a frame of a request, which the node has to answer in time."""
        silent = partial(
            self._on_silence, request, f"it has said nothing for {self.reply_timeout_s:g} s"
        )
        request.wait_at_most(self._loop.call_later(self.reply_timeout_s, silent))
        self._sender.send(request.node, pack(kind, request.number, *fields))

    def end(self, request: RpcRequest) -> None:
        """End a request; the node may stop, too, unless it is of an older version by now."""
        request.wait_at_most(None)
        is_begun = self._begun.pop(request.number, None) is not None
        if is_begun and not self._sender.hindrance(request.node):
            self._sender.send(request.node, pack(GIVE_UP, request.number))

    def _on_silence(self, request: RpcRequest, why: str) -> None:
        self.end(request)
        request.answer(NoReply(why))

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Fail the requests that were under way on a link, even if there is a new one."""
        del is_up
        for request in [each for each in self._begun.values() if each.node == node]:
            self._on_silence(request, "the link to it was lost")

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Handle a request or reply of another node.  Raises `BadFrame`."""
        match unpack(payload):
            case [0 | 1 | 2 as kind, int(number), *rest] if are_numbers(kind, number):
                self.on_asked(node, [kind, number, *rest])
            case [3 as kind, int(number), bool(has_more), bytes(rows)] if are_numbers(kind, number):
                self._on_reply(node, number, Page(rows, has_more))
            case [4 as kind, int(number), int(code), str(text)] if are_numbers(kind, number, code):
                self._on_reply(node, number, RpcRefused(code, text))
            case _:
                raise BadFrame("no request, and no reply to one")

    def _on_reply(self, node: NodeId, number: int, reply: RpcReply) -> None:
        """Take a reply, unless it is late, or to no request to that node."""
        request = self._begun.get(number)
        if request is None or request.node != node:
            return
        if not (isinstance(reply, Page) and reply.has_more):
            del self._begun[number]
        request.answer(reply)


def _nothing(_node: NodeId, _row: list[Any]) -> None:
    """Do nothing: it is asked before this node serves requests, and will be asked again."""


class PagedListing(Protocol):
    """A list that is sent page by page."""

    def go_on(self) -> None:
        """Have the next page sent, not before this returns."""

    def close(self) -> None:
        """End it: it is not read any more, so send nothing."""


Reply: TypeAlias = Callable[[Page | RpcRefused], None]

Begin: TypeAlias = Callable[[bytes, Reply], PagedListing]
"""Looks at a request; calls that function with each page, when it is asked to go on."""


class OpenListing:
    """A listing that another node reads."""

    def __init__(self) -> None:
        self.listing: PagedListing
        self.unread: Timer | None = None
        """While it is for the other to ask."""

    def read(self) -> None:
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None


class RpcServer:
    """Answers to all requests of other nodes."""

    def __init__(self, sender: FrameSender, loop: EventLoop, begin: Begin) -> None:
        self._sender = sender
        self._loop = loop
        self._begin_listing = begin
        self._open: dict[NodeId, dict[int, OpenListing]] = {}

    def asked(self, node: NodeId, row: list[Any]) -> None:
        """See `RpcClient.receive`.  Raises `BadFrame`."""
        match row:
            case [0, number, bytes(body)]:
                self._begin(node, number, body)
            case [1, number]:
                self._go_on(node, number)
            case [2, number]:
                self._close(node, number)
            case _:
                raise BadFrame("no request")

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Close the lists of a node: over a new link it has asked for none."""
        del is_up
        for number in tuple(self._open.get(node, ())):
            self._close(node, number)

    def _begin(self, node: NodeId, number: int, body: bytes) -> None:
        self._close(node, number)  # of another life
        of_it = self._open.setdefault(node, {})
        if len(of_it) >= OPEN_MAX:
            text = f"{OPEN_MAX} lists are read by '{node}' already"
            self._sender.send(node, pack(REFUSAL, number, int(ResourceError.code), text))
            return
        of_it[number] = begun = OpenListing()
        begun.listing = self._begin_listing(body, partial(self._reply, node, number))
        begun.listing.go_on()

    def _go_on(self, node: NodeId, number: int) -> None:
        """Send the next page, unless the list has been closed."""
        begun = self._open.get(node, {}).get(number)
        if begun is not None and begun.unread is not None:
            begun.read()
            begun.listing.go_on()

    def _reply(self, node: NodeId, number: int, reply: Page | RpcRefused) -> None:
        begun = self._open[node][number]
        if isinstance(reply, RpcRefused):
            self._forget(node, number)
            self._sender.send(node, pack(REFUSAL, number, *reply))
            return
        if reply.has_more:
            close = partial(self._close, node, number)
            begun.unread = self._loop.call_later(UNREAD_S_MAX, close)
        else:
            self._forget(node, number)
        self._sender.send(node, pack(PAGE, number, reply.has_more, reply.rows))

    def _close(self, node: NodeId, number: int) -> None:
        begun = self._forget(node, number)
        if begun is not None:
            begun.read()
            begun.listing.close()

    def _forget(self, node: NodeId, number: int) -> OpenListing | None:
        of_it = self._open.get(node, {})
        begun = of_it.pop(number, None)
        if not of_it:
            self._open.pop(node, None)
        return begun


Answer = TypeVar("Answer")

OnAnswers: TypeAlias = Callable[[Mapping[NodeId, Answer]], None]


class PendingGather(Generic[Answer]):
    """A request that waits for the answers of these nodes."""

    def __init__(self, nodes: Collection[NodeId], done: OnAnswers[Answer]) -> None:
        self.missing = set(nodes)
        self.found: dict[NodeId, Answer] = {}
        self.done = done


@dataclass(slots=True, eq=False)
class Gather(Generic[Answer]):
    """Requests of one node to several, without all answers yet."""

    _send: Callable[[NodeId, bytes], None]
    """Sends to another node; it may be lost."""
    _loop: EventLoop
    _polls: dict[int, PendingGather[Answer]] = field(default_factory=dict, init=False)
    asked: int = 0
    """How many there were; the number of the last."""

    def ask(
        self,
        nodes: Collection[NodeId],
        question: Callable[[int], bytes],
        done: OnAnswers[Answer],
    ) -> None:
        """Ask nodes; `done` is called once, within seconds and not before this returns, with the
        answers that came.

        `question`: what is sent, with the number that comes back with the answer.
        """
        self.asked = number = self.asked + 1
        self._polls[number] = PendingGather(nodes, done)
        for node in nodes:
            self._send(node, question(number))
        self._loop.call_later(GIVE_UP_S if nodes else 0.0, partial(self._end, number))

    def answered(self, node: NodeId, number: int, answer: Answer | None) -> None:
        """None: there is nothing that it can say."""
        poll = self._polls.get(number)
        if poll is None or node not in poll.missing:
            return
        poll.missing.discard(node)
        if answer is not None:
            poll.found[node] = answer
        if not poll.missing:
            self._end(number)

    def _end(self, number: int) -> None:
        poll = self._polls.pop(number, None)
        if poll is not None:
            poll.done(poll.found)
