"""Which version of entries may be written: by what is on record, and by what nodes say."""

from __future__ import annotations

from fluffle.broker.queues.quorum.encoding import FIRST_VERSION
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.entry_version import EntryVersions
from fluffle.broker.queues.quorum.facts import VersionAnnounced
from fluffle.broker.queues.quorum.image import Image


class Harness:
    """A leadership's, with an image of which the test says what is on record."""

    def __init__(self, reads: int, **known: int) -> None:
        self.known = known
        self.image = Image(reads=reads)
        self.builder = EntryBuilder(self.image.state)
        self.announcing = EntryVersions(self.image, self.builder, lambda: self.known)

    def said(self) -> list[tuple[str, int]]:
        """What is news, which is then on its way."""
        self.announcing.announce()
        facts = self.builder.finish(0).facts if self.builder else []
        assert all(isinstance(fact, VersionAnnounced) for fact in facts)
        return [(fact.member, fact.version) for fact in facts]  # type: ignore[union-attr]

    def apply(self, **versions: int) -> None:
        self.image.state.versions.update(versions)


def test_what_is_said_is_not_on_record_before_it_is_applied() -> None:
    harness = Harness(3, a=3, b=2)
    assert harness.said() == [("a", 3), ("b", 2)]
    assert harness.said() == []
    assert harness.announcing.version == FIRST_VERSION
    harness.apply(a=3, b=2)
    assert harness.announcing.version == 2


def test_no_more_is_written_than_is_read_here() -> None:
    harness = Harness(2, a=2, b=5)
    assert harness.said() == [("a", 2), ("b", 2)]
    harness.apply(a=2, b=5)
    assert harness.announcing.version == 2


def test_who_is_not_heard_of_counts_with_what_is_on_record() -> None:
    harness = Harness(2, a=2, b=0)
    harness.apply(a=2, b=2)
    assert (harness.said(), harness.announcing.version) == ([], 2)


def test_who_says_that_it_has_gone_back_counts_with_that() -> None:
    harness = Harness(2, a=2, b=1)
    harness.apply(a=2, b=2)
    assert (harness.said(), harness.announcing.version) == ([], 1)


def test_a_member_that_is_added_counts_before_it_has_announced_anything() -> None:
    harness = Harness(2, a=2)
    harness.apply(a=2)
    assert harness.announcing.version == 2
    harness.known = {"a": 2, "b": 2}
    assert harness.announcing.version == FIRST_VERSION
    assert harness.said() == [("b", 2)]
    harness.apply(b=2)
    assert harness.announcing.version == 2


def test_a_version_is_coming_while_all_say_that_they_read_it_and_the_log_does_not() -> None:
    harness = Harness(3, a=3, b=3)
    assert [harness.announcing.is_coming(version) for version in (2, 3, 4)] == [True, True, False]
    harness.apply(a=3, b=3)
    assert not harness.announcing.is_coming(3)
    harness.known["c"] = 0
    assert not harness.announcing.is_coming(3), "nobody knows when it says something"
    harness.known |= {"a": 0, "c": 3}
    assert harness.announcing.is_coming(3)
    assert not Harness(3).announcing.is_coming(3), "nobody says anything"
