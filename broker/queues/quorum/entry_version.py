"""Which version of entries a leader may write: one that every member has announced, by a fact.

    hello of a link --> leader --> VersionAnnounced, committed --> all have --> entries of it

What a node says of itself on a link another leader may not have heard.  So it counts only once it
is in the log, where each leader finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.quorum.encoding import FIRST_VERSION
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.facts import VersionAnnounced
from fluffle.broker.queues.quorum.image import Image

Readers = Mapping[str, int]
"""The members, those that are being added among them: the newest version that each reads, as its
node says on its link; 0 if it has said nothing yet."""


class EntryVersions:
    """Version of the entries that one leadership may write."""

    __slots__ = ("_builder", "_image", "_readers", "_said")

    def __init__(self, image: Image, builder: EntryBuilder, readers: Callable[[], Readers]) -> None:
        self._image = image
        self._builder = builder
        self._readers = readers
        self._said: dict[str, int] = EMPTY_DICT
        """What is said here, applied or not."""

    @property
    def version(self) -> int:
        """What all members read, as is on record; less if one says so that has gone back.

        Asked for each entry: whoever is added counts from then on.
        """
        if self._image.reads == FIRST_VERSION:
            return FIRST_VERSION
        on_record = self._image.state.versions
        read = [
            min(on_record.get(member, FIRST_VERSION), known or self._image.reads)  # mutant: R21b
            for member, known in self._readers().items()
        ]
        return min(read, default=FIRST_VERSION)  # mutant: R21a

    def is_coming(self, version: int) -> bool:
        """Whether all members say that they read it, and soon that is on record."""
        on_record = self._image.state.versions
        said = [
            known or on_record.get(member, FIRST_VERSION)
            for member, known in self._readers().items()
        ]
        return self.version < version <= min(self._image.reads, min(said, default=FIRST_VERSION))

    def announce(self) -> None:
        """Say of each member what it reads, if that is news."""
        if self._image.reads == FIRST_VERSION:
            return
        on_record = self._image.state.versions
        for member, known in self._readers().items():
            version = min(known, self._image.reads)
            said = max(self._said.get(member, FIRST_VERSION), on_record.get(member, FIRST_VERSION))
            if version > said:
                if self._said is EMPTY_DICT:
                    self._said = {}
                self._said[member] = version
                self._builder.say(VersionAnnounced(version, member))
