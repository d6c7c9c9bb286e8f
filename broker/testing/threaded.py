"""`ThreadedBroker`: a broker in a thread of its own, for code that blocks.

with ThreadedBroker() as broker:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fluffle.broker.config.config import DEFAULT_VHOST, Config
from fluffle.broker.node import NodeFailed
from fluffle.broker.testing.arguments import (
    NOTHING_SPECIAL,
    MqttUrl,
    PathArgument,
    VhostRequirements,
)
from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.loop_thread import (
    PATIENCE_S,
    Calls,
    CrossThreadProxy,
    LoopThread,
    blocking,
    in_coroutine,
)

if TYPE_CHECKING:
    from fluffle.broker.testing.vhost import Vhost


T = TypeVar("T")


class ThreadedBroker:
    """A `Broker` with the same arguments.  Used from one thread, which is not its own."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        data_dir: PathArgument | None = None,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = (DEFAULT_VHOST,),
        definitions: PathArgument | None = None,
        unkind: int | None = None,
        listen: PathArgument | None = None,
    ) -> None:
        self.broker = Broker(
            config, data_dir=data_dir, users=users, vhosts=vhosts, definitions=definitions,
            unkind=unkind, listen=listen,
        )  # fmt: skip
        """Belongs to the thread: whatever is called there goes through `call`."""
        self._thread = LoopThread("fluffle", self._check)

    def __enter__(self) -> Self:
        """Raises what a node raises that cannot start."""
        self._thread.enter(self.broker)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._thread.leave(self.broker, *failure)

    @property
    def clock(self) -> CrossThreadProxy:
        """The `MovableClock` of messages and queues."""
        return self._proxy(self.broker.clock)

    @property
    def clients_clock(self) -> CrossThreadProxy:
        """The `MovableClock` of clients."""
        return self._proxy(self.broker.clients_clock)

    @property
    def url(self) -> str:
        """URL for any client, of any language, in any process."""
        return self.broker.url

    def url_of(self, vhost: str) -> str:
        """Return the URL for another virtual host."""
        return self.broker.url_of(vhost)

    @property
    def mqtt_url(self) -> MqttUrl:
        """URL for MQTT clients, with its parts as attributes.  RuntimeError with a unix socket."""
        return self.broker.mqtt_url

    def mqtt_url_of(self, vhost: str) -> MqttUrl:
        """Return the MQTT URL for another virtual host.  RuntimeError with a unix socket."""
        return self.broker.mqtt_url_of(vhost)

    def vhost(self, name: str = "") -> BlockingVhost:
        """Return what is in a virtual host, by default the first one.  NotFound."""
        return BlockingVhost(self._thread, self.broker.vhost(name))

    def add_vhost(self, name: str, wanted: VhostRequirements = NOTHING_SPECIAL) -> BlockingVhost:
        """Make a new virtual host, with what is wanted in it.  Raises as `Broker.add_vhost`."""
        return BlockingVhost(self._thread, self.call(lambda: self.broker.add_vhost(name, wanted)))

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its connections are closed.  NotFound."""
        self.call(lambda: self.broker.delete_vhost(name))

    @property
    def faults(self) -> CrossThreadProxy:
        """`Faults` for all virtual hosts."""
        return self._proxy(self.broker.faults)

    def mend(self) -> None:
        """End all faults, in one virtual host or in all."""
        self.call(self.broker.mend)

    @property
    def clients(self) -> CrossThreadProxy:
        """`Clients` of all virtual hosts."""
        return self._proxy(self.broker.clients)

    def wait_until_idle(self) -> None:
        """Return when there is nothing to do for the node until a client speaks or time passes."""
        self.call(self.broker.wait_until_idle)

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T:
        """Return what `work` gives, done in the broker's thread.

        TimeoutError when it is not done in time; it is given up then.  NodeFailed.
        """
        __tracebackhide__ = True
        self._check()
        return self._thread.call(work, patience_s=patience_s)

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have `work` done in the broker's thread.  NodeFailed."""
        self._check()
        return self._thread.begin(work)

    def _proxy(self, near: object) -> CrossThreadProxy:
        return CrossThreadProxy(near, partial(blocking, self._thread))

    def _check(self) -> None:
        """Raise if the broker has ended: no call waits for one."""
        if self.broker.failure is not None:
            raise NodeFailed(f"the broker has failed: {self.broker.failure}")


class BlockingVhost(CrossThreadProxy):
    """A `Vhost` for another thread: what is awaited there blocks here."""

    __slots__ = ("awaited", "unawaited")

    def __init__(self, thread: LoopThread, vhost: Vhost) -> None:
        super().__init__(vhost, partial(blocking, thread))
        self.unawaited: dict[object, str] = {}
        """Names of `awaited` functions that were called and never awaited, and so have done
        nothing."""
        self.awaited = CrossThreadProxy(vhost, Calls(thread, self.unawaited).of)
        """The same for coroutines of a loop in another thread."""


class ByCaller:
    """Virtual host that blocks in plain code and is awaited in coroutines.

    Plain tests, fixtures and helpers get what blocks, coroutines what is awaited: which one is
    seen at each use, since one test may have both.
    """

    def __init__(self, vhost: BlockingVhost) -> None:
        self.blocking: BlockingVhost = vhost
        """In plain code and in coroutines alike."""

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        return getattr(self.blocking.awaited if in_coroutine() else self.blocking, name)

    def __dir__(self) -> list[str]:
        return ["blocking", *dir(self.blocking)]
