"""`Broker`: a node in the running event loop, for as long as an `async with` lasts.

    async with Broker() as broker:
        connection = await aio_pika.connect(broker.url)

Its messages are in memory, and its clock can be moved: `await broker.clock.advance(minutes=30)`.
`create_vhost` makes a fresh virtual host with what is wanted in it; `delete_vhost` deletes it with
its users.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from fluffle.broker.access.passwords import hashed
from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.local_client import ask, in_time
from fluffle.broker.base.clock import CallLater, SystemClock
from fluffle.broker.base.errors import ConnectionForced, PreconditionFailed
from fluffle.broker.config.config import (
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    Config,
    ListenAddress,
)
from fluffle.broker.config.listeners import MQTT
from fluffle.broker.metadata.change import Name
from fluffle.broker.node import Node
from fluffle.broker.process.environment import (
    Environment,
    ListeningServer,
    MachineEnvironment,
    OpenStore,
)
from fluffle.broker.queues.dead_letters import DeadLetterFrom
from fluffle.broker.testing.arguments import (
    NOTHING_SPECIAL,
    MqttUrl,
    PathArgument,
    VhostRequirements,
    VhostUrls,
    amqp_url,
    first_url,
    mqtt_urls,
    names_of,
    path_of,
    socket_path_of,
)
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.faults.tapped_transport import (
    CLOSE_WAIT_S,
    ClientAcceptor,
    FaultScope,
    TappedConnection,
)
from fluffle.broker.testing.recorder import Recorder, seen_dead
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.errors import StorageError
from fluffle.storage.store import InstantWriter, Store, Writer

if TYPE_CHECKING:
    from fluffle.broker.testing.faults.faults import Clients, Faults
    from fluffle.broker.testing.vhost import Vhost


LOOPBACK = ListenAddress("127.0.0.1", 0)

RESTS = 2
"""So many rounds of the loop without anything to do are rest: what is called soon is called in the
next."""


def with_arguments(
    config: Config | None,
    users: Mapping[str, str] | None,
    vhosts: Sequence[str],
    definitions: PathArgument | None,
) -> Config:
    """Return the configuration of a broker or of each node of a cluster; what was named comes
    first.  TypeError."""
    config = config or Config(listen=LOOPBACK)
    return replace(
        config,
        users={DEFAULT_USER: DEFAULT_PASSWORD} if users is None else users,
        vhosts=(named := names_of("vhosts", vhosts)),
        default_vhost=(*named, DEFAULT_VHOST)[0],
        definitions=path_of("definitions", definitions) or config.definitions,
    )


async def rested(is_at_rest: Callable[[], bool], rounds: int) -> None:
    """Return after so many rounds of the loop in which there is nothing to do.

    TimeoutError if there always is: clients that never stop, mostly.
    """
    rests = 0
    async with in_time("what there is to do"):
        while rests < rounds:
            await asyncio.sleep(0)
            rests = rests + 1 if is_at_rest() else 0


class Broker:
    """Not started until it is entered; what it held is gone when it is left, unless a directory was
    named."""

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
        """`users` are names with passwords; the first one, and the first of `vhosts`, are in `url`.

        `config` for everything else; what is named beside it comes first.
        `unkind`: the seed of a broker that does all that AMQP permits and naive code forgets.
        `listen`: the path of a unix socket, in the place of a free port.
        """
        self._config = config = with_arguments(config, users, vhosts, definitions)
        if (socket_path := socket_path_of(listen)) is not None:
            self._config = replace(config, listen=ListenAddress(str(socket_path), 0))
        self._data_dir = path_of("data_dir", data_dir)
        self._unkind = unkind
        self._entered = AsyncExitStack()
        self._wanted: dict[str, VhostRequirements] = {}
        """Requirements of virtual hosts that were added, if they have more than the default."""
        self.numbers = itertools.count(1)
        """Numbers for virtual hosts without a given name; none is used twice."""
        self.clock: MovableClock
        """The time of messages and queues: of expiry, delays, and consumers that hold on."""
        self.clients_clock: MovableClock
        """The time of clients: how long they may be silent."""
        self.node: Node
        self.recorder = Recorder(self._now_ms, self._known)
        """Sees what happens."""
        self._acceptor = ClientAcceptor(self.recorder, filter_packets)
        self._scopes: dict[str | None, FaultScope] = {}
        """Faults of a virtual host, or of all; each ends with the broker."""

    async def __aenter__(self) -> Self:
        """OSError, and what a node raises that cannot start."""
        async with AsyncExitStack() as entering:
            data_dir, open_store = self._data_dir, None
            if data_dir is None:
                data_dir = Path(entering.enter_context(TemporaryDirectory(prefix="fluffle-")))
                open_store = in_memory(MemoryDisk())
            data_dir.mkdir(parents=True, exist_ok=True)
            config = replace(self._config, data_dir=data_dir)
            later = asyncio.get_running_loop().call_later
            self.node = node = Node(
                config,
                environment=lambda place: self._environment(place, open_store),
                observers=(self.recorder,),
            )
            self.clock = self._made_clock(later)
            self.clients_clock = self._made_clock(later)
            await node.start()
            entering.push_async_callback(node.stop, "shutdown")
            if node.addresses["amqp"][1] and "mqtt" not in node.addresses:
                await node.open_late(MQTT, LOOPBACK)
            entering.push_async_callback(self.mend)
            if self._unkind is not None:  # for as long as there is a broker
                from fluffle.broker.testing.faults.faults import do  # noqa: PLC0415  if they are used

                do(self._made_scope(None), "unkind", seed=self._unkind)
            self._entered = entering.pop_all()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._entered.__aexit__(*failure)

    @property
    def failure(self) -> Exception | None:
        """Why it has ended by itself, if it has."""
        node: Node | None = getattr(self, "node", None)
        return node.failure if node is not None else None

    @property
    def url(self) -> str:
        """URL for any client, of any language, in any process.

        With a unix socket its path stands for the host, each slash as %2F.
        """
        return self.url_of(self._config.vhosts[0])

    def url_of(self, vhost: str) -> str:
        """Return the URL for another virtual host."""
        return next(iter(self._urls_of(vhost).values()))

    @property
    def mqtt_url(self) -> MqttUrl:
        """URL for MQTT clients, with its parts as attributes.  RuntimeError with a unix socket."""
        return self.mqtt_url_of(self._config.vhosts[0])

    def mqtt_url_of(self, vhost: str) -> MqttUrl:
        """Return the MQTT URL for another virtual host.  RuntimeError with a unix socket."""
        return first_url(self._mqtt_urls_of(vhost))

    def vhost(self, name: str = "") -> Vhost:
        """Return what is in a virtual host, by default the first one.  NotFound."""
        from fluffle.broker.testing.vhost import Vhost  # noqa: PLC0415  if it is used

        name = name or self._config.vhosts[0]
        self.node.parts.vhost(name)
        parts, turn, scope = self.node.parts, self.node.turn, self.scope(name)
        timeline = self.recorder.of(name)
        urls = VhostUrls(self._urls_of(name), self._mqtt_urls_of(name))
        return Vhost(name, urls, parts, turn, self.clock, scope=scope, timeline=timeline)

    async def add_vhost(self, name: str, wanted: VhostRequirements = NOTHING_SPECIAL) -> Vhost:
        """Make a new virtual host, with what is wanted in it.

        PreconditionFailed if it or one of its users is there, ValueError and DefinitionsError for
        definitions that cannot be made.
        """
        await create_vhost(self.node.parts, name, wanted, self._config.users)
        self._wanted[name] = wanted
        return self.vhost(name)

    async def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its connections are closed.  NotFound.

        What goes wrong ends with it, what goes wrong for all virtual hosts, too.
        """
        for scope in (self._scopes.pop(name, None), self._scopes.get(None)):
            if scope is not None:
                scope.mend()
        parts = self.node.parts
        hang_up(parts, name)
        await delete_vhost(parts, name, self._wanted.pop(name, NOTHING_SPECIAL))
        self.recorder.forget(name)

    def _urls_of(self, vhost: str) -> dict[str, str]:
        host, port = self._address("amqp")
        where = f"{host}:{port}" if port else quote(host, safe="")
        users = self._users_of(vhost)
        return {user: amqp_url(user, users[user], where, vhost) for user in users}

    def _mqtt_urls_of(self, vhost: str) -> dict[str, MqttUrl]:
        if not self._address("amqp")[1] and "mqtt" not in self.node.addresses:
            return {}
        return mqtt_urls(self._users_of(vhost), self._address("mqtt"), vhost)

    def _address(self, protocol: str) -> tuple[str, int]:
        if not hasattr(self, "node"):
            raise RuntimeError("the broker has no address before its `with` block is entered")
        return self.node.addresses[protocol]

    def _users_of(self, vhost: str) -> dict[str, str]:
        """Names and passwords of users of a virtual host, its own first."""
        return {**self._wanted.get(vhost, NOTHING_SPECIAL).users, **self._config.users}

    @property
    def faults(self) -> Faults:
        """Faults for all virtual hosts."""
        from fluffle.broker.testing.faults.faults import Faults  # noqa: PLC0415  if they are used

        return Faults(self.scope())

    @property
    def clients(self) -> Clients:
        """Clients of all virtual hosts, and those that have not logged in yet."""
        from fluffle.broker.testing.faults.faults import Clients  # noqa: PLC0415  if they are used

        return Clients(self.scope())

    def scope(self, vhost: str | None = None) -> FaultScope:
        """Return what faults act on, for `operations.perform`; by default all virtual hosts."""
        if vhost not in self._scopes:
            self._scopes[vhost] = self._made_scope(vhost)
        return self._scopes[vhost]

    def _made_scope(self, vhost: str | None) -> FaultScope:
        return FaultScope(self.node.parts, self._acceptor, self.clock.call_later, vhost)

    async def mend(self) -> None:
        """End all faults, in one virtual host or in all."""
        with ExitStack() as mending:
            for scope in self._scopes.values():
                mending.callback(scope.mend)

    async def wait_until_idle(self) -> None:
        """Return when there is nothing to do for the node until a client speaks or time passes.
        TimeoutError if there always is."""
        await rested(lambda: self.node.is_at_rest, RESTS)

    def _now_ms(self) -> int:
        return self.clock.now_ms()

    def _known(self, fact: Name) -> object:
        return self.node.catalogue.known(fact)

    def _made_clock(self, call_later: CallLater) -> MovableClock:
        return MovableClock(SystemClock(), call_later, self.wait_until_idle)

    def _environment(self, place: Path, open_store: OpenStore | None) -> Environment:
        return BrokerEnvironment(place, self, open_store, self._acceptor)


class BrokerEnvironment(MachineEnvironment):
    """The environment of a broker in a test: its clocks move, and its clients can be cut off."""

    close_wait_s = CLOSE_WAIT_S

    def __init__(
        self, place: Path, broker: Broker, open_store: OpenStore | None, acceptor: ClientAcceptor
    ) -> None:
        super().__init__(place)
        self._open_store = open_store
        self._acceptor = acceptor
        self._recorder = broker.recorder
        self.clock = broker.clock
        self.call_later = broker.clock.call_later
        self.clients_call_later = broker.clients_clock.call_later

    def open_store(self, on_fatal: Callable[[StorageError], None]) -> Store:
        if self._open_store is None:
            return super().open_store(on_fatal)
        return self._open_store(on_fatal)

    async def accept(
        self, make: Callable[[], asyncio.Protocol], listening: socket.socket
    ) -> ListeningServer:
        return await self._acceptor.accept(make, listening)

    def seen_dead(self, inner: DeadLetterFrom) -> DeadLetterFrom:
        return seen_dead(self._recorder.of, inner)


def filter_packets(tap: TappedConnection, acceptor: ClientAcceptor) -> None:
    """Filter the packets of a client of MQTT."""
    from fluffle.broker.testing.faults.mqtt import tap_packets  # noqa: PLC0415  if it is used

    tap_packets(tap, acceptor)


def in_memory(disk: Disk) -> OpenStore:
    """Return a store on a disk that takes no time, in the running loop."""
    call_soon = asyncio.get_running_loop().call_soon

    def opened(on_fatal: Callable[[StorageError], None]) -> Store:
        def writer(disk: Disk, wake: Callable[[], None]) -> Writer:
            return InstantWriter(disk, lambda: call_soon(wake))

        return Store(disk, writer, on_fatal=on_fatal)

    return opened


async def create_vhost(
    parts: NodeContext, name: str, wanted: VhostRequirements, users: Iterable[str]
) -> None:
    """Create a virtual host, for `users` of the broker and those that are wanted beside them, or
    nothing.

    BrokerError, DefinitionsError, OSError, ValueError.
    """
    entries, rights = wanted.entries(), wanted.rights(users)
    if there := wanted.users.keys() & parts.access.users.keys():
        raise PreconditionFailed(f"the broker has users of these names: {', '.join(sorted(there))}")
    await ask(parts, "vhosts.add", name=name, queue_type=wanted.default_queue_type)
    try:
        for user, password in wanted.users.items():
            stored = hashed(password.encode())
            await ask(
                parts, "users.add", name=user, password_hash=stored.hash,
                hashing_algorithm=stored.algorithm,
            )  # fmt: skip
        for user, right in rights.items():
            await ask(parts, "permissions.set", vhost=name, user=user, **right._asdict())
        await make(parts, name, entries)
    except BaseException:
        await delete_vhost(parts, name, wanted)
        raise


async def make(parts: NodeContext, name: str, entries: Mapping[str, list[dict[str, Any]]]) -> None:
    """Make what definitions name.  PreconditionFailed for what is skipped."""
    for category, made in entries.items():
        row = await ask(parts, "definitions.import", category=category, entries=made, home=name)
        if row["skipped"]:
            raise PreconditionFailed(f"of the definitions is skipped: {'; '.join(row['skipped'])}")


def hang_up(parts: NodeContext, name: str) -> None:
    """Close the connections of all clients of a virtual host."""
    for connection in parts.connections:
        if connection.session is not None and connection.session.vhost.name == name:
            connection.close(ConnectionForced("the test is over"))  # which is no error to log


async def delete_vhost(parts: NodeContext, name: str, wanted: VhostRequirements) -> None:
    """Delete a virtual host with all that is in it, and those users that it came with.
    NotFound."""
    await ask(parts, "vhosts.delete", name=name)
    for user in wanted.users.keys() & parts.access.users.keys():
        await ask(parts, "users.delete", name=user, force=True)
