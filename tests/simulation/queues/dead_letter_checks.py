"""Dead letters: each is republished once the log records its death, to the exchange of its queue
and with the death in its headers; or it is not, for a reason with a name here.

G8 for messages that die in queues with an exchange for that, and rule 14 as far as it exists.
"""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.base.message import MessageAnnotations
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.quorum.entry_codec import ARRIVALS
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.headers import DeathReason, deaths_of, is_cycle, queues_of
from fluffle.protocol.properties import body_of, decode_properties, raw_properties
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation


class DeadLetterChecks:
    """Checks of the dead letters of all queues of a run."""

    def __init__(self, is_gone: Callable[[GroupId], bool]) -> None:
        """`is_gone`: whether a queue is deleted: whatever was published to it counts as there."""
        self._dead: dict[GroupId, set[bytes]] = {}
        """Contents of which the log of a queue has it that they are dead, now or once."""
        self._handed: dict[GroupId, set[bytes]] = {}
        """Contents that were republished."""
        self._letters: dict[tuple[object, ...], bytes] = {}
        """Republished contents by source and by target queue; those that need not arrive may have
        come to a queue twice, and died there for different reasons."""
        self._put: list[tuple[str, bytes]] | None = None
        """Messages put into queues, while some are republished."""
        self._sent: dict[tuple[GroupId, bytes], list[tuple[GroupId, bytes]]] = {}
        """Target messages of dead letters that must arrive, by source message."""
        self._sure: set[tuple[GroupId, bytes]] = set()
        """All of these."""
        self._unsure: set[tuple[GroupId, bytes]] = set()
        """Messages that needed not arrive when they were put somewhere: they may come again."""
        self._stored: dict[GroupId, set[bytes]] = {}
        """Contents that have come into the log of each queue."""
        self._remembered: dict[GroupId, set[bytes]] = {}
        """Contents among them that came with entries about dead letters that must arrive."""
        self._brings: dict[tuple[GroupId, bytes], set[Counts]] = {}
        """With which counts what was put where."""
        self._is_gone = is_gone
        self.stranded: set[GroupId] = set()
        """Queues whose dead, when one of them was tried last, could not arrive."""
        self.leads_to: dict[GroupId, GroupId] = {}
        """Target queue of the last dead letters that must arrive, by source queue."""
        self.handed_on = 0
        self.without_target = self.full = self.cycles = 0
        """Numbers of dead letters that were dropped, by reason."""

    # What queues say

    def died(self, group: GroupId, content: bytes) -> None:
        """The log has it."""
        self._dead.setdefault(group, set()).add(content)

    def is_done_with(self, group: GroupId, content: bytes) -> None:
        """The log has it that a dead one was handed on."""
        if content not in self._handed.get(group, ()):
            raise Violation(f"G8: {content!r} of {group} has died, and was never handed on")
        sent = self._sent.get((group, content))
        if sent is not None and not any(map(self._has_arrived, sent)):
            raise Violation(f"rule 14: {content!r} of {group} must arrive, and has nowhere")

    def _has_arrived(self, sent: tuple[GroupId, bytes]) -> bool:
        target, letter = sent
        return letter in self._stored.get(target, ()) or self._is_gone(target)

    def stored(
        self, group: GroupId, content: bytes, version: int, *, may_be_early: bool = True
    ) -> None:
        """A queue has it in its log, in an entry of this version.

        What comes with one in which it is not said what has arrived may come again: a member does
        not read that, as far as anybody knows.  If all are known to, it is not taken so.
        """
        if (group, content) in self._sure and version < ARRIVALS and not may_be_early:
            raise Violation(f"rule 21: {content!r} must arrive, and {group} does not remember it")
        remembered = self._remembered.setdefault(group, set())
        if content in remembered and (group, content) in self._sure - self._unsure:
            raise Violation(f"rule 14: {content!r}, which must arrive, has come to {group} twice")
        if version >= ARRIVALS:
            remembered.add(content)
        self._stored.setdefault(group, set()).add(content)

    def brought(self, group: GroupId, content: bytes, counts: Counts) -> None:
        """Check the delivery counts that a message brought along by a queue's account: none, until
        all members know them."""
        if counts != NEW and counts not in self._brings.get((group, content), ()):
            raise Violation(f"G8: {content!r} has brought {counts} along to {group}")

    # What nodes do

    def put(self, queue: str, contents: list[bytes]) -> bool:
        """Messages are published at a node; whether they are dead ones of another queue."""
        if self._put is None:
            return False
        self._put += [(queue, content) for content in contents]
        return True

    def hand_on(
        self,
        group: GroupId,
        name: str,
        settings: QueueSettings,
        dead: DeadMessages,
        *,
        vhost: VirtualHost,
        publish: Callable[[], None],
    ) -> None:
        """A leader does so, by `publish`."""
        if dead.unwanted:
            return
        target = settings.dead_letter_routing_key
        assert (settings.dead_letter_exchange, target is None) == ("", False), "as clients here ask"
        assert target is not None
        there = vhost.queues.get(target)
        is_full = there is not None and there.is_full
        must_arrive = dead.parcels is not None
        self.stranded.discard(group)
        self._put = []
        publish()
        put, self._put = self._put, None
        letters = [(queue, letter) for queue, letter in put]
        self.handed_on += len(dead.contents)
        for origin, content in zip(dead.origins, dead.contents, strict=True):
            if content not in self._dead.get(group, ()):
                raise Violation(f"rule 14: {content!r} of {group} is not dead, and handed on")
            self._handed.setdefault(group, set()).add(content)
            letter = self._taken(letters, target, content)
            if there is not None and letter is not None:
                self._brings.setdefault((there.definition.id, letter), set()).add(dead.counts)
            if not must_arrive:
                self._sent.pop((group, content), None)
                if there is not None and letter is not None:
                    self._unsure.add((there.definition.id, letter))
            else:
                sent = self._sent.setdefault((group, content), [])
                if there is not None and letter is not None:
                    self.leads_to[group] = there.definition.id
                    sent.append((there.definition.id, letter))
                    self._sure.add(sent[-1])
                else:
                    self.stranded.add(group)
            if letter is not None:
                self._is_well_written(group, name, dead, content, letter)
                self._is_as_before((group, content, target, dead.reason, dead.time_ms), letter)
            elif there is None:
                self.without_target += 1
            elif is_full:
                self.full += 1
            elif self._goes_round(
                name, dead, target, content, has_died=origin.past is not MessageAnnotations.NONE
            ):
                self.cycles += 1
            else:
                raise Violation(f"G8: {content!r} has died in {name}, and is not in {target}")
        if letters:
            raise Violation(f"G8: of {name} come {letters}, which nobody was")

    def _taken(self, letters: list[tuple[str, bytes]], target: str, content: bytes) -> bytes | None:
        """The first that is of this message."""
        for at, (queue, letter) in enumerate(letters):
            if queue == target and body_of(letter) == body_of(content):
                del letters[at]
                return letter
        return None

    def _is_well_written(
        self, group: GroupId, name: str, dead: DeadMessages, content: bytes, letter: bytes
    ) -> None:
        death = deaths_of(decode_properties(raw_properties(letter)).headers)[0]
        assert dead.time_ms is not None
        is_first = death["count"][1] == 1
        time_s = dead.time_ms // 1_000 if is_first else death["time"][1]
        said = death["reason"][1], queues_of([death])[0], death["time"][1]
        if said != (dead.reason.encode(), name, time_s):
            raise Violation(f"rule 14: {content!r} of {group} has died of {dead}, and says {said}")

    def _is_as_before(self, death: tuple[object, ...], letter: bytes) -> None:
        """A leader that does not know whether another has done it does the same."""
        before = self._letters.setdefault(death, letter)
        if before != letter:
            raise Violation(f"rule 14: of {death} comes {letter!r}, and {before!r} came")

    def _goes_round(
        self, name: str, dead: DeadMessages, target: str, content: bytes, *, has_died: bool
    ) -> bool:
        """True if it comes back to a queue though no client has rejected it."""
        if dead.reason is DeathReason.REJECTED:
            return False
        headers = decode_properties(raw_properties(content)).headers
        return target == name or (has_died and is_cycle(deaths_of(headers), target))
