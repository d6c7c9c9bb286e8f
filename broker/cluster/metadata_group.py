"""The definitions of a cluster on one node: decided here, committed by the metadata group, applied.

    change --> decide --> propose --> leader --> log --> apply, on every node
                 ^                                         |
                 +------ decided anew: stale here ---------+--> done, where it was asked for
    nothing to change, or refused --> read index --> decided anew --> done, or failed

A node numbers its proposals and sends those that have no outcome again: to a new leader at once, to
the same one after a while.  One that comes twice counts once.  Who waits hears within
`GIVE_UP_MS`; what has to be is proposed until it is.

A client is answered once every node has the change to which there is a link, but for one that has
not answered in time and has not caught up since (`AppliedBarrier`):

    change --> applied here --> asked of each other node: are you as far? --> done

Who has heard that his queue is there goes to another node, and publishes to it: there a message
for a queue that is not known yet would go nowhere.  RabbitMQ answers once all nodes have agreed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.clock import Clock, EventLoop
from fluffle.broker.base.errors import BrokerError, BrokerFailed, InternalError
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.hosted_group import EntryOutcome, OnEntryOutcome, OnReadable
from fluffle.broker.cluster.ports import METADATA_GROUP, FrameSender, GroupOwner, Machine
from fluffle.broker.cluster.raft_host import RaftHost, log_refused
from fluffle.broker.cluster.read_index import MetadataLog, ReadIndex
from fluffle.broker.durability.change_codec import (
    InvalidEncoding,
    decode_proposals,
    decode_state,
    encode_proposals,
    encode_state,
)
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind
from fluffle.broker.metadata.metadata import (
    ABSENCE_ERRORS,
    Apply,
    Consequence,
    Decide,
    ReadBarrier,
    ignore_done,
)
from fluffle.broker.metadata.state import MetadataState, Proposal, ProposalOutcome, difference
from fluffle.raft.config import NodeId
from fluffle.raft.log import DATA, Entry, GroupId, SnapshotMeta
from fluffle.raft.output import ConfigChange, LivenessVerdict
from fluffle.raft.ranges import Ranges

GIVE_UP_MS = 30_000
"""Time after which an operation without a majority fails, as in RabbitMQ."""

RETRY_MS = 1_000
RETRY_MS_MAX = 8_000
"""A proposal without an outcome is sent again after this, and then after twice as long each time: a
leader refuses silently while it is too far behind, and frames get lost."""

ATTEMPTS_MAX = 16
"""Attempts in a row; then the change waits `RETRY_MS`."""

PROPOSALS_MAX = 256
"""In one entry."""

EARLY_MAX = 256
"""Payloads that a node keeps which is about to lead; what there is no room for comes again."""

WAIT_S = 1.0
"""Time for a node to be as far: longer than one needs that is only busy, and short for a caller
that waits.  It is waited for again only when it has said that it is as far, so that one that is
paused costs one answer so much, and none for ever."""

ASK_REVISION = 0
ANSWER_REVISION = 1
REVISION_FRAME_BYTES = 9
"""Size of a question for a revision, and of its answer."""

logger = logging.getLogger(__name__)

Failed: TypeAlias = Callable[[BrokerError], None]


class HostedMetadataLog:
    """The log of the metadata group on a Raft host."""

    def __init__(self, host: RaftHost) -> None:
        self._host = host

    @property
    def may_grow(self) -> bool:
        return self._host.space.may_grow

    def propose(self, payload: bytes, on_outcome: OnEntryOutcome) -> None:
        self._host.group(METADATA_GROUP).propose(payload, on_outcome)

    def read_index(self, done: OnReadable) -> None:
        self._host.group(METADATA_GROUP).read_index(done)


class PendingChange:
    """A change that was asked for and that has no outcome yet."""

    def __init__(
        self, decide: Decide, done: Callable[[], None], failed: Failed | None, give_up_at_ms: int
    ) -> None:
        self.late: Failed | None = None
        """Called if it takes too long, where it has no `failed`."""
        self.decide = decide
        self.done = done
        """Called once."""
        self.failed = failed
        """None for what has to be."""
        self.give_up_at_ms = give_up_at_ms
        self.sent_at_ms = 0
        self.retry_ms = RETRY_MS
        self.attempts = 0
        self.proposal: Proposal

    def refuse(self, error: BrokerError) -> None:
        """Fail with an error; a change that must happen cannot be refused."""
        if self.failed is None:
            raise AssertionError("what has to be was refused") from error
        self.failed(error)


class ReplicatedMetadata:
    """A `Metadata`, and the `Machine` of the metadata group."""

    def __init__(
        self,
        node: NodeId,
        boot: int,
        apply: Apply,
        *,
        sender: FrameSender,
        read_sender: FrameSender,
        loop: EventLoop,
        clock: Clock,
    ) -> None:
        """`apply` does on this node what all have agreed on.  `sender` is of proposals,
        `read_sender` of what `reads` says; `clock` is that of the machine."""
        self.log: MetadataLog
        """Set before this node leads."""
        self.on_applied: Callable[[], None] = ignore_done
        """Called when `state` has moved on, after those that wait for what is in it."""
        self._node = node
        self._boot = boot
        self._apply = apply
        self._sender = sender
        self._loop = loop
        self._clock = clock
        self.state = MetadataState()
        """Applied state, for reading."""
        self._shown = self.state
        """State that this node has shown to its parts by `apply`.  It differs from `state` while
        that is behind: after damage an image begins with a snapshot that may be older."""
        self._leads = False
        self._is_elected = False
        """True if it is about to lead, or does."""
        self._early: list[tuple[bytes, list[Proposal]]] = []
        """Proposals of others that have come in between: they know the elected leader at once."""
        self._leader: NodeId | None = None
        """Leader on another node, as far as it is known."""
        self._next_number = 1
        self._pending: dict[int, PendingChange] = {}
        """Pending changes by number, rising."""
        self._unsent: dict[int, None] = {}
        self._is_flushing = False
        """True if the next turn sends."""
        self._is_timing = False
        """True if a timer runs; while there is anything pending."""
        self.reads = ReadIndex(self, boot, sender=read_sender, loop=loop, clock=clock)

    @property
    def revision(self) -> int:
        """Revision that is applied on this node."""
        return self._shown.last_revision

    @property
    def leads(self) -> bool:
        """True if this node orders the changes of all."""
        return self._leads

    @property
    def leader(self) -> NodeId | None:
        """Leader, as far as it is known."""
        return self._node if self._leads else self._leader

    # What is asked for here

    def change(self, decide: Decide, done: Callable[[], None], failed: Failed) -> None:
        """A change that changes nothing, or cannot be, by what is applied here, may be otherwise by
        what was answered elsewhere: it is decided anew once that is applied."""
        pending = PendingChange(decide, done, failed, self.give_up_at_ms())
        try:
            change = decide()
        except BrokerError as error:
            if type(error) not in ABSENCE_ERRORS:
                raise
            change = NOTHING
        if change.changes_nothing:
            self.reads.ask(partial(self._decide, pending), failed)  # mutant: I1
        else:
            self._put_forward(pending, change)

    def ensure(
        self, decide: Decide, done: Callable[[], None] = ignore_done, late: Failed | None = None
    ) -> None:
        pending = PendingChange(decide, done, None, self.give_up_at_ms())
        pending.late = late
        self._begin(pending, decide())

    def commit_nothing(self, done: Callable[[], None]) -> None:
        """Call `done` once all is applied here that has been agreed on before, by whomever: it is
        behind that in the log, as a change of nothing."""
        pending = PendingChange(lambda: NOTHING, done, None, self.give_up_at_ms())
        self._put_forward(pending, NOTHING)

    def give_up_at_ms(self) -> int:
        """When what is asked now has waited long enough."""
        return self._clock.now_ms() + GIVE_UP_MS

    def not_known(self) -> BrokerError:
        """This node cannot know whether what is not here is anywhere."""
        return InternalError(
            "the operation timed out: no majority of the cluster has confirmed within "
            f"{GIVE_UP_MS // 1_000} s that this node knows all that is defined"
        )

    def _begin(self, pending: PendingChange, change: Change) -> None:
        """Propose what was decided, if it is anything."""
        if change.changes_nothing:
            pending.done()
            return
        self._put_forward(pending, change)

    def _put_forward(self, pending: PendingChange, change: Change) -> None:
        number, self._next_number = self._next_number, self._next_number + 1
        revisions = self.state.revisions(change.rests_on)
        pending.proposal = Proposal(self._node, self._boot, number, 0, change, revisions)
        self._pending[number] = pending
        self._unsent[number] = None
        self._flush_soon()
        self._time()

    def _begin_again(self, pending: PendingChange) -> None:
        """Decide a change anew: the state it was decided on has changed.

        Who meets others so often lets them go first: it must not fill the log.
        """
        pending.attempts += 1
        if pending.attempts % ATTEMPTS_MAX:
            self._decide(pending)
        else:
            later = partial(call_listener, partial(self._decide, pending))
            self._loop.call_later(RETRY_MS / 1_000, later)

    def _decide(self, pending: PendingChange) -> None:
        if self._give_up_if_late(pending):
            return
        try:
            change = pending.decide()
        except BrokerError as error:
            pending.refuse(error)
        except AssertionError:
            raise
        except Exception:
            logger.exception("a change of definitions could not be decided anew")
            pending.refuse(BrokerFailed())
        else:
            self._begin(pending, change)

    # On its way

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what has not been sent to this leader; without one it waits."""
        self._is_flushing = False
        if not (self._leads or self._leader):
            return
        unsent, self._unsent = tuple(self._unsent), {}
        for payload in self._payloads(unsent):
            if self._leads:
                self._propose(payload)
            elif self._leader is not None:
                self._sender.send(self._leader, payload)

    def _payloads(self, numbers: Sequence[int]) -> Iterator[bytes]:
        known_below = next(iter(self._pending), self._next_number)
        now_ms = self._clock.now_ms()
        proposals = []
        for number in numbers:
            pending = self._pending.get(number)
            if pending is not None:
                pending.sent_at_ms = now_ms
                proposals.append(pending.proposal._replace(known_below=known_below))
        for start in range(0, len(proposals), PROPOSALS_MAX):
            yield encode_proposals(proposals[start : start + PROPOSALS_MAX])

    def _propose(self, payload: bytes) -> None:
        """Propose changes; those that add definitions wait while there is little room on the
        disk."""
        if not self.log.may_grow:
            proposals = decode_proposals(payload)
            kept = [each for each in proposals if not self.state.grows_by(each.change)]
            if not kept:
                return
            payload = encode_proposals(kept)
        self.log.propose(payload, self._on_outcome)

    def _on_outcome(self, _outcome: EntryOutcome) -> None:
        """Ignore the outcome of the batch: refused proposals are sent again."""

    def _send(self, numbers: Iterable[int]) -> None:
        """Once more."""
        self._unsent.update(dict.fromkeys(numbers))
        if self._unsent:
            self._flush_soon()

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Repeat pending proposals on a new link: those sent before may be lost."""
        if is_up and node == self._leader:
            self._send(self._pending)
        self.reads.link_changed(node, is_up)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Proposals of another node, which takes this one for the leader."""
        if not self._is_elected:
            return
        try:
            proposals = decode_proposals(payload)
            if any(proposal.node != node for proposal in proposals):
                raise InvalidEncoding("they are in the name of another")
        except InvalidEncoding as error:
            event(logger, logging.ERROR, "proposals_rejected", node=node, reason=error)
        else:
            if self._leads:
                self._take(payload, proposals)
            elif len(self._early) < EARLY_MAX:
                self._early.append((payload, proposals))

    def _take(self, payload: bytes, proposals: list[Proposal]) -> None:
        """Propose the changes of another node.  One of an earlier version may not know what is
        protected: its change is dropped here, and it gives up in time."""
        kept = [each for each in proposals if not is_against_protection(self.state, each)]
        if len(kept) == len(proposals):
            self._propose(payload)
            return
        node, reason = proposals[0].node, "a virtual host is protected from deletion"
        event(logger, logging.WARNING, "proposals_rejected", node=node, reason=reason)
        if kept:
            self._propose(encode_proposals(kept))

    def _time(self) -> None:
        """Have a timer run while there is anything to wait for."""
        if self._pending and not self._is_timing:
            self._is_timing = True
            self._loop.call_later(RETRY_MS / 1_000, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._is_timing = False
        now_ms = self._clock.now_ms()
        for number, pending in tuple(self._pending.items()):
            if self._give_up_if_late(pending):
                del self._pending[number]
        for number, pending in self._pending.items():
            if pending.sent_at_ms + pending.retry_ms <= now_ms:
                pending.retry_ms = min(2 * pending.retry_ms, RETRY_MS_MAX)
                self._send((number,))
        self._time()

    def _give_up_if_late(self, pending: PendingChange) -> bool:
        """Fail a change that waits for too long; one that must happen goes on without its caller.

        Whether it is over.
        """
        if self._clock.now_ms() < pending.give_up_at_ms:
            return False
        if pending.failed is not None:
            call_listener(partial(pending.failed, timed_out()))
            return True
        late, pending.late = pending.late, None
        if late is not None:
            pending.done = ignore_done
            call_listener(partial(late, timed_out()))
        return False

    # The image of the group

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        """Definitions change to what they are in `state`, in one go, unless that was long ago.

        What came since is not undone, for it comes again: a queue that is taken away loses its
        messages on this node.
        """
        after = decode_state(state, self.state) if meta.index else MetadataState()
        self.state = after
        consequences: Iterable[Consequence] = ()
        if after.last_revision >= self._shown.last_revision:
            change = difference(self._shown, after)
            self._shown = after
            consequences = () if change.changes_nothing else self._apply(change)
        for number in tuple(self._pending):
            self._resolve(number, after.outcome(self._node, self._boot, number))
        for consequence in consequences:
            call_listener(consequence)
        self.on_applied()
        self.reads.applied(meta.index)

    def apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.kind == DATA:
                for proposal in proposals_of(entry):
                    self._apply_one(proposal)
        self.on_applied()
        self.reads.applied(entries[-1].index)

    def _apply_one(self, proposal: Proposal) -> None:
        change = self.state.completed(proposal.change)
        outcome = self.state.apply(proposal)
        consequences: Iterable[Consequence] = ()
        if self._shown is not self.state:
            if self.state.last_revision >= self._shown.last_revision:
                self._shown = self.state
        elif outcome is ProposalOutcome.APPLIED:
            consequences = self._apply(change)
        if (proposal.node, proposal.boot) == (self._node, self._boot):
            self._resolve(proposal.number, outcome)
        for consequence in consequences:
            call_listener(consequence)

    def _resolve(self, number: int, outcome: ProposalOutcome | None) -> None:
        """Answer the caller what has become of it, if that is known."""
        if outcome in (ProposalOutcome.APPLIED, ProposalOutcome.STALE) and number in self._pending:
            pending = self._pending.pop(number)
            if outcome is ProposalOutcome.APPLIED:
                call_listener(pending.done)
            else:
                call_listener(lambda: self._begin_again(pending))

    def led(self, _term: int) -> None:
        self._leads = True
        early, self._early = self._early, []
        for payload, proposals in early:
            self._take(payload, proposals)
        self._send(self._pending)
        self.reads.leader_changed()

    def followed(self, _term: int, leader: NodeId | None) -> None:
        self._leads = False
        self._is_elected = leader == self._node
        self._early.clear()
        self._leader = None if self._is_elected else leader
        self._send(self._pending)
        self.reads.leader_changed()

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        """All of it is in the state: no entry is needed any more."""
        return Ranges(), encode_state(self.state)


def proposals_of(entry: Entry) -> list[Proposal]:
    """AssertionError for an entry that this version cannot read: the image would be wrong."""
    try:
        return decode_proposals(entry.payload)
    except InvalidEncoding as error:
        raise AssertionError(f"entry {entry.index} of the metadata group: {error}") from error


def timed_out() -> BrokerError:
    """Error for an operation with an unknown outcome."""
    return InternalError(
        "the operation timed out: no majority of the cluster has agreed to it within "
        f"{GIVE_UP_MS // 1_000} s; it may still come true"
    )


def is_against_protection(state: MetadataState, proposal: Proposal) -> bool:
    """Not if it rests on what is no longer so: then it changes nothing, and is decided anew."""
    dooms = [fact for fact in proposal.change.puts if fact.kind is Kind.DOOMED]
    return any(is_protected(state, fact) for fact in dooms) and state.holds(
        proposal.change, proposal.revisions
    )


def is_protected(state: MetadataState, mark: Fact) -> bool:
    """The virtual host that a fact marks for deletion."""
    known = state.find((Kind.VHOST, mark.key))
    return known is not None and isinstance(known.value, VhostSettings) and known.value.is_protected


class NodesListener(Protocol):
    """Listener for changes of the nodes of the cluster."""

    def judged(self, verdict: LivenessVerdict) -> None:
        """Handle a change of liveness, as `GroupOwner.judged`."""

    def configured(self) -> None:
        """A configuration of the metadata group is committed."""

    def unknown(self, node: NodeId) -> None:
        """A node says that it does not have the metadata group."""


@dataclass(slots=True, eq=False)
class GroupOwnerDispatch:
    """A `GroupOwner` that passes calls on: to the metadata group, or to the queues of this node."""

    _metadata: Machine
    _hosting: GroupOwner
    _nodes: NodesListener
    _read_barrier: ReadBarrier
    """Knowledge of definitions, and so of the groups of queues."""

    def make_machine(self, group: GroupId) -> Machine:
        return self._metadata if group == METADATA_GROUP else self._hosting.make_machine(group)

    def configured(self, change: ConfigChange) -> None:
        if change.group == METADATA_GROUP:
            self._nodes.configured()
        else:
            self._hosting.configured(change)

    def judged(self, verdict: LivenessVerdict) -> None:
        event(
            logger,
            logging.INFO if verdict.is_alive else logging.WARNING,
            "node_alive" if verdict.is_alive else "node_suspected",
            node=verdict.node,
            boot=verdict.boot,
        )
        self._nodes.judged(verdict)
        self._hosting.judged(verdict)

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        if group == METADATA_GROUP:
            act()
        else:
            self._read_barrier.ask(partial(self._hosting.when_known, group, act))  # mutant: AB1

    def unknown(self, node: NodeId, group: GroupId) -> None:
        if group == METADATA_GROUP:
            self._nodes.unknown(node)
        else:
            self._hosting.unknown(node, group)

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        if group == METADATA_GROUP:
            event(logger, logging.ERROR, "log_damaged", group=group, index=index, reason=wrong)
        else:
            self._hosting.damaged(group, index, wrong)

    def given_up(self, group: GroupId, wrong: str) -> None:
        if group == METADATA_GROUP:
            event(logger, logging.ERROR, "log_rejected", group=group, reason=wrong)
        else:
            self._hosting.given_up(group, wrong)

    def refused(self, node: NodeId, reason: str) -> None:
        log_refused(node, reason)


class WaitingChange(NamedTuple):
    """A change applied here with this revision, whose caller waits until the peers have it."""

    revision: int
    done: Callable[[], None]


class PeerRevision:
    """Another node, while there is a link to it."""

    def __init__(self) -> None:
        self.reached = 0
        """Revision up to which the node has applied everything."""
        self.asked = 0
        """The highest that it was asked for over this link."""
        self.is_late = False
        """True if it has not answered in time, and is not waited for."""


class AppliedBarrier:
    """A `Metadata` over the one that all nodes share."""

    def __init__(self, inner: ReplicatedMetadata, sender: FrameSender, loop: EventLoop) -> None:
        self._inner = inner
        self._sender = sender
        self._loop = loop
        self._others: dict[NodeId, PeerRevision] = {}
        """Nodes to which a link is up."""
        self._waiting: deque[WaitingChange] = deque()
        """Invariant: rising revisions."""
        self._wanted: dict[NodeId, int] = {}
        """Highest revision that a node asked for and was not sent yet, by node."""
        self._informed: set[NodeId] = set()
        """The nodes that have asked, and were sent the revision."""
        self._is_asking = False
        """True if the next turn asks."""
        self._is_timing = False
        inner.on_applied = self._applied

    # Metadata

    def change(self, decide: Decide, done: Callable[[], None], failed: Failed) -> None:
        self._inner.change(decide, partial(self._applied_here, done), failed)

    def ensure(
        self, decide: Decide, done: Callable[[], None] = ignore_done, late: Failed | None = None
    ) -> None:
        """Change definitions; done once it is applied here, since no client waits for it."""
        self._inner.ensure(decide, done, late)

    # Who waits

    def _applied_here(self, done: Callable[[], None]) -> None:
        revision = self._inner.state.last_revision
        if not self._behind(revision):
            done()
            return
        self._waiting.append(WaitingChange(revision, done))
        if not self._is_asking:
            self._is_asking = True
            self._loop.call_soon(self._ask)
        self._time()

    def _behind(self, revision: int) -> list[NodeId]:
        """Nodes whose answer is awaited and that have not applied `revision` yet."""
        return [
            name
            for name, other in self._others.items()
            if other.reached < revision and not other.is_late  # mutant: E1
        ]

    def _ask(self) -> None:
        """Once for all that wait."""
        self._is_asking = False
        if self._waiting:
            revision = self._waiting[-1].revision
            for name in self._behind(revision):
                self._ask_of(name, revision)

    def _ask_of(self, name: NodeId, revision: int) -> None:
        other = self._others[name]
        if other.asked < revision:
            other.asked = revision
            self._sender.send(name, revision_frame(ASK_REVISION, revision))

    def _look(self) -> None:
        """Answer the changes that do not wait for any node any more."""
        while self._waiting and not self._behind(self._waiting[0].revision):
            call_listener(self._waiting.popleft().done)

    def _time(self) -> None:
        if self._waiting and not self._is_timing:
            self._is_timing = True
            late = partial(self._give_up, self._waiting[-1].revision)
            self._loop.call_later(WAIT_S, late)

    def _give_up(self, revision: int) -> None:
        """Stop waiting for nodes that have not applied `revision` in time."""
        self._is_timing = False
        if self._waiting and self._waiting[0].revision <= revision:
            for name in self._behind(self._waiting[0].revision):
                self._others[name].is_late = True
            self._look()
        self._time()

    # The others

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Ask again over a new link; do not wait for a node without one."""
        if is_up:
            self._others[node] = PeerRevision()
            if self._waiting:
                self._ask_of(node, self._waiting[-1].revision)
            if node in self._informed:
                self._wanted.setdefault(node, 0)  # that may be lost with the link before
            self._applied()
        else:
            self._others.pop(node, None)
            self._look()

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Take a question or an answer of another node.  Raises `BadFrame`."""
        revision = int.from_bytes(payload[1:], "big")
        if len(payload) != REVISION_FRAME_BYTES or payload[0] not in (
            ASK_REVISION,
            ANSWER_REVISION,
        ):
            raise BadFrame("it asks for no revision, and answers with none")
        if payload[0] == ASK_REVISION:
            self._wanted[node] = max(self._wanted.get(node, 0), revision)
            self._applied()
        elif node in self._others:
            other = self._others[node]
            other.reached = max(other.reached, revision)
            other.is_late = other.is_late and other.reached < other.asked
            self._look()

    def _applied(self) -> None:
        """Definitions may have changed here: send the revision to the nodes that have asked."""
        revision = self._inner.state.last_revision
        wanted = self._wanted.items()
        ready = [node for node, least in wanted if least <= revision and node in self._others]
        for node in ready:
            del self._wanted[node]
            self._informed.add(node)
            self._sender.send(node, revision_frame(ANSWER_REVISION, revision))


def revision_frame(kind: int, revision: int) -> bytes:
    return bytes((kind,)) + revision.to_bytes(REVISION_FRAME_BYTES - 1, "big")
