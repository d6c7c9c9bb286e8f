"""`Process`: what runs in a loop beside others as though it were a process of its own.

It can be stopped and continued, as by SIGSTOP and SIGCONT, and does not know: what is in it asks
asyncio for the running loop and is given a `ProcessLoop`, through which everything goes that is
called in it.  While it stands still what would be called waits, timers run out without effect,
and nothing is read from its sockets.

    loop of all --callbacks, timers, sockets--> Process --> what runs in it
                                                   | stands still
                                                   v
                                                waiting
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from fluffle.broker.base.clock import CallLater, Timer

T = TypeVar("T")

MakeProtocol = Callable[[], asyncio.Protocol]


class Dial(Protocol):
    """Function that connects to another node; returns once there is a connection."""

    async def __call__(self, make: MakeProtocol, host: str, port: int) -> object:
        """Open a connection.  OSError."""


class Process:
    """In the thread of the loop that it is a part of."""

    def __init__(self, dial: Dial) -> None:
        """In the loop that runs; all that the process dials goes through `dial`."""
        self._loop = asyncio.get_running_loop()
        self.loop = ProcessLoop(self, self._loop, dial)
        self.stands_still = False
        self._waiting: deque[asyncio.Handle] = deque()
        """Calls that became due while it is paused."""
        self._held: set[asyncio.ReadTransport] = set()
        """Transports that are not read while it is paused."""
        self.transports: set[asyncio.ReadTransport] = set()
        """Transports of its connections."""

    def stop(self) -> None:
        """Stop as SIGSTOP does: nothing of it runs any more, without notice."""
        self.stands_still = True
        self.loop.deafen()
        for transport in self.transports:
            self.hold(transport)

    def go_on(self) -> None:
        """Go on as SIGCONT does: what was due meanwhile comes first."""
        self.stands_still = False
        while self._waiting:
            self._loop.call_soon(self.take, self._waiting.popleft())
        self.loop.listen()
        while self._held:
            transport = self._held.pop()
            if not transport.is_closing():
                transport.resume_reading()

    def hold(self, transport: asyncio.ReadTransport) -> None:
        """Do not read from it as long as it stands still."""
        if transport.is_reading():
            transport.pause_reading()
            self._held.add(transport)

    def run(self, act: Callable[..., T], *arguments: Any) -> T | None:
        """Call something in it; later, and so None, if it stands still."""
        if self.stands_still:
            self._waiting.append(asyncio.Handle(act, arguments, self.loop.as_loop))
            return None
        former = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop.as_loop)
        try:
            return act(*arguments)
        finally:
            asyncio._set_running_loop(former)

    def take(self, handle: asyncio.Handle) -> None:
        """Run a handle that is due."""
        if self.stands_still:
            self._waiting.append(handle)
        elif not handle.cancelled():
            self.run(handle._run)

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` gives, done in it; for the loop of all."""
        return await done_in(self.loop.as_loop, work)

    def timers(self, call_later: CallLater) -> CallLater:
        """Return timers that call in this process."""

        def called_in_it(seconds: float, act: Callable[[], None]) -> Timer:
            return call_later(seconds, lambda: self.run(act))

        return called_in_it


class ProcessLoop:
    """Event loop of a simulated process: the part of `AbstractEventLoop` that a node uses."""

    def __init__(self, process: Process, loop: asyncio.AbstractEventLoop, dial: Dial) -> None:
        """`loop` is the one that runs."""
        self._process = process
        self._run = process.take
        self._loop = loop
        self._dial = dial
        self._readers: dict[Any, asyncio.Handle] = {}
        """Sockets whose readiness is reported to it."""

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop as asyncio's type, which asks for no more than there is."""
        return cast(asyncio.AbstractEventLoop, self)

    def deafen(self) -> None:
        """Stop reporting events of sockets to it."""
        for file in self._readers:
            self._loop.remove_reader(file)

    def listen(self) -> None:
        """Report events of sockets to it again."""
        for file, handle in self._readers.items():
            self._loop.add_reader(file, self._run, handle)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.as_loop, context)
        self._loop.call_soon(self._run, handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.as_loop, context)
        self._loop.call_soon_threadsafe(self._run, handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = ProcessTimer(when, callback, args, self.as_loop, context)
        handle.loop_handle = self._loop.call_at(when, self._run, handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: ProcessTimer) -> None:
        """Called by the handle, as each loop is."""
        handle.loop_handle.cancel()

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self.as_loop, name=name, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.as_loop)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        assert executor is not None, "nodes have their own threads"
        return asyncio.wrap_future(executor.submit(func, *args), loop=self.as_loop)

    # Its sockets

    async def create_connection(
        self, protocol_factory: Any, host: Any, port: Any, **_tls: Any
    ) -> Any:
        """Dial another node; there is nothing else to dial."""
        make = partial(HostedProtocol, self._process, protocol_factory)
        return await done_in(self._loop, cast(Any, self._dial(make, host, port)))

    async def connect_accepted_socket(self, protocol_factory: Any, sock: Any, **named: Any) -> Any:
        make = partial(HostedProtocol, self._process, protocol_factory)
        return await done_in(self._loop, self._loop.connect_accepted_socket(make, sock, **named))

    async def create_server(self, protocol_factory: Any, *_where: Any, **named: Any) -> Any:
        make = partial(HostedProtocol, self._process, protocol_factory)
        return await done_in(self._loop, self._loop.create_server(make, **named))

    async def create_unix_server(
        self, protocol_factory: Any, path: Any = None, **named: Any
    ) -> Any:
        make = partial(HostedProtocol, self._process, protocol_factory)
        return await done_in(self._loop, self._loop.create_unix_server(make, path, **named))

    async def sock_recv(self, sock: Any, nbytes: int) -> bytes:
        return await done_in(self._loop, self._loop.sock_recv(sock, nbytes))

    def add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> None:
        self._readers[fd] = handle = asyncio.Handle(callback, args, self.as_loop)
        if not self._process.stands_still:
            self._loop.add_reader(fd, self._run, handle)

    def remove_reader(self, fd: Any) -> bool:
        self._readers.pop(fd, None)
        return self._loop.remove_reader(fd)

    # What it asks

    def time(self) -> float:
        return self._loop.time()

    def get_debug(self) -> bool:
        return False  # the loop of all is asked itself

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._loop.call_exception_handler(context)


class ProcessTimer(asyncio.TimerHandle):
    """Timer handle of a simulated process."""

    loop_handle: asyncio.TimerHandle
    """Timer of the loop that all nodes share."""


class HostedProtocol(asyncio.Protocol):
    """A connection of a process: events of the network reach it when the process runs."""

    def __init__(self, process: Process, make: MakeProtocol) -> None:
        """`make` is called in the process."""
        self._process = process
        self._make = make
        self._protocol: asyncio.Protocol
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._process.transports.add(self._transport)
        if self._process.stands_still:
            self._process.hold(self._transport)
        self._process.run(self._begin)

    def _begin(self) -> None:
        self._protocol = self._make()
        self._protocol.connection_made(self._transport)

    def data_received(self, data: bytes) -> None:
        self._process.run(lambda: self._protocol.data_received(data))

    def eof_received(self) -> bool | None:
        if self._process.stands_still:
            self._process.run(self._eof_received)
            return True
        return self._process.run(self._protocol.eof_received)

    def _eof_received(self) -> None:
        """Pass on an EOF, late: the connection is closed unless there is more to send."""
        if not self._protocol.eof_received():
            self._transport.close()

    def pause_writing(self) -> None:
        self._process.run(self._protocol.pause_writing)

    def resume_writing(self) -> None:
        self._process.run(self._protocol.resume_writing)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.transports.discard(self._transport)
        self._process.run(lambda: self._protocol.connection_lost(exc))


async def done_in(there: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` gives, done by another loop of this thread; given up with who waits for
    it."""
    come: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    working: asyncio.Task[T] = there.create_task(work)

    def finish(working: asyncio.Task[T]) -> None:
        if working.cancelled():
            come.cancel()
            return
        error = working.exception()
        if come.done():
            return  # no caller waits any more
        if error is not None:
            come.set_exception(error)
        else:
            come.set_result(working.result())

    working.add_done_callback(finish)
    try:
        return await come
    finally:
        working.cancel()
