"""Profile of a run, drawn from its seed: swarm testing.

Every run leaves out most kinds of faults and does some of them often, and has sizes and times of
its own.  One mix of everything would hide what only shows while nothing else happens.
"""

from dataclasses import dataclass, field
from random import Random

from fluffle.raft.tuning import Tuning
from tests.simulation import faults
from tests.simulation.disk import DiskProfile
from tests.simulation.network import NetworkProfile
from tests.simulation.virtual_time import MS_US
from tests.simulation.workload import WorkloadProfile


@dataclass(slots=True)
class Profile:
    """Drawn once; nothing of it depends on what happens in the run."""

    network: NetworkProfile
    workload: WorkloadProfile
    fault_rates: dict[str, float] = field(default_factory=dict)
    """Faults a minute, by the names of `faults.KINDS`."""
    commit_us: int = 2 * MS_US
    turn_us: int = 100
    is_drifting: bool = False
    has_calm: bool = False
    """In the middle nothing changes for a while, though not all is well; work must go on."""


def draw(chance: Random, node_count: int) -> Profile:
    network = NetworkProfile(
        is_stream=chance.random() < 0.6,
        delay_us=chance.choice((100, 300, 300, 3 * MS_US, 20 * MS_US)),
        tail=chance.choice((0.0, 0.01, 0.1)),
        tail_us=chance.choice((10, 100, 1_000)) * MS_US,
        loss=chance.choice((0.0, 0.0, 0.002, 0.02, 0.1)),
        repeats=chance.choice((0.0, 0.01, 0.1)),
        bytes_per_ms=chance.choice((0, 0, 0, 1_000, 100)),
        detect_us=chance.choice((1, 10, 200)) * MS_US,
        reconnect_us=chance.choice((1, 20, 200)) * MS_US,
    )
    if network.is_stream:
        network.loss /= 10
    return Profile(
        network,
        draw_workload(chance, node_count),
        {kind: draw_rate(chance) for kind in faults.KINDS if kind not in faults.DRAWN_APART},
        commit_us=chance.choice((200, 2 * MS_US, 2 * MS_US, 20 * MS_US)),
        turn_us=chance.choice((20, 100, 100, 1 * MS_US)),
        is_drifting=chance.random() < 0.2,
        has_calm=chance.random() < 0.4,
    )


def draw_rate(chance: Random) -> float:
    """Most faults never, some often."""
    return chance.choice((0.0, 0.0, 0.0, 1.0, 3.0, 10.0))


def draw_workload(chance: Random, node_count: int) -> WorkloadProfile:
    rates = {
        "publish": chance.choice((2.0, 5.0, 10.0, 30.0)),
        "settle": chance.choice((1.0, 3.0, 6.0)),
        "read": chance.choice((0.0, 0.5, 3.0)),
        "transfer": chance.choice((0.0, 0.0, 0.1, 1.0)),
        "compact": chance.choice((0.0, 0.3, 1.0, 3.0)),
        "move": chance.choice((0.0, 0.0, 0.1, 0.5)),
        "rejoin": chance.choice((0.0, 0.0, 0.1, 0.5)),
        "begin": chance.choice((0.0, 0.0, 0.1)),
        "end": chance.choice((0.0, 0.0, 0.05)),
    }
    return WorkloadProfile(
        rates,
        groups=chance.choice((1, 1, 2, 4, 8)),
        batch_max=chance.choice((1, 4, 20)),
        padding_max=chance.choice((10, 200, 3_000)),
        members=chance.choice((3, 3, min(5, node_count))),
    )


def draw_tuning(chance: Random) -> Tuning:
    """Small limits, so that they are reached."""
    append_bytes_max = chance.choice((200, 2_000, 1 << 20))
    return Tuning(
        groups_max=1 if append_bytes_max == 200 else Tuning().groups_max,
        append_bytes_max=append_bytes_max,
        window_bytes=chance.choice((500, 5_000, 8 << 20)),
        window_messages=chance.choice((1, 4, 128)),
        uncommitted_bytes_max=chance.choice((2_000, 20_000, 64 << 20)),
        cached_bytes=chance.choice((0, 1_000, 1 << 20)),
        apply_bytes_max=chance.choice((100, 1_000, 4 << 20)),
        snapshot_chunk_bytes=chance.choice((64, 300, 256 << 10)),
        snapshot_window=chance.choice((1, 4)),
    )


def draw_disk(chance: Random, profile: Profile) -> DiskProfile:
    return DiskProfile(
        commit_us=int(profile.commit_us * (0.5 + chance.random())),
        reported_us=chance.choice((20, 50, 5 * MS_US)),
        tail=chance.choice((0.0, 0.02, 0.1)),
        kept=chance.choice((0.0, 0.5, 1.0)),
    )


def draw_machine(chance: Random, profile: Profile) -> tuple[Tuning, int, float]:
    """Limits, mean time to a turn, rate of the clock."""
    rate = 1 + (chance.random() - 0.5) / 10 if profile.is_drifting else 1.0
    return draw_tuning(chance), profile.turn_us, rate
