"""Scenarios as text: one step a line, read aloud by a person, played by this module.

nodes a b c                 a cluster; all of them found the group
elect a                     let time pass until a leads and all is quiet
propose a x y               proposals, one entry each; a must lead
sync a                      the oldest write of a becomes durable; `sync a all`: every one
deliver a b [Kind ...]      what is under way from a to b arrives, in order
step a b [Kind ...]         the first of them does
pings                       all pings do
lose / hold a b [Kind ...]  it never does / not yet;  `release` has what is held arrive
repeat a b [Kind ...]       it arrives twice: once more, behind everything
settle                      deliver and sync until nothing is left to do
advance 500                 settle, while so many milliseconds pass
crash a, start a            what was not durable is gone; the others see the link go and come
pause a, resume a           it neither hears nor acts, and its writes do not finish
cut a | b c, heal           partitions; `oneway a b`: what a sends to b is lost
suspect a b, trust a b      the link from a to b goes down, comes up
transfer a b                a hands over to b
change a add|promote|remove d
join d 2                    d becomes the member of incarnation 2, with nothing
delete a                    a has the group no more
snapshot a [dead 1 2 ...]   of all that a has applied
damage a 3                  the entry at index 3 of a's disk cannot be read any more
load a                      a notices damage, as it reads what is applied from its disk again
read a 7                    a read with context 7
campaign a
refused REASON command ...  the command is refused

expect a leads | follows b | is candidate | is pre-candidate | knows no leader
expect a term|commit|applied|durable|last|floor 3
expect a data x y           in its image
expect a log 1.1 2.1 3.2    index.term of the entries above the floor, in memory
expect a disk 1 2 5         indexes of entries on its disk
expect a voters a b, expect a learners d
expect a vote b
expect a feeds b probe|replicate|snapshot
expect a quarantined yes|no
expect a read 7 answered|lost|waiting
expect message a b Kind, expect no message a b [Kind]
expect asleep               no group wants to be woken, nothing is under way
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest

from fluffle.raft import messages
from fluffle.raft.config import AddLearner, Change, Config, Promote, Remove
from fluffle.raft.messages import Ping
from fluffle.raft.output import Output, Role
from fluffle.raft.refused import Reason, Refused
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host, Sent

CHANGES: dict[str, Callable[[str], Change]] = {
    "add": AddLearner,
    "promote": Promote,
    "remove": Remove,
}


class Scenario:
    """One text, as it is played."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.held: list[Sent] = []
        self.reads: dict[tuple[str, int], int | None] = {}
        self.tuning: dict[str, int] = {}
        self.cluster = Cluster("")

    def play(self) -> None:
        """Raises `AssertionError`, with the line, for what is not as expected."""
        for number, line in enumerate(self.text.splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            try:
                self.do(words)
            except Exception as error:
                raise AssertionError(f"line {number}: {line.strip()}: {error!r}") from error

    def do(self, words: list[str]) -> None:
        verb, *rest = words
        method: Callable[..., None] = getattr(self, f"on_{verb}")
        method(*rest)

    def host(self, name: str) -> Host:
        return self.cluster[name]

    # The world

    def on_tuning(self, name: str, value: str) -> None:
        """Before `nodes`."""
        self.tuning[name] = int(value)

    def on_nodes(self, *names: str) -> None:
        """`nodes a b c + d`: d is there, and no member."""
        founders = " ".join(names).split("+")[0].split()
        self.cluster = Cluster(
            "".join(name for name in names if name != "+"), tuning=Tuning(**self.tuning)
        )
        self.cluster.on_output = self.see
        self.cluster.create("".join(founders))
        self.cluster.settle()

    def see(self, host: Host, output: Output) -> None:
        for readable in output.readable:
            self.reads[host.name, readable.context] = readable.index

    def on_elect(self, name: str) -> None:
        self.cluster.elect(name)
        self.cluster.advance(300)

    def on_settle(self) -> None:
        self.cluster.settle()

    def on_advance(self, ms: str) -> None:
        self.cluster.advance(int(ms))

    def on_sync(self, name: str, count: str = "1") -> None:
        host = self.host(name)
        if count == "all":
            while host.sync():
                pass
        else:
            for _ in range(int(count)):
                assert host.sync(), f"{name} has nothing to write"

    def on_crash(self, name: str) -> None:
        self.host(name).crash()
        self.cluster.network = [sent for sent in self.cluster.network if sent[1] != name]
        for other in self.cluster.up:
            other.do(partial(other.raft.link_down, name))

    def on_start(self, name: str) -> None:
        host = self.host(name)
        host.start()
        for other in self.cluster.up:
            if other is not host:
                other.do(partial(other.raft.link_up, name))
                host.do(partial(host.raft.link_up, other.name))
        host.do()

    def on_pause(self, name: str) -> None:
        self.host(name).is_up = False

    def on_resume(self, name: str) -> None:
        self.host(name).is_up = True

    def on_cut(self, *words: str) -> None:
        self.cluster.partition(*("".join(side.split()) for side in " ".join(words).split("|")))

    def on_oneway(self, source: str, target: str) -> None:
        self.cluster.cut.add((source, target))

    def on_heal(self) -> None:
        self.cluster.heal()

    def on_suspect(self, name: str, other: str) -> None:
        host = self.host(name)
        host.do(partial(host.raft.link_down, other))

    def on_trust(self, name: str, other: str) -> None:
        host = self.host(name)
        host.do(partial(host.raft.link_up, other))

    # Messages

    def take(self, source: str, target: str, kinds: tuple[str, ...]) -> list[Sent]:
        """Those that match leave the network."""
        found = [sent for sent in self.cluster.network if matches(sent, source, target, kinds)]
        self.cluster.network = [sent for sent in self.cluster.network if sent not in found]
        return found

    def on_deliver(self, source: str, target: str, *kinds: str) -> None:
        found = self.take(source, target, kinds)
        assert found, "nothing is under way"
        for sent in found:
            self.arrive(sent)

    def arrive(self, sent: Sent) -> None:
        source, target, message = sent
        host = self.host(target)
        host.do(lambda: host.raft.receive(source, [message]))

    def on_step(self, source: str, target: str, *kinds: str) -> None:
        found = [sent for sent in self.cluster.network if matches(sent, source, target, kinds)]
        assert found, "nothing is under way"
        self.cluster.network.remove(found[0])
        self.arrive(found[0])

    def on_pings(self) -> None:
        while pings := [sent for sent in self.cluster.network if isinstance(sent[2], Ping)]:
            self.cluster.network.remove(pings[0])
            self.arrive(pings[0])

    def on_lose(self, source: str, target: str, *kinds: str) -> None:
        assert self.take(source, target, kinds), "nothing is under way"

    def on_hold(self, source: str, target: str, *kinds: str) -> None:
        found = self.take(source, target, kinds)
        assert found, "nothing is under way"
        self.held += found

    def on_release(self) -> None:
        held, self.held = self.held, []
        for sent in held:
            self.arrive(sent)

    def on_repeat(self, source: str, target: str, *kinds: str) -> None:
        network = self.cluster.network
        found = [sent for sent in network if matches(sent, source, target, kinds)]
        assert found, "nothing is under way"
        self.held += found

    # The group

    def on_propose(self, name: str, *payloads: str) -> None:
        host = self.host(name)
        for payload in payloads:
            host.do(partial(host.group().propose, payload.encode()))

    def on_transfer(self, name: str, target: str) -> None:
        self.host(name).do(lambda: self.host(name).group().transfer(target))

    def on_change(self, name: str, kind: str, node: str) -> None:
        self.host(name).do(lambda: self.host(name).group().change(CHANGES[kind](node)))

    def on_join(self, name: str, incarnation: str) -> None:
        host = self.host(name)
        if GROUP in host.raft:
            host.do(lambda: host.raft.delete(GROUP))
        host.do(lambda: host.raft.create(GROUP, int(incarnation), Config()))

    def on_delete(self, name: str) -> None:
        self.host(name).do(lambda: self.host(name).raft.delete(GROUP))

    def on_snapshot(self, name: str, *dead: str) -> None:
        self.host(name).snapshot(dead=map(int, dead[1:]))

    def on_damage(self, name: str, index: str) -> None:
        self.host(name).disk.groups[GROUP].damaged.add(int(index))

    def on_find(self, name: str, index: str) -> None:
        """The host tells the group of damage at once, without reading."""
        self.on_damage(name, index)
        self.host(name).do(lambda: self.host(name).group().damaged(int(index)))

    def on_read(self, name: str, context: str) -> None:
        self.host(name).do(lambda: self.host(name).group().read_index(int(context)))

    def on_campaign(self, name: str) -> None:
        self.host(name).do(lambda: self.host(name).group().campaign())

    def on_full(self, name: str) -> None:
        self.host(name).raft.has_room = False

    def on_refused(self, reason: str, *words: str) -> None:
        with pytest.raises(Refused) as refused:
            self.do(list(words))
        assert refused.value.reason is Reason[reason], refused.value.reason

    # Expectations

    def on_expect(self, name: str, what: str = "", *rest: str) -> None:
        if name == "asleep":
            self.expect_asleep()
        elif name in ("message", "no"):
            self.expect_message(name, (what, *rest))
        elif what in ("term", "commit", "applied", "durable", "last", "floor"):
            assert getattr(self.host(name).status(), what) == int(rest[0]), self.host(name).status()
        else:
            expectation: Callable[..., None] = getattr(self, f"expect_{what}")
            expectation(self.host(name), *rest)

    def expect_asleep(self) -> None:
        assert self.cluster.quiet(), self.cluster.network
        for host in self.cluster.up:
            assert not host.disk.submitted, f"{host.name} writes"
            state = host.raft._groups[GROUP]
            assert state.deadline_ms is None, f"{host.name} waits for {state.deadline_ms}"

    def expect_message(self, name: str, words: tuple[str, ...]) -> None:
        source, target, *kinds = words if name == "message" else words[1:]
        found = [s for s in self.cluster.network if matches(s, source, target, tuple(kinds))]
        assert bool(found) == (name == "message"), self.cluster.network

    def expect_leads(self, host: Host) -> None:
        assert host.status().role is Role.LEADER, host.status()

    def expect_follows(self, host: Host, leader: str) -> None:
        status = host.status()
        assert (status.role, status.leader) == (Role.FOLLOWER, leader), status

    def expect_knows(self, host: Host, *_: str) -> None:
        assert host.status().leader is None, host.status()

    def expect_is(self, host: Host, role: str) -> None:
        assert host.status().role is Role(role), host.status()

    def expect_vote(self, host: Host, node: str) -> None:
        vote = host.status().vote
        assert (vote.node if vote else "nobody") == node, vote

    def expect_data(self, host: Host, *payloads: str) -> None:
        assert self.cluster.data(host.name) == list(payloads), self.cluster.data(host.name)

    def expect_log(self, host: Host, *entries: str) -> None:
        log = host.raft._groups[GROUP].log
        found = [f"{i}.{log.term_at(i)}" for i in range(log.floor + 1, log.last_index + 1)]
        assert found == list(entries), found

    def expect_disk(self, host: Host, *indexes: str) -> None:
        found = sorted(host.disk.groups[GROUP].entries)
        assert found == [int(index) for index in indexes], found

    def expect_voters(self, host: Host, *nodes: str) -> None:
        found = tuple(member.node for member in host.status().config.voters)
        assert found == nodes, found

    def expect_learners(self, host: Host, *nodes: str) -> None:
        found = tuple(member.node for member in host.status().config.learners)
        assert found == nodes, found

    def expect_feeds(self, host: Host, node: str, flow: str) -> None:
        found = host.group().progress[node][0].value
        assert found == flow, found

    def expect_match(self, host: Host, node: str, index: str) -> None:
        found = host.group().progress[node][1]
        assert found == int(index), found

    def expect_quarantined(self, host: Host, answer: str) -> None:
        assert host.status().is_quarantined == (answer == "yes")

    def expect_read(self, host: Host, context: str, answer: str) -> None:
        key = host.name, int(context)
        found = "waiting" if key not in self.reads else "lost" if self.reads[key] is None else ""
        assert (found or "answered") == answer, found


def matches(sent: Sent, source: str, target: str, kinds: tuple[str, ...]) -> bool:
    """`*` stands for any node; without a kind every one but a ping."""
    kind = type(sent[2]).__name__
    is_between = source in ("*", sent[0]) and target in ("*", sent[1])
    return is_between and (kind in kinds if kinds else not isinstance(sent[2], Ping))


def known_kinds() -> set[str]:
    """For a test that scenarios name only messages that exist."""
    return {kind.__name__ for kind in messages.MESSAGES}


def named_kinds(text: str) -> set[str]:
    """The messages that a scenario names."""
    steps = [line.split("#")[0] for line in text.splitlines()]
    return set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", " ".join(steps)))
