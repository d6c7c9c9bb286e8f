"""A plan is repeatable and ends in time; each fault does what it says and is undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import permutations
from random import Random

import pytest

from fluffle.broker.torture import history
from fluffle.broker.torture.checker import Breach
from fluffle.broker.torture.faults import (
    KINDS,
    FaultContext,
    PlannedFault,
    carry_out,
    heal,
    isolate,
    plan,
    possible,
    rejoin_slowly,
)
from fluffle.broker.torture.history import (
    Event,
    Isolated,
    Joined,
    Joining,
    PutBack,
    Rejoined,
    TurnedAway,
)
from fluffle.broker.torture.online_checker import OnlineChecker
from fluffle.broker.torture.proxy import Mesh, Proxy, mesh
from fluffle.broker.torture.system import NodeAction, NodeActionFailed, NodeAddress, System
from tests.suite.seeds import seeds

NODES, SPARES = ("a", "b", "c"), ("d", "e")
ISOLATING = (isolate, rejoin_slowly)


@dataclass
class Record:
    """A system that writes down what is done to it."""

    links: Mesh
    done: list[tuple[str, str]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def scene(self, fronts: dict[str, Proxy]) -> FaultContext:
        def doing(action: NodeAction):  # type: ignore[no-untyped-def]
            async def do(node: str) -> None:
                self.done.append((action.value, node))

            return do

        async def serves(node: str) -> None:
            self.done.append(("serves", node))

        actions = {action: doing(action) for action in NodeAction}
        actions |= {NodeAction.ISOLATE: self.links.isolate, NodeAction.REJOIN: self.links.rejoin}
        addresses, spares = (
            [NodeAddress(n, "127.0.0.1", 1) for n in names] for names in (NODES, SPARES)
        )
        system = System(addresses, actions, self.links, spares=spares)
        return FaultContext(system, fronts, self.events.append, serves, [*NODES])


@asynccontextmanager
async def stage() -> AsyncIterator[tuple[Record, FaultContext]]:
    every = (*NODES, *SPARES)
    async with mesh(dict.fromkeys(every, 1)) as links:
        record = Record(links)
        yield record, record.scene({node: Proxy("127.0.0.1", 1) for node in every})


@seeds(20)
def test_a_plan_is_repeatable_and_ends_in_time(seed: int) -> None:
    faults = plan(Random(seed), 300, NODES, [*KINDS])
    assert faults == plan(Random(seed), 300, NODES, [*KINDS])
    assert faults
    for fault in faults:
        kind = KINDS[fault.kind]
        assert 0 < fault.at_s <= fault.at_s + fault.for_s < 300
        assert len({*fault.nodes}) == (kind.nodes or len(NODES))


def test_whoever_is_struck_is_there_and_whoever_joins_is_not() -> None:
    members, sizes = {*NODES}, set[int]()
    for fault in plan(Random(1), 5_000, NODES, ["grow", "shrink", "kill", "kill-all"], SPARES):
        match fault.kind:
            case "grow":
                assert {*fault.nodes} <= {*SPARES} - members
                members.update(fault.nodes)
            case "shrink":
                assert {*fault.nodes} <= members - {*NODES}
                members.difference_update(fault.nodes)
            case "kill":
                assert {*fault.nodes} <= members
            case "kill-all":
                assert {*fault.nodes} == members
        sizes.add(len(members))
    assert sizes == {3, 4, 5}


def test_every_kind_is_drawn_sooner_or_later() -> None:
    drawn = {fault.kind for fault in plan(Random(1), 10_000, NODES, [*KINDS], SPARES)}
    assert drawn == {*KINDS}
    assert plan(Random(1), 5_000, NODES, []) == []


async def test_only_what_a_system_can_is_possible() -> None:
    lone = [NodeAddress("a", "127.0.0.1", 1)]
    clients = ["reset-clients", "silence-clients", "mute-node", "slow-clients"]
    assert possible(System(lone)) == clients
    async with stage() as (_record, scene):
        assert possible(scene.system) == [*KINDS]
        killing = {
            action: scene.system.actions[action] for action in (NodeAction.KILL, NodeAction.START)
        }
        assert possible(System(lone, killing)) == ["kill", "kill-twice", *clients]


DONE: dict[str, Sequence[str]] = {
    "kill": ["kill a", "start a", "serves a"],
    "kill-all": ["kill a", "kill b", "kill c", "start a", "start b", "start c",
                 "serves a", "serves b", "serves c"],
    "kill-twice": ["kill a", "start a", "kill a", "start a", "start a", "serves a"],
    "unplug": ["unplug a", "start a", "serves a"],
    "unplug-all": ["unplug a", "unplug b", "unplug c", "start a", "start b", "start c",
                   "serves a", "serves b", "serves c"],
    "roll-back": ["copy a", "kill a", "restore a", "start a", "refused a", "renew a", "start a",
                  "serves a"],
    "roll-back-little": ["copy a", "kill a", "restore a", "start a", "refused a", "renew a",
                         "start a", "serves a"],
    "roll-back-in-place": ["copy a", "kill a", "overwrite a", "start a", "refused a", "renew a",
                           "start a", "serves a"],
    "grow": ["start d", "joined d", "serves d", "grow d"],
    "shrink": ["shrink d", "stop d", "forget d", "wipe d"],
    "restart": ["stop a", "start a", "serves a"],
    "rolling-restart": ["stop a", "start a", "serves a", "stop b", "start b", "serves b",
                        "stop c", "start c", "serves c"],
    "pause": ["pause a", "resume a"],
    "long-pause": ["pause a", "resume a"],
    "pause-all": ["pause a", "pause b", "pause c", "resume a", "resume b", "resume c"],
    "starve": ["throttle a", "unthrottle a"],
    "starve-all": ["throttle a", "throttle b", "throttle c",
                   "unthrottle a", "unthrottle b", "unthrottle c"],
    "disk-full": ["fill a", "free a", "start a", "serves a"],
    "disk-full-two": ["fill a", "fill b", "free a", "free b", "start a", "start b",
                      "serves a", "serves b"],
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
async def test_a_fault_does_what_it_says_and_leaves_nothing_behind(name: str) -> None:
    async with stage() as (record, scene):
        kind = KINDS[name]
        scene.members += ["d"] if name == "shrink" else []
        candidates = kind.candidates(scene.members, SPARES)
        fault = PlannedFault(0.0, name, tuple(candidates[: kind.nodes or len(NODES)]), 0.0)
        await carry_out(scene, [fault])
        assert scene.members == [*NODES, *(["d"] if name == "grow" else [])]
        assert [f"{action} {node}" for action, node in record.done] == DONE.get(name, [])
        proxies = [*record.links.proxies.values(), *scene.fronts.values()]
        for flow in (flow for proxy in proxies for flow in (proxy.forth, proxy.back)):
            assert (flow.is_cut, flow.delay_s) == (False, 0.0)
        reported = [history.Fault(str(fault)), history.Fault(str(fault), is_over=True)]
        inner: list[Event] = [Isolated("a"), Rejoined("a")] if kind.act in ISOLATING else []
        if name.startswith("roll-back"):
            inner = [PutBack("a"), TurnedAway("a")]
        if name == "grow":
            inner = [Joining("d"), Joined("d")]
        assert record.events == [reported[0], *inner, reported[1]]


@pytest.mark.parametrize(
    ("kind", "late"),
    [
        ("lag", {f"{node}>a" for node in "bcde"}),
        ("lag-both-ways", {way for node in "bcde" for way in (f"{node}>a", f"a>{node}")}),
    ],
)
async def test_a_node_lags_behind_what_the_others_say(kind: str, late: set[str]) -> None:
    async with stage() as (record, scene):
        lagging = asyncio.create_task(
            carry_out(scene, [PlannedFault(0.0, kind, ("a",), 1_000.0, delay_s=1.5)])
        )
        is_late = asyncio.Event()
        scene.note = lambda _event: is_late.set()
        await is_late.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        ways = {
            f"{source}>{destination}"
            for source, destination in permutations((*NODES, *SPARES), 2)
            if all(flow.delay_s == 1.5 for flow in record.links.flows(source, destination))
        }
        lagging.cancel()
    assert ways == late


def test_how_late_a_lagging_node_is_is_drawn() -> None:
    faults = [*plan(Random(1), 5_000, NODES, ["lag", "kill"])]
    for fault in faults:
        least_s, most_s = KINDS[fault.kind].delay_s
        assert least_s <= fault.delay_s <= most_s
    delays_s = [fault.delay_s for fault in faults if fault.kind == "lag"]
    assert min(delays_s) < 0.7
    assert max(delays_s) > 1.5
    assert " by 1.50 s for" in str(PlannedFault(0.0, "lag", ("a",), 1.0, 1.5))
    assert " by " not in str(PlannedFault(0.0, "kill", ("a",), 1.0))


async def test_a_node_is_in_one_trouble_of_its_process_at_a_time() -> None:
    async with stage() as (record, scene):
        faults = [
            PlannedFault(0.0, "restart", ("a",), 0.0),
            PlannedFault(0.0, "kill-all", NODES, 0.0),
        ]
        await carry_out(scene, faults)
        done = [f"{action} {node}" for action, node in record.done]
        assert done == [*DONE["restart"], *DONE["kill-all"]]


async def test_nothing_else_is_wrong_with_nodes_while_a_disk_is_put_back_in_place() -> None:
    async with stage() as (record, scene):
        faults = [
            PlannedFault(0.0, "roll-back-in-place", ("b",), 0.0),
            PlannedFault(0.0, "kill", ("a",), 0.0),
            PlannedFault(0.0, "isolate", ("c",), 0.0),
            PlannedFault(0.0, "reset-clients", ("a",), 0.0),
        ]
        await carry_out(scene, faults)
    reported = [event.what for event in record.events if isinstance(event, history.Fault)]
    over = reported.index(str(faults[0]), reported.index(str(faults[0])) + 1)
    assert reported.index(str(faults[3])) < over
    assert over < min(reported.index(str(faults[1])), reported.index(str(faults[2])))


async def test_a_node_that_is_not_there_is_not_struck_nor_one_that_is_there_joined() -> None:
    gone = ("kill", "d"), ("shrink", "d"), ("grow", "e")
    async with stage() as (record, scene):
        scene.members.append("e")
        await carry_out(scene, [PlannedFault(0.0, kind, (node,), 0.0) for kind, node in gone])
        assert (record.done, record.events) == ([], [])


async def test_a_node_that_does_not_join_is_a_breach() -> None:
    async def stands_apart(node: str) -> None:
        raise NodeActionFailed(f"{node} has not joined")

    async with stage() as (record, scene):
        scene.system = replace(
            scene.system, actions={**scene.system.actions, NodeAction.JOINED: stands_apart}
        )
        with pytest.raises(ExceptionGroup):
            await carry_out(scene, [PlannedFault(0.0, "grow", ("d",), 0.0)])
        assert scene.members == [*NODES]
    checker = OnlineChecker()
    checker.read(record.events)
    assert checker.finish().breaches == {Breach.APART: 1}


async def test_what_comes_after_a_growth_waits_for_it() -> None:
    async with stage() as (record, scene):
        faults = [PlannedFault(0.0, kind, ("d",), 0.0) for kind in ("grow", "kill", "shrink")]
        await carry_out(scene, faults)
        done = [f"{action} {node}" for action, node in record.done]
        assert done == [*DONE["grow"], "kill d", "start d", "serves d", *DONE["shrink"]]


async def test_a_majority_is_well_unless_all_are_struck() -> None:
    async with stage() as (record, scene):
        faults = [PlannedFault(0.0, "kill", (node,), 0.0) for node in NODES]
        await carry_out(scene, faults)
        done = [f"{action} {node}" for action, node in record.done]
        assert done == [
            f"{action} {node}" for node in NODES for action in ("kill", "start", "serves")
        ]


async def test_healing_undoes_what_was_cut_short() -> None:
    async with stage() as (record, scene):
        fault = PlannedFault(0.0, "isolate", ("a",), 1_000.0)
        is_cut = asyncio.Event()
        scene.note = lambda event: is_cut.set() if isinstance(event, Isolated) else None
        running = asyncio.create_task(carry_out(scene, [fault]))
        await is_cut.wait()
        running.cancel()
        scene.fronts["b"].back.delay_s = 1.0
        await heal(scene)
        assert not record.links.proxies["a", "b"].forth.is_cut
        assert scene.fronts["b"].back.delay_s == 0.0
        assert {"resume a", "free c", "start b"} <= {f"{d} {node}" for d, node in record.done}
