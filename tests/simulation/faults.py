"""Faults of a run: a list, each at its time, so that any can be left out.

A fault begins, maybe returns how it ends, and draws from chance of its own.  Damage that no
protocol survives by design is not done: disks are hurt one at a time, only where every
configuration in use has two other voters at least, and the next only after the last is mended.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random

from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.raft.config import Configuration, NodeId
from tests.simulation.cluster import Cluster
from tests.simulation.disk import Backup, KnownProgress
from tests.simulation.registry import GroupSpec
from tests.simulation.virtual_time import MS_US, SECOND_US
from tests.support.raft_memory import DiskImage

HOUR_MS = 3_600_000

STARVED_US = 10 * SECOND_US
"""A machine is starved for longer than most faults last: what it costs is known only then."""


@dataclass(slots=True, frozen=True)
class Fault:
    """Fault with its kind, its time and its chance."""

    number: int
    kind: str
    at_us: int
    lasts_us: int


AGAIN_US = SECOND_US // 4
COPY_US = SECOND_US // 10
"""Time between two copies of a disk that is put back by a little."""
COPIES_MAX = 50

Undo = Callable[[], bool | None]
"""Function that ends a fault; True if it is to be tried again in a while."""


class Faults:
    """Lets a plan happen."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ended = 0
        """How often all that was going on was ended at once."""

    def follow(self, plan: Collection[Fault]) -> None:
        for fault in plan:
            self._cluster.clockwork.at(fault.at_us, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        clockwork = self._cluster.clockwork
        undo = KINDS[fault.kind](self._cluster, clockwork.chance(f"fault {fault.number}"))
        if undo is not None:
            clockwork.after(fault.lasts_us, self._end, undo, self._ended)

    def _end(self, undo: Undo, ended: int) -> None:
        if ended == self._ended and undo():
            self._cluster.clockwork.after(AGAIN_US, self._end, undo, ended)

    def end_all(self) -> None:
        """All that goes on ends now: what an end would do, as to go back, is not done any more."""
        self._ended += 1
        heal(self._cluster)

    def stop(self) -> None:
        """Stop all faults for good; hurt disks are found."""
        self._cluster.network.profile = self._cluster.network.profile.calmed()
        self.end_all()


def heal(cluster: Cluster) -> None:
    """Everything works, everybody runs, and whoever is damaged starts anew, to notice."""
    for a, b in pairs(cluster):
        cluster.network.mend(a, b)
        cluster.network.slow(a, b, 0)
        cluster.network.release(a, b)
    for name, machine in cluster.machines.items():
        machine.disk.has_room = True
        machine.disk.fails_next = False
        machine.disk.resume()
        machine.turn_us = machine.usual_turn_us
        machine.set_clock(cluster.clockwork.now_us, rate=machine.usual_rate)
        cluster.resume(name)
        if machine.has_damage:
            cluster.kill(name, is_silent=False)
        cluster.start(name)


def draw_plan(
    chance: Random, rates: dict[str, float], first_us: int, stop_us: int, offset: int = 0
) -> list[Fault]:
    """Faults between two moments; `rates` a minute."""
    plan: list[Fault] = []
    for kind, rate in sorted(rates.items()):
        at_us = first_us
        while rate:
            at_us += int(chance.expovariate(rate / 60) * SECOND_US)
            if at_us >= stop_us:
                break
            mean_s = chance.choice((0.05, 0.5, 1.5, 5.0))
            lasts_us = int(chance.expovariate(1 / mean_s) * SECOND_US)
            plan.append(Fault(offset + len(plan), kind, at_us, lasts_us))
    return plan


def pairs(cluster: Cluster) -> list[tuple[NodeId, NodeId]]:
    """All ordered pairs of nodes."""
    return [(a, b) for a in cluster.names for b in cluster.names if a != b]


# Processes


def crash(cluster: Cluster, chance: Random) -> Undo:
    name = chance.choice(cluster.names)
    cluster.kill(name, is_silent=chance.random() < 0.4)
    return lambda: cluster.start(name)


def crash_many(cluster: Cluster, chance: Random) -> Undo:
    """Some, or all; they come back one after the other."""
    names = chance.sample(cluster.names, chance.randint(2, len(cluster.names)))
    for name in names:
        cluster.kill(name, is_silent=chance.random() < 0.4)

    def undo() -> None:
        for name in names:
            cluster.clockwork.after(int(chance.random() * SECOND_US), cluster.start, name)

    return undo


def crash_quickly(cluster: Cluster, chance: Random) -> None:
    """Back before anybody noticed."""
    name = chance.choice(cluster.names)
    cluster.kill(name, is_silent=chance.random() < 0.5)
    cluster.clockwork.after(int(chance.random() * 300 * MS_US), cluster.start, name)


def pause(cluster: Cluster, chance: Random) -> Undo:
    name = chance.choice(cluster.names)
    cluster.pause(name)
    return lambda: cluster.resume(name)


def busy(cluster: Cluster, chance: Random) -> Undo:
    """A processor a hundred times too slow."""
    machine = cluster.machines[chance.choice(cluster.names)]
    machine.turn_us = min(machine.usual_turn_us * 100, 100 * MS_US)

    def undo() -> None:
        machine.turn_us = machine.usual_turn_us

    return undo


def starve(cluster: Cluster, chance: Random) -> Undo:
    """A machine gets a turn now and then: it is late with everything, again and again."""
    machine = cluster.machines[chance.choice(cluster.names)]
    machine.turn_us = chance.choice((300, 600, 1_000)) * MS_US

    def undo() -> None:
        cluster.clockwork.after(STARVED_US, recover)

    def recover() -> None:
        machine.turn_us = machine.usual_turn_us

    return undo


def jump(cluster: Cluster, chance: Random) -> None:
    machine = cluster.machines[chance.choice(cluster.names)]
    machine.set_clock(cluster.clockwork.now_us, jump_ms=int(chance.expovariate(1 / 2_000)))
    if machine.process is not None:
        machine.process.feed(_nothing)


def drift(cluster: Cluster, chance: Random) -> Undo:
    machine = cluster.machines[chance.choice(cluster.names)]
    machine.set_clock(cluster.clockwork.now_us, rate=chance.choice((0.5, 0.9, 1.1, 2.0)))
    return lambda: machine.set_clock(cluster.clockwork.now_us, rate=machine.usual_rate)


def set_wall(cluster: Cluster, chance: Random) -> Undo:
    """Set the wall clock; what the machine counts goes on."""
    machine = cluster.machines[chance.choice(cluster.names)]
    by_ms = int(chance.choice((-1, 1)) * chance.expovariate(1 / chance.choice((500, HOUR_MS))))
    machine.wall_ahead_ms += by_ms

    def undo() -> None:
        machine.wall_ahead_ms -= by_ms

    return undo


# The network


def cut(cluster: Cluster, ways: Collection[tuple[NodeId, NodeId]]) -> Undo:
    for a, b in ways:
        cluster.network.cut(a, b)

    def undo() -> None:
        for a, b in ways:
            cluster.network.mend(a, b)

    return undo


def isolate(cluster: Cluster, chance: Random) -> Undo:
    """Cut one node off in one direction or both."""
    name, kind = chance.choice(cluster.names), chance.randrange(3)
    ways = [(a, b) for a, b in pairs(cluster) if (a == name and kind != 1) or (b == name and kind)]
    return cut(cluster, ways)


def halves(cluster: Cluster, chance: Random) -> Undo:
    names = chance.sample(cluster.names, len(cluster.names))
    side = set(names[: chance.randint(1, len(names) - 1)])
    return cut(cluster, [(a, b) for a, b in pairs(cluster) if (a in side) != (b in side)])


def bridge(cluster: Cluster, chance: Random) -> Undo:
    """Two sides, and one node that both can reach."""
    middle, *names = chance.sample(cluster.names, len(cluster.names))
    side = set(names[: len(names) // 2])
    ways = [(a, b) for a, b in pairs(cluster) if middle not in (a, b)]
    return cut(cluster, [(a, b) for a, b in ways if (a in side) != (b in side)])


def ring(cluster: Cluster, chance: Random) -> Undo:
    """Each node reaches its neighbours only: a majority of five, but no two the same."""
    names = chance.sample(cluster.names, len(cluster.names))
    place = {name: at for at, name in enumerate(names)}
    count = len(names)
    ways = [
        (a, b) for a, b in pairs(cluster) if (place[a] - place[b]) % count not in (1, count - 1)
    ]
    return cut(cluster, ways)


def one_way(cluster: Cluster, chance: Random) -> Undo:
    ways = pairs(cluster)
    return cut(cluster, chance.sample(ways, chance.randint(1, len(ways) // 2)))


def slow(cluster: Cluster, chance: Random) -> Undo:
    ways = chance.sample(pairs(cluster), chance.randint(1, len(cluster.names)))
    for a, b in ways:
        cluster.network.slow(a, b, int(chance.expovariate(1 / (200 * MS_US))))

    def undo() -> None:
        for a, b in ways:
            cluster.network.slow(a, b, 0)

    return undo


def hold(cluster: Cluster, chance: Random) -> Undo:
    """Some frames come long after those that were sent later: news of another time."""
    ways = chance.sample(pairs(cluster), chance.randint(1, len(cluster.names)))
    share = chance.choice((0.1, 0.5))
    for a, b in ways:
        cluster.network.hold(a, b, share)

    def undo() -> None:
        for a, b in ways:
            cluster.network.release(a, b)

    return undo


def reset(cluster: Cluster, chance: Random) -> None:
    for a, b in chance.sample(pairs(cluster), chance.randint(1, len(cluster.names))):
        cluster.network.reset(a, b)


# Disks


def stall(cluster: Cluster, chance: Random) -> Undo:
    disk = cluster.machines[chance.choice(cluster.names)].disk
    disk.is_stalled = True
    return disk.resume


def slow_disk(cluster: Cluster, chance: Random) -> Undo:
    disk = cluster.machines[chance.choice(cluster.names)].disk
    disk.slowness = chance.choice((5, 50, 200))
    return disk.resume


def failing_disk(cluster: Cluster, chance: Random) -> Undo:
    """A commit ends in an error; nobody knows what of it is there, and the process ends."""
    name = chance.choice(cluster.names)
    cluster.machines[name].disk.fails_next = True
    return lambda: cluster.start(name)


def full_disk(cluster: Cluster, chance: Random) -> Undo:
    """Alarms see before the host does that there is room again."""
    name = chance.choice(cluster.names)
    machine = cluster.machines[name]
    machine.disk.has_room = False

    def look() -> None:
        if machine.process is not None:
            machine.process.host.space.look()

    def undo() -> None:
        machine.disk.has_room = True
        cluster.awake(name, look)

    return undo


# Damage


def flip(cluster: Cluster, chance: Random) -> Undo | None:
    """Flip bits, which the first reader finds; or a start, at the end."""
    name = chance.choice(cluster.names)
    if not flip_bits(cluster, chance, name):
        return None

    def undo() -> None:
        if cluster.machines[name].has_damage:
            restart(cluster, name)

    return undo


def relapse(cluster: Cluster, chance: Random) -> Undo | None:
    """A start finds the damage, and the process dies again, maybe before it is mended."""
    name = chance.choice(cluster.names)
    if not flip_bits(cluster, chance, name):
        return None
    restart(cluster, name)
    return lambda: restart(cluster, name)


def restart(cluster: Cluster, name: NodeId) -> None:
    cluster.kill(name, is_silent=False)
    cluster.start(name)


def flip_bits(cluster: Cluster, chance: Random, name: NodeId) -> bool:
    """In some entries of one group, or in the state of its snapshot, or in its head."""
    machine = cluster.machines[name]
    images = machine.disk.image.groups
    if not images or not may_be_hurt(cluster, name):
        return False
    group = chance.choice(sorted(images))
    image = images[group]
    machine.is_hurt = True
    kind = chance.random()
    if kind < 0.1:
        image.is_head_damaged = True
    elif kind < 0.3 and image.meta.index:
        image.is_state_damaged = True
    elif image.entries:
        count = chance.randint(1, min(3, len(image.entries)))
        image.damaged.update(chance.sample(sorted(image.entries), count))
    return True


def wipe(cluster: Cluster, chance: Random) -> Undo | None:
    """The machine comes back with an empty disk."""
    name = chance.choice(cluster.names)
    if not may_be_hurt(cluster, name):
        return None
    cluster.kill(name, is_silent=True)
    cluster.lose_disk(name, DiskImage())
    return lambda: cluster.start(name)


def go_back(cluster: Cluster, chance: Random) -> Undo | None:
    """The disk is replaced by a copy of a while ago, as by restoring a backup."""
    name = chance.choice(cluster.names)
    old = cluster.machines[name].disk.image.copy()

    def undo() -> None:
        if may_be_hurt(cluster, name):
            cluster.kill(name, is_silent=True)
            cluster.lose_disk(name, old)
            cluster.clockwork.after(SECOND_US, cluster.start, name)

    return undo


def roll_back(cluster: Cluster, chance: Random) -> Undo | None:
    """The disk is put back to what it was in the same life: to a copy of its files, which the node
    finds out alone, or of its blocks, which only others can know.

    That is done only while all others remember what it has had since: what else there is nobody
    finds out, by design.  Of blocks it is often the last copy of which that is so: then few commits
    are missing, and soon it has made more than it ever had.
    """
    name, is_copy = chance.choice(cluster.names), chance.random() < 0.5
    is_little = not is_copy and chance.random() < 0.7
    disk, facts = cluster.machines[name].disk, cluster.watch.facts
    first = disk.backup()
    copies = [(first, facts.backup(name))]

    def is_same_life() -> bool:
        return disk.boot == first.boot and disk.marks.lives == first.marks.lives

    def copy_again(left: int) -> None:
        if left and copies and is_same_life():
            copies.append((disk.backup(), facts.backup(name)))
            cluster.clockwork.after(COPY_US, copy_again, left - 1)

    def undo() -> bool:
        if not is_same_life():
            copies.clear()
            return False
        remembered = [each for each in copies if is_copy or is_remembered(cluster, name, each[0])]
        if not remembered or not may_be_hurt(cluster, name):
            return True
        backup, stored = remembered[-1]
        copies.clear()
        cluster.kill(name, is_silent=True)
        cluster.put_back(name, backup, stored, is_copy=is_copy)
        cluster.clockwork.after(SECOND_US, cluster.start, name)
        return False

    if is_little:
        cluster.clockwork.after(COPY_US, copy_again, COPIES_MAX)
    return undo


def is_remembered(cluster: Cluster, name: NodeId, backup: Backup) -> bool:
    """True if all others have it on their disks that this one has come further, as the member that
    it is; when it was copied it may have been none yet."""
    group = cluster.machines[name].disk.image.groups.get(METADATA_GROUP)
    if group is None or not group.last_index:
        return False
    others = [machine.disk for other, machine in cluster.machines.items() if other != name]
    return all(
        any(
            row.incarnation == group.incarnation and row.commit > backup.marks.commit_number
            for row in disk.marks.reached.get(name, KnownProgress()).rows
        )
        for disk in others
    )


def may_be_hurt(cluster: Cluster, name: NodeId) -> bool:
    """True if this disk is not needed by anybody, and no other is hurt, or as good as that."""
    note_mended(cluster)
    if any(machine.is_hurt for machine in cluster.machines.values()):
        return False
    for spec in cluster.registry.living():
        if is_another_missing(cluster, spec, name) or are_few_soon(spec, name):
            return False
    return all(
        len(config.voters) >= 3
        for config in configs_in_use(cluster)
        if config.member_on(name) in config.voters
    )


def is_another_missing(cluster: Cluster, spec: GroupSpec, name: NodeId) -> bool:
    """True if a voter beside this one has nothing of their group, as a founder that has not heard
    of it yet: the others may take it for lost, and go on without it."""
    voters, stored = spec.config.voters, cluster.watch.facts.stored
    return spec.config.member_on(name) in voters and any(
        spec.group not in stored[voter.node] for voter in voters if voter.node != name
    )


def are_few_soon(spec: GroupSpec, name: NodeId) -> bool:
    """True if fewer than three of its group are to stay: whoever leads it sends the others away,
    and may not know yet that this disk is lost."""
    staying = {voter.node for voter in spec.config.voters} & spec.wanted
    return spec.is_defined and spec.config.member_on(name) is not None and len(staying) < 3


def configs_in_use(cluster: Cluster) -> list[Configuration]:
    """Configurations of all groups in any log, on disk or not, and those they begin with."""
    facts = cluster.watch.facts
    found: list[Configuration] = []
    for spec in cluster.registry.living():
        found += [spec.initial, spec.config] if spec.config_index == 0 else [spec.config]
        for views in (facts.stored, facts.replicas):
            logs = [groups[spec.group].log for groups in views.values() if spec.group in groups]
            found += [config for log in logs for _, config in log.configs if config.voters]
    return found


def note_mended(cluster: Cluster) -> None:
    """Mark nodes as mended that were hurt and have everything again."""
    stored = cluster.watch.facts.stored
    for name, machine in cluster.machines.items():
        if not machine.is_hurt or machine.process is None or machine.has_damage:
            continue
        if machine.is_put_back:
            continue
        is_quarantined = any(found.quarantine for found in stored[name].values())
        is_burnt = any(
            member.node == name and member in spec.burnt
            for spec in cluster.registry.living()
            for member in (*spec.config.members, *spec.initial.members)
            if member in spec.config.members or spec.config_index == 0
        )
        machine.is_hurt = is_quarantined or is_burnt


def _nothing() -> None:
    """A turn, to look at the clock."""


KINDS: dict[str, Callable[[Cluster, Random], Undo | None]] = {
    "crash": crash,
    "crash many": crash_many,
    "crash quickly": crash_quickly,
    "pause": pause,
    "busy": busy,
    "jump": jump,
    "drift": drift,
    "set wall": set_wall,
    "isolate": isolate,
    "halves": halves,
    "bridge": bridge,
    "ring": ring,
    "one way": one_way,
    "slow": slow,
    "hold": hold,
    "reset": reset,
    "stall": stall,
    "slow disk": slow_disk,
    "failing disk": failing_disk,
    "full disk": full_disk,
    "flip": flip,
    "relapse": relapse,
    "wipe": wipe,
    "go back": go_back,
    "roll back": roll_back,
    "starve": starve,
}

DRAWN_APART = ("roll back", "starve")
"""Kinds with chance of their own, so that all else of a seed stays as it was without them."""
