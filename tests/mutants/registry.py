"""All mutants, by families: one for each kind of test that must find its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from tests.mutants.families.batches import BATCHES, HOME
from tests.mutants.families.consume import CONSUMING
from tests.mutants.families.engine import ENGINE, UNUSED
from tests.mutants.families.enqueue import PUTTING
from tests.mutants.families.formation import FORMATION
from tests.mutants.families.groups import RAFT
from tests.mutants.families.image import IMAGE, REFUSALS
from tests.mutants.families.leadership import CARRIED, LEADERSHIP, OUTBOX
from tests.mutants.families.links import LINKS
from tests.mutants.families.mqtt import MQTT
from tests.mutants.families.nodes import NODES
from tests.mutants.families.queues import QUEUES
from tests.mutants.families.retained import RETAINED
from tests.mutants.families.streams import STREAMS
from tests.mutants.families.wait import ORDER, WAITING
from tests.mutants.mutant import Mutant
from tests.mutants.tags import Tag


@dataclass(frozen=True, slots=True)
class Family:
    """Mutants that the same tests must find."""

    name: str
    own: tuple[Mutant, ...]
    tests: str
    """The file with these tests."""
    also: tuple[str, ...] = ()
    """Numbers of those that another family has, and that these tests must find, too."""

    @property
    def mutants(self) -> tuple[Mutant, ...]:
        """Mutants of this family, then those of others."""
        return (*self.own, *map(mutant, self.also))

    def each(self) -> pytest.MarkDecorator:
        """The parameter `mutant` of a test, with every one."""
        return parameter(self.mutants, self.name)


SIMULATION = "tests/simulation/test_mutants.py"
IN_QUORUM_QUEUES = "tests/broker/queues/quorum/test_image_mutants.py"

FAMILIES = {
    family.name: family
    for family in (
        Family("groups", tuple(RAFT), SIMULATION),
        Family("queues", (*QUEUES, *NODES, *ENGINE), SIMULATION),
        Family(
            "formation", tuple(FORMATION), "tests/simulation/formation/test_formation_cluster.py"
        ),
        Family("image", tuple(IMAGE), IN_QUORUM_QUEUES),
        Family("refusals", tuple(REFUSALS), IN_QUORUM_QUEUES),
        Family(
            "leadership",
            tuple(LEADERSHIP),
            IN_QUORUM_QUEUES,
            also=("R1", "R4a", "R12a", "R12b", "R14a", "R14b", "B3"),
        ),
        Family("carried", tuple(CARRIED), IN_QUORUM_QUEUES),
        Family("outbox", tuple(OUTBOX), IN_QUORUM_QUEUES, also=("R14f",)),
        Family("waiting", tuple(WAITING), "tests/broker/queues/test_ready_list_mutants.py"),
        Family("order", tuple(ORDER), "tests/broker/queues/test_engine_mutants.py"),
        Family(
            "batches", tuple(BATCHES), "tests/broker/cluster/queues/test_session_queue_mutants.py"
        ),
        Family("home", tuple(HOME), "tests/broker/cluster/queues/test_classic_queues_mutants.py"),
        Family("links", tuple(LINKS), "tests/broker/cluster/links/test_link_mutants.py", ("R20",)),
        Family(
            "streams",
            tuple(STREAMS),
            "tests/broker/cluster/queue_sessions/test_session_mutants.py",
            also=("R4b", "R4c", "R5", "R9a", "R9b", "R9c", "R13", "R15a", "R23", "R24"),
        ),
        Family("retained", tuple(RETAINED), "tests/broker/cluster/test_metadata_group_chaos.py"),
        Family("mqtt", tuple(MQTT), "tests/broker/protocols/mqtt/test_mutants.py"),
        Family(
            "consuming", tuple(CONSUMING), "tests/broker/protocols/amqp091/test_basic_methods.py"
        ),
        Family(
            "unused", tuple(UNUSED), "tests/broker/queues/quorum/test_leadership_queue_expiry.py"
        ),
        Family("putting", tuple(PUTTING), "tests/broker/protocols/amqp091/test_early_answers.py"),
    )
}

ALL = {mutant.number: mutant for family in FAMILIES.values() for mutant in family.own}


def mutant(number: str) -> Mutant:
    """The one with this number.  Raises KeyError if there is none."""
    return ALL[number]


def these(*numbers: str) -> pytest.MarkDecorator:
    """The parameter `mutant` of a test, with some that another test is responsible for."""
    return parameter(map(mutant, numbers), "")


def parameter(mutants: Iterable[Mutant], family: str) -> pytest.MarkDecorator:
    mark = pytest.mark.mutant(family)
    rows = [pytest.param(mutant, id=mutant.number, marks=mark) for mutant in mutants]
    return pytest.mark.parametrize("mutant", rows)


def faults(tags: dict[str, list[Tag]]) -> list[str]:
    """All that is wrong between the registry and the comments in the sources, a sentence each."""
    numbers = [mutant.number for family in FAMILIES.values() for mutant in family.own]
    found = [
        f"{number} is the number of two mutants"
        for number in set(numbers)
        if numbers.count(number) > 1
    ]
    found += [
        f"no comment `# mutant: {number}` is in the sources"
        for number in numbers
        if number not in tags
    ]
    for number, places in tags.items():
        lines = ", ".join(f"{tag.path}:{tag.line}" for tag in places)
        if number not in ALL:
            found.append(f"{lines} has the tag of {number}, and there is no such mutant")
        elif len(places) > 1:
            found.append(f"{lines} have the tag of {number}, and one is wanted")
    return sorted(found)
