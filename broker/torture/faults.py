"""Faults of a run and their times: drawn by chance from a seed.  A plan is pure.

A run is cut into periods.  Some of them are calm, but never the first; in each of the others a few
kinds of faults take turns, which may overlap.  All of them are over before the run is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import product
from random import Random
from typing import NamedTuple, TypeAlias

from fluffle.broker.torture import history
from fluffle.broker.torture.history import (
    Isolated,
    Joined,
    Joining,
    Note,
    PutBack,
    Rejoined,
    TurnedAway,
)
from fluffle.broker.torture.proxy import Proxy
from fluffle.broker.torture.system import NodeAction, System

WARM_UP_S = 3.0
PERIOD_S = (12.0, 40.0)
CALM_SHARE = 0.25
KINDS_AT_ONCE_MAX = 3
PAUSE_S = (2.0, 15.0)
"""Between two faults of one period; drawn anew for each period, and varied by half within it."""


class FaultTarget(Enum):
    """Part of a node that a fault strikes; each part has one fault at a time."""

    PROCESS = auto()
    LINKS = auto()
    FRONT = auto()
    """Between the node and its clients."""


class EligibleNodes(Enum):
    """Nodes that a fault may strike."""

    MEMBERS = auto()
    """Nodes that are in the cluster."""
    SPARES = auto()
    """Nodes that may join it."""
    JOINED = auto()
    """Nodes that have joined it during the run."""


class PlannedFault(NamedTuple):
    """`nodes` are as many as its kind asks for, in an order that may matter."""

    at_s: float
    kind: str
    nodes: tuple[str, ...]
    for_s: float
    delay_s: float = 0.0
    """The delay of what is sent meanwhile, where the kind has one."""

    def __str__(self) -> str:
        by = f" by {self.delay_s:.2f} s" if self.delay_s else ""
        return f"{self.kind} {' '.join(self.nodes)}{by} for {self.for_s:.1f} s at {self.at_s:.1f} s"


@dataclass(slots=True)
class FaultContext:
    """System, proxies and members that faults act on.  A majority of processes is well, unless a
    fault is for all of them."""

    system: System
    fronts: Mapping[str, Proxy]
    """Proxies that the clients connect through, by node."""
    note: Note
    serves: Callable[[str], Awaitable[None]]
    """Returns when a node serves clients."""
    members: list[str]
    """Nodes that are in the cluster, and that clients connect to."""
    _claimed: dict[tuple[str, FaultTarget], asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )
    _minority: asyncio.Semaphore = field(init=False)
    """Semaphore with one place for each process that may fail at the same time."""

    def __post_init__(self) -> None:
        self._minority = asyncio.Semaphore(max(1, (len(self.system.addresses) - 1) // 2))

    async def do(self, action: NodeAction, *nodes: str) -> None:
        """Do it to all of the nodes at once."""
        await asyncio.gather(*(self.system.actions[action](node) for node in nodes))

    @asynccontextmanager
    async def claim(self, kind: FaultKind, nodes: Sequence[str]) -> AsyncIterator[None]:
        """Claim that part of these nodes, so that no other fault touches it; of a kind that is
        alone, processes and links of all nodes."""
        claimed = [(node, kind.part) for node in sorted(nodes)]
        if kind.is_alone:
            every = sorted(address.node for address in self.system.every_address)
            claimed = [*product(every, (FaultTarget.PROCESS, FaultTarget.LINKS))]
        async with AsyncExitStack() as stack:
            is_one = len(nodes) == 1 and kind.strikes is not EligibleNodes.SPARES
            if kind.part is FaultTarget.PROCESS and is_one:
                await stack.enter_async_context(self._minority)
            for part in claimed:
                await stack.enter_async_context(self._claimed[part])
            yield

    def has(self, kind: FaultKind, nodes: Sequence[str]) -> bool:
        """True if they are still there, or not there, as the fault was drawn for."""
        is_there = kind.strikes is not EligibleNodes.SPARES
        return all((node in self.members) is is_there for node in nodes)


Act: TypeAlias = Callable[[FaultContext, PlannedFault], Awaitable[None]]


class FaultKind(NamedTuple):
    """A kind of fault: what the system must be able to, and how long it lasts."""

    act: Act
    part: FaultTarget
    seconds: tuple[float, float]
    needs: Collection[NodeAction] = ()
    nodes: int = 1
    """0: all there are."""
    needs_mesh: bool = False
    delay_s: tuple[float, float] = (0.0, 0.0)
    strikes: EligibleNodes = EligibleNodes.MEMBERS
    is_alone: bool = False
    """True if all processes and links are well meanwhile, but for what it does itself: what nodes
    have heard of each other must be known to them still."""

    def candidates(self, members: Sequence[str], spares: Sequence[str]) -> list[str]:
        """Return the nodes that it may strike; `spares` were not there at the beginning."""
        match self.strikes:
            case EligibleNodes.SPARES:
                return [node for node in spares if node not in members]
            case EligibleNodes.JOINED:
                return [node for node in members if node in spares]
            case _:
                return [*members]


async def kill(context: FaultContext, fault: PlannedFault) -> None:
    await context.do(NodeAction.KILL, *fault.nodes)
    await asyncio.sleep(fault.for_s)
    await start(context, *fault.nodes)


async def unplug(context: FaultContext, fault: PlannedFault) -> None:
    await context.do(NodeAction.UNPLUG, *fault.nodes)
    await asyncio.sleep(fault.for_s)
    await start(context, *fault.nodes)


async def kill_twice(context: FaultContext, fault: PlannedFault) -> None:
    """Kill nodes, the second time while they start."""
    for pause_s in (fault.for_s, 0.0):
        await context.do(NodeAction.KILL, *fault.nodes)
        await context.do(NodeAction.START, *fault.nodes)
        await asyncio.sleep(pause_s)
    await start(context, *fault.nodes)


async def restart(context: FaultContext, fault: PlannedFault) -> None:
    """Restart nodes one after the other, each only when the one before serves."""
    for node in fault.nodes:
        await context.do(NodeAction.STOP, node)
        await asyncio.sleep(fault.for_s)
        await start(context, node)


async def pause(context: FaultContext, fault: PlannedFault) -> None:
    await context.do(NodeAction.PAUSE, *fault.nodes)
    await asyncio.sleep(fault.for_s)
    await context.do(NodeAction.RESUME, *fault.nodes)


async def fill(context: FaultContext, fault: PlannedFault) -> None:
    """A node that ends for want of room is started again when there is some."""
    await context.do(NodeAction.FILL, *fault.nodes)
    await asyncio.sleep(fault.for_s)
    await context.do(NodeAction.FREE, *fault.nodes)
    await start(context, *fault.nodes)


async def roll_back(context: FaultContext, fault: PlannedFault) -> None:
    """Roll a disk back to a copy of its files."""
    await put_disk_back(context, fault, NodeAction.RESTORE)


async def roll_back_in_place(context: FaultContext, fault: PlannedFault) -> None:
    """Roll a disk back in the files that it has, as a snapshot of its blocks does: only the other
    nodes can detect it."""
    await put_disk_back(context, fault, NodeAction.OVERWRITE)


async def put_disk_back(context: FaultContext, fault: PlannedFault, how: NodeAction) -> None:
    """Put a disk back: what the node confirms after the copy is not on it when the node starts."""
    (node,) = fault.nodes
    await context.do(NodeAction.COPY, node)
    await asyncio.sleep(fault.for_s)
    await context.do(NodeAction.KILL, node)
    await context.do(how, node)
    context.note(PutBack(node))
    await context.do(NodeAction.START, node)
    await context.do(NodeAction.REFUSED, node)
    context.note(TurnedAway(node))
    await context.do(NodeAction.RENEW, node)
    await start(context, node)


async def grow(context: FaultContext, fault: PlannedFault) -> None:
    """A node without data joins by itself while clients work; some come to it, then queues."""
    (node,) = fault.nodes
    context.note(Joining(node))
    await context.do(NodeAction.START, node)
    await context.do(NodeAction.JOINED, node)
    context.note(Joined(node))
    await context.serves(node)
    context.members.append(node)
    await asyncio.sleep(fault.for_s)
    await context.do(NodeAction.GROW, node)


async def shrink(context: FaultContext, fault: PlannedFault) -> None:
    """Remove the members of all queues from a node; what it has confirmed is with the others
    before."""
    (node,) = fault.nodes
    await context.do(NodeAction.SHRINK, node)
    context.members.remove(node)
    await context.do(NodeAction.STOP, node)
    await asyncio.sleep(fault.for_s)
    await context.do(NodeAction.FORGET, node)
    await context.do(NodeAction.WIPE, node)


async def start(context: FaultContext, *nodes: str) -> None:
    """Start all nodes at once, and wait until they serve."""
    await context.do(NodeAction.START, *nodes)
    await asyncio.gather(*map(context.serves, nodes))


async def isolate(context: FaultContext, fault: PlannedFault) -> None:
    (node,) = fault.nodes
    await context.do(NodeAction.ISOLATE, node)
    context.note(Isolated(node))
    await asyncio.sleep(fault.for_s)
    context.note(Rejoined(node))
    await context.do(NodeAction.REJOIN, node)


async def deafen(context: FaultContext, fault: PlannedFault) -> None:
    """Cut one direction: the second node gets nothing of the first any more; the first still hears
    the second."""
    assert context.system.mesh is not None
    source, destination = fault.nodes
    context.system.mesh.cut(source, destination)
    await asyncio.sleep(fault.for_s)
    context.system.mesh.mend(source, destination)


async def part(context: FaultContext, fault: PlannedFault) -> None:
    """Two nodes, both of which the third can talk to."""
    one, other = fault.nodes
    await asyncio.gather(
        deafen(context, fault), deafen(context, fault._replace(nodes=(other, one)))
    )


async def flap(context: FaultContext, fault: PlannedFault) -> None:
    """A link is cut and mended, ten times."""
    for _ in range(10):
        await part(context, fault._replace(for_s=fault.for_s / 20))
        await asyncio.sleep(fault.for_s / 20)


async def slow(context: FaultContext, fault: PlannedFault) -> None:
    """Between two nodes everything takes longer; the more, the longer it lasts."""
    mesh = context.system.mesh
    assert mesh is not None
    one, other = fault.nodes
    for delay_s in (fault.for_s / 40, 0.0):
        mesh.delay(one, other, delay_s)
        mesh.delay(other, one, delay_s)
        if delay_s:
            await asyncio.sleep(fault.for_s)


async def lag(context: FaultContext, fault: PlannedFault) -> None:
    """Delay what the others send to a node: it suspects them, and goes on to serve clients."""
    (node,) = fault.nodes
    await delay_links(context, fault, [(other, node) for other in every_node(context)])


async def lag_both_ways(context: FaultContext, fault: PlannedFault) -> None:
    """Delay what the node sends to the others, too."""
    (node,) = fault.nodes
    others = every_node(context)
    ways = [(other, node) for other in others] + [(node, other) for other in others]
    await delay_links(context, fault, ways)


async def rejoin_slowly(context: FaultContext, fault: PlannedFault) -> None:
    """Cut off for about as long as clients are kept waiting; then what the others send is late."""
    await isolate(context, fault)
    await lag(context, fault._replace(for_s=min(fault.for_s, LAG_AFTER_S)))


def every_node(context: FaultContext) -> list[str]:
    """Return all nodes, and those that may come meanwhile."""
    return [address.node for address in context.system.every_address]


async def delay_links(
    context: FaultContext, fault: PlannedFault, ways: Sequence[tuple[str, str]]
) -> None:
    mesh = context.system.mesh
    assert mesh is not None
    links = [(source, destination) for source, destination in ways if source != destination]
    for delay_s in (fault.delay_s, 0.0):
        for source, destination in links:
            mesh.delay(source, destination, delay_s)
        if delay_s:
            await asyncio.sleep(fault.for_s)


async def starve(context: FaultContext, fault: PlannedFault) -> None:
    """A small part of a processor is left, in pieces."""
    await context.do(NodeAction.THROTTLE, *fault.nodes)
    await asyncio.sleep(fault.for_s)
    await context.do(NodeAction.UNTHROTTLE, *fault.nodes)


async def reset(context: FaultContext, fault: PlannedFault) -> None:
    assert context.system.mesh is not None
    context.system.mesh.reset(*fault.nodes)


async def reset_clients(context: FaultContext, fault: PlannedFault) -> None:
    (node,) = fault.nodes
    context.fronts[node].reset()


async def silence_clients(context: FaultContext, fault: PlannedFault) -> None:
    """Cut clients off: they can neither reach the node nor be reached."""
    front = context.fronts[fault.nodes[0]]
    for flow in (front.forth, front.back):
        flow.cut()
    await asyncio.sleep(fault.for_s)
    for flow in (front.forth, front.back):
        flow.mend()


async def mute_node(context: FaultContext, fault: PlannedFault) -> None:
    """Drop what a node sends to its clients; what they send arrives."""
    flow = context.fronts[fault.nodes[0]].back
    flow.cut()
    await asyncio.sleep(fault.for_s)
    flow.mend()


async def slow_clients(context: FaultContext, fault: PlannedFault) -> None:
    front = context.fronts[fault.nodes[0]]
    front.forth.delay_s = front.back.delay_s = fault.for_s / 40
    await asyncio.sleep(fault.for_s)
    front.forth.delay_s = front.back.delay_s = 0.0


KILLING = (NodeAction.KILL, NodeAction.START)
UNPLUGGING = (NodeAction.UNPLUG, NodeAction.START)
RESTARTING = (NodeAction.STOP, NodeAction.START)
PAUSING = (NodeAction.PAUSE, NodeAction.RESUME)
ROLLING_BACK = (
    NodeAction.COPY,
    NodeAction.KILL,
    NodeAction.RESTORE,
    NodeAction.START,
    NodeAction.REFUSED,
    NodeAction.RENEW,
)
ROLLING_BACK_IN_PLACE = (
    *(action for action in ROLLING_BACK if action is not NodeAction.RESTORE),
    NodeAction.OVERWRITE,
)
GROWING = (NodeAction.START, NodeAction.JOINED, NodeAction.GROW)
SHRINKING = (*GROWING, NodeAction.SHRINK, NodeAction.STOP, NodeAction.FORGET, NodeAction.WIPE)
STARVING = (NodeAction.THROTTLE, NodeAction.UNTHROTTLE)
LAG_S = (0.3, 3.0)
LAG_AFTER_S = 6.0

KINDS: dict[str, FaultKind] = {
    "kill": FaultKind(kill, FaultTarget.PROCESS, (0.0, 8.0), KILLING),
    "kill-all": FaultKind(kill, FaultTarget.PROCESS, (0.0, 3.0), KILLING, nodes=0),
    "kill-twice": FaultKind(kill_twice, FaultTarget.PROCESS, (0.01, 0.5), KILLING),
    "unplug": FaultKind(unplug, FaultTarget.PROCESS, (0.0, 8.0), UNPLUGGING),
    "unplug-all": FaultKind(unplug, FaultTarget.PROCESS, (0.0, 3.0), UNPLUGGING, nodes=0),
    "restart": FaultKind(restart, FaultTarget.PROCESS, (0.0, 4.0), RESTARTING),
    "rolling-restart": FaultKind(restart, FaultTarget.PROCESS, (0.0, 1.0), RESTARTING, nodes=0),
    "pause": FaultKind(pause, FaultTarget.PROCESS, (0.5, 20.0), PAUSING),
    "long-pause": FaultKind(pause, FaultTarget.PROCESS, (60.0, 65.0), PAUSING),
    "pause-all": FaultKind(pause, FaultTarget.PROCESS, (0.5, 10.0), PAUSING, nodes=0),
    "starve": FaultKind(starve, FaultTarget.PROCESS, (3.0, 20.0), STARVING),
    "starve-all": FaultKind(starve, FaultTarget.PROCESS, (3.0, 15.0), STARVING, nodes=0),
    "disk-full": FaultKind(
        fill, FaultTarget.PROCESS, (2.0, 10.0), (NodeAction.FILL, NodeAction.FREE, NodeAction.START)
    ),
    "disk-full-two": FaultKind(
        fill,
        FaultTarget.PROCESS,
        (2.0, 10.0),
        (NodeAction.FILL, NodeAction.FREE, NodeAction.START),
        nodes=2,
    ),
    "roll-back": FaultKind(roll_back, FaultTarget.PROCESS, (1.0, 8.0), ROLLING_BACK),
    "roll-back-little": FaultKind(roll_back, FaultTarget.PROCESS, (0.02, 0.3), ROLLING_BACK),
    "roll-back-in-place": FaultKind(
        roll_back_in_place, FaultTarget.PROCESS, (2.0, 8.0), ROLLING_BACK_IN_PLACE, is_alone=True
    ),
    "grow": FaultKind(grow, FaultTarget.PROCESS, (0.0, 5.0), GROWING, strikes=EligibleNodes.SPARES),
    "shrink": FaultKind(
        shrink, FaultTarget.PROCESS, (0.0, 5.0), SHRINKING, strikes=EligibleNodes.JOINED
    ),
    "isolate": FaultKind(
        isolate, FaultTarget.LINKS, (1.0, 25.0), (NodeAction.ISOLATE, NodeAction.REJOIN)
    ),
    "rejoin-slowly": FaultKind(
        rejoin_slowly,
        FaultTarget.LINKS,
        (27.0, 31.0),
        (NodeAction.ISOLATE, NodeAction.REJOIN),
        needs_mesh=True,
        delay_s=LAG_S,
    ),
    "deafen": FaultKind(deafen, FaultTarget.LINKS, (1.0, 15.0), nodes=2, needs_mesh=True),
    "part": FaultKind(part, FaultTarget.LINKS, (1.0, 25.0), nodes=2, needs_mesh=True),
    "flap": FaultKind(flap, FaultTarget.LINKS, (2.0, 15.0), nodes=2, needs_mesh=True),
    "slow": FaultKind(slow, FaultTarget.LINKS, (2.0, 15.0), nodes=2, needs_mesh=True),
    "lag": FaultKind(lag, FaultTarget.LINKS, (4.0, 20.0), needs_mesh=True, delay_s=LAG_S),
    "lag-both-ways": FaultKind(
        lag_both_ways, FaultTarget.LINKS, (4.0, 20.0), needs_mesh=True, delay_s=LAG_S
    ),
    "reset": FaultKind(reset, FaultTarget.LINKS, (0.0, 0.0), nodes=2, needs_mesh=True),
    "reset-clients": FaultKind(reset_clients, FaultTarget.FRONT, (0.0, 0.0)),
    "silence-clients": FaultKind(silence_clients, FaultTarget.FRONT, (1.0, 15.0)),
    "mute-node": FaultKind(mute_node, FaultTarget.FRONT, (1.0, 10.0)),
    "slow-clients": FaultKind(slow_clients, FaultTarget.FRONT, (2.0, 15.0)),
}
"""Faults by name, as they are chosen and reported."""


def possible(system: System) -> list[str]:
    """Return the kinds that a system can be given."""
    actions, count = {*system.actions}, len(system.addresses)
    return [
        name
        for name, kind in KINDS.items()
        if actions >= {*kind.needs}
        and count >= kind.nodes
        and not (kind.needs_mesh and system.mesh is None)
        and not (kind.nodes == 0 and count == 1)
        and (system.spares or kind.strikes is EligibleNodes.MEMBERS)
    ]


def plan(
    random: Random,
    seconds: float,
    nodes: Sequence[str],
    kinds: Sequence[str],
    spares: Sequence[str] = (),
) -> list[PlannedFault]:
    """Plan faults in the order of their beginnings; all end in time.  `spares` may join those
    nodes."""
    faults: list[PlannedFault] = []
    members = [*nodes]
    began_s = WARM_UP_S
    while began_s < seconds and kinds:
        stop_s = began_s + random.uniform(*PERIOD_S)
        count = min(random.randint(1, KINDS_AT_ONCE_MAX), len(kinds))
        chosen = random.sample(kinds, count)
        if faults and random.random() < CALM_SHARE:
            began_s = stop_s
        pause_s = random.uniform(*PAUSE_S)
        while began_s < stop_s:
            name = random.choice(chosen)
            kind = KINDS[name]
            for_s = random.uniform(*kind.seconds)
            candidates = kind.candidates(members, spares)
            picked = random.sample(candidates, min(kind.nodes or len(members), len(candidates)))
            delay_s = random.uniform(*kind.delay_s)
            if picked and began_s + for_s < seconds:
                faults.append(PlannedFault(began_s, name, tuple(picked), for_s, delay_s))
                members = members_after(kind, picked, members)
            overlap = random.random() if len(nodes) > 1 else 0.0
            began_s += pause_s * random.uniform(0.5, 1.5) + for_s * (1.0 - overlap)
    return faults


def members_after(kind: FaultKind, nodes: Sequence[str], members: Sequence[str]) -> list[str]:
    """Return the nodes in the cluster when a fault of this kind is over."""
    match kind.strikes:
        case EligibleNodes.SPARES:
            return [*members, *nodes]
        case EligibleNodes.JOINED:
            return [node for node in members if node not in nodes]
        case _:
            return [*members]


async def carry_out(context: FaultContext, faults: Sequence[PlannedFault]) -> None:
    """Carry out all faults, each at its time or when it may; return when the last is over."""

    async def one(fault: PlannedFault) -> None:
        await asyncio.sleep(fault.at_s)
        kind = KINDS[fault.kind]
        async with context.claim(kind, fault.nodes):
            if not context.has(kind, fault.nodes):
                return  # it is gone since, or has not come
            context.note(history.Fault(str(fault)))
            await kind.act(context, fault)
            context.note(history.Fault(str(fault), is_over=True))

    async with asyncio.TaskGroup() as group:
        for fault in faults:
            group.create_task(one(fault))


async def heal(context: FaultContext) -> None:
    """Undo everything, whether it was done or not."""
    proxies = [*context.fronts.values()]
    if context.system.mesh is not None:
        proxies += context.system.mesh.proxies.values()
    for proxy in proxies:
        proxy.forth.restore()
        proxy.back.restore()
    for action in (
        NodeAction.UNTHROTTLE,
        NodeAction.RESUME,
        NodeAction.REJOIN,
        NodeAction.FREE,
        NodeAction.START,
    ):
        if action in context.system.actions:
            await context.do(action, *context.members)
