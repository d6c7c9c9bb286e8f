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
alone a 9                   a goes on alone, in this incarnation; the others were given up
snapshot a [dead 1 2 ...]   of all that a has applied
damage a 3                  the entry at index 3 of a's disk cannot be read any more
find a 3                  the same, and a notices at once
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

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from fluffle.raft import messages
from fluffle.raft.config import AddLearner, Change, Configuration, Promote, Remove
from fluffle.raft.leader import ProposalRefused, RefusalReason
from fluffle.raft.messages import Ping
from fluffle.raft.output import Output, Role
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host, Sent

CHANGES: dict[str, Callable[[str], Change]] = {
    "add": AddLearner,
    "promote": Promote,
    "remove": Remove,
}

NUMBERS = ("term", "commit", "applied", "durable", "last", "floor")
"""Names of values that are compared with one number."""


class Wrong(Exception):
    """A line that means nothing, or nothing now; a sentence says why."""


class Scenario:
    """Scenario that is played from a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.held: list[Sent] = []
        self.reads: dict[tuple[str, int], int | None] = {}
        self.tuning: dict[str, int] = {}
        self.cluster = Cluster("")
        self.paused: set[str] = set()

    def play(self) -> None:
        """Raises `AssertionError`, with the line, for what is not as expected."""
        for number, line in enumerate(self.text.splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            try:
                self.do(words)
            except Exception as error:
                why = str(error) if isinstance(error, Wrong) else repr(error)
                raise AssertionError(f"line {number}: {line.strip()}: {why}") from error

    def do(self, words: list[str]) -> None:
        verb, *rest = words
        method: Callable[..., None] = one_of("command", self.methods("on_"), verb)
        call(verb, method, rest)

    def methods(self, prefix: str) -> dict[str, Callable[..., None]]:
        names = sorted(name for name in dir(type(self)) if name.startswith(prefix))
        return {name.removeprefix(prefix): getattr(self, name) for name in names}

    def machine(self, name: str) -> Host:
        """A node, be it up or not."""
        host: Host = one_of("node", self.cluster.hosts, name)
        return host

    def host(self, name: str) -> Host:
        """A node that is up: one that is not does nothing, and knows nothing."""
        host = self.machine(name)
        if name in self.paused:
            raise Wrong(f"{name} is paused")
        if not host.is_up:
            raise Wrong(f"{name} is down")
        return host

    def ends(self, source: str, target: str, kinds: Iterable[str]) -> None:
        """Refuses nodes and kinds of messages that there are not."""
        for name in (source, target):
            if name != "*":
                self.machine(name)
        for kind in kinds:
            one_of("message", dict.fromkeys(known_kinds()), kind)

    # The world

    def on_tuning(self, name: str, value: str) -> None:
        """Before `nodes`."""
        fields = dict.fromkeys(inspect.signature(Tuning).parameters)
        one_of("tuning", fields, name)
        self.tuning[name] = number(value)

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
        self.host(name)
        self.cluster.elect(name)
        self.cluster.advance(300)

    def on_settle(self) -> None:
        self.cluster.settle()

    def on_advance(self, ms: str) -> None:
        self.cluster.advance(number(ms))

    def on_sync(self, name: str, count: str = "1") -> None:
        host = self.host(name)
        if count == "all":
            while host.sync():
                pass
        else:
            for _ in range(number(count)):
                assert host.sync(), f"{name} has nothing to write"

    def on_crash(self, name: str) -> None:
        self.up_or_paused(name).crash()
        self.paused.discard(name)
        self.cluster.network = [sent for sent in self.cluster.network if sent[1] != name]
        for other in self.cluster.up:
            other.do(partial(other.raft.link_down, name))

    def on_start(self, name: str) -> None:
        host = self.machine(name)
        if host.is_up or name in self.paused:
            raise Wrong(f"{name} is up already")
        host.start()
        for other in self.cluster.up:
            if other is not host:
                other.do(partial(other.raft.link_up, name))
                host.do(partial(host.raft.link_up, other.name))
        host.do()

    def up_or_paused(self, name: str) -> Host:
        return self.machine(name) if name in self.paused else self.host(name)

    def on_pause(self, name: str) -> None:
        self.host(name).is_up = False
        self.paused.add(name)

    def on_resume(self, name: str) -> None:
        if name not in self.paused:
            raise Wrong(f"{name} is not paused")
        self.paused.remove(name)
        self.machine(name).is_up = True

    def on_cut(self, *words: str) -> None:
        for name in words:
            if name != "|":
                self.machine(name)
        self.cluster.partition(*("".join(side.split()) for side in " ".join(words).split("|")))

    def on_oneway(self, source: str, target: str) -> None:
        self.ends(source, target, ())
        self.cluster.cut.add((source, target))

    def on_heal(self) -> None:
        self.cluster.heal()

    def on_suspect(self, name: str, other: str) -> None:
        host = self.host(name)
        self.machine(other)
        host.do(partial(host.raft.link_down, other))

    def on_trust(self, name: str, other: str) -> None:
        host = self.host(name)
        self.machine(other)
        host.do(partial(host.raft.link_up, other))

    # Messages

    def take(self, source: str, target: str, kinds: tuple[str, ...]) -> list[Sent]:
        """Remove and return matching messages from the network."""
        self.ends(source, target, kinds)
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
        self.ends(source, target, kinds)
        found = [sent for sent in self.cluster.network if matches(sent, source, target, kinds)]
        assert found, "nothing is under way"
        self.cluster.network.remove(found[0])
        self.arrive(found[0])

    def on_pings(self) -> None:
        while pings := [sent for sent in self.cluster.network if isinstance(sent[2], Ping)]:
            self.cluster.deliver(self.cluster.network.index(pings[0]))

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
        self.ends(source, target, kinds)
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
        self.machine(target)
        self.host(name).do(lambda: self.host(name).group().transfer(target))

    def on_change(self, name: str, kind: str, node: str) -> None:
        change: Change = one_of("change", CHANGES, kind)(node)
        self.machine(node)
        self.host(name).do(lambda: self.host(name).group().change(change))

    def on_join(self, name: str, incarnation: str) -> None:
        host = self.host(name)
        if GROUP in host.raft:
            host.do(lambda: host.raft.delete(GROUP))
        host.do(lambda: host.raft.create(GROUP, number(incarnation), Configuration()))

    def on_delete(self, name: str) -> None:
        self.host(name).do(lambda: self.host(name).raft.delete(GROUP))

    def on_alone(self, name: str, incarnation: str) -> None:
        host = self.host(name)
        host.do(lambda: host.raft.force_single_member(GROUP, int(incarnation)))

    def on_snapshot(self, name: str, *dead: str) -> None:
        if dead and dead[0] != "dead":
            raise Wrong(f"snapshot {name} dead 1 2 ..., not {dead[0]!r}")
        self.host(name).snapshot(dead=map(number, dead[1:]))

    def on_damage(self, name: str, index: str) -> None:
        self.machine(name).disk.groups[GROUP].damaged.add(number(index))

    def on_find(self, name: str, index: str) -> None:
        """The host tells the group of damage at once, without reading."""
        self.on_damage(name, index)
        self.host(name).do(lambda: self.host(name).group().damaged(number(index)))

    def on_read(self, name: str, context: str) -> None:
        self.host(name).do(lambda: self.host(name).group().read_index(number(context)))

    def on_campaign(self, name: str) -> None:
        self.host(name).do(lambda: self.host(name).group().campaign())

    def on_full(self, name: str) -> None:
        self.host(name).raft.has_room = False

    def on_refused(self, reason: str, *words: str) -> None:
        wanted = one_of("reason", RefusalReason.__members__, reason)
        try:
            self.do(list(words))
        except ProposalRefused as refused:
            found = refused.reason
        else:
            raise AssertionError("it was not refused")
        assert found is wanted, found

    # Expectations

    def on_expect(self, name: str, what: str = "", *rest: str) -> None:
        if name == "asleep":
            self.expect_asleep()
        elif name in ("message", "no"):
            self.expect_message(name, (what, *rest))
        elif what == "disk":  # it is there without its node
            call("expect disk", self.expect_disk, [name, *rest])
        elif what in NUMBERS:
            status = self.host(name).status()
            call(f"expect {what}", number, rest)
            assert getattr(status, what) == number(rest[0]), status
        else:
            host, known = self.host(name), self.methods("expect_")
            known = {key: known[key] for key in known if key not in ("asleep", "message")}
            one_of("expectation", {**dict.fromkeys(NUMBERS), **known}, what)
            call(f"expect {what}", partial(known[what], host), rest)

    def expect_asleep(self) -> None:
        assert self.cluster.quiet(), self.cluster.network
        for host in self.cluster.up:
            assert not host.disk.submitted, f"{host.name} writes"
            state = host.raft._groups[GROUP]
            assert state.deadline_ms is None, f"{host.name} waits for {state.deadline_ms}"

    def expect_message(self, name: str, words: tuple[str, ...]) -> None:
        given = words if name == "message" else words[1:]
        if len(given) < 2 or (name == "no" and words[0] != "message"):
            raise Wrong("expect message a b Kind, or expect no message a b [Kind]")
        source, target, *kinds = given
        self.ends(source, target, kinds)
        found = [s for s in self.cluster.network if matches(s, source, target, tuple(kinds))]
        assert bool(found) == (name == "message"), self.cluster.network

    def expect_leads(self, host: Host) -> None:
        assert host.status().role is Role.LEADER, host.status()

    def expect_follows(self, host: Host, leader: str) -> None:
        status = host.status()
        assert (status.role, status.leader) == (Role.FOLLOWER, leader), status

    def expect_knows(self, host: Host, no: str, leader: str) -> None:
        if (no, leader) != ("no", "leader"):
            raise Wrong(f"expect {host.name} knows no leader")
        assert host.status().leader is None, host.status()

    def expect_is(self, host: Host, role: str) -> None:
        wanted: Role = one_of("role", {each.value: each for each in Role}, role)
        assert host.status().role is wanted, host.status()

    def expect_vote(self, host: Host, node: str) -> None:
        vote = host.status().vote
        assert (vote.node if vote else "nobody") == node, vote

    def expect_data(self, host: Host, *payloads: str) -> None:
        assert self.cluster.data(host.name) == list(payloads), self.cluster.data(host.name)

    def expect_log(self, host: Host, *entries: str) -> None:
        log = host.raft._groups[GROUP].log
        found = [f"{i}.{log.term_at(i)}" for i in range(log.floor + 1, log.last_index + 1)]
        assert found == list(entries), found

    def expect_disk(self, name: str, *indexes: str) -> None:
        found = sorted(self.machine(name).disk.groups[GROUP].entries)
        assert found == [number(index) for index in indexes], found

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
        assert found == number(index), found

    def expect_quarantined(self, host: Host, answer: str) -> None:
        wanted: bool = one_of("answer", {"yes": True, "no": False}, answer)
        assert host.status().is_quarantined == wanted

    def expect_read(self, host: Host, context: str, answer: str) -> None:
        key = host.name, number(context)
        found = "waiting" if key not in self.reads else "lost" if self.reads[key] is None else ""
        assert (found or "answered") == answer, found


def one_of(what: str, known: Mapping[str, Any], name: str) -> Any:
    """Value of that name; an error that lists all names if there is none."""
    if name not in known:
        raise Wrong(f"there is no {what} {name!r}; there are {', '.join(sorted(known)) or 'none'}")
    return known[name]


def number(text: str) -> int:
    if not text.isdecimal():
        raise Wrong(f"a number is wanted, not {text!r}")
    return int(text)


def call(what: str, method: Callable[..., object], words: Sequence[str]) -> None:
    """With the words of the line, if it takes so many."""
    signature = inspect.signature(method)
    try:
        signature.bind(*words)
    except TypeError as error:
        takes = " ".join(map(shown, signature.parameters.values()))
        raise Wrong(f"{what} takes {takes or 'nothing'}; {error}") from None
    method(*words)


def shown(parameter: inspect.Parameter) -> str:
    name = parameter.name.upper()
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"[{name} ...]"
    return name if parameter.default is parameter.empty else f"[{name}]"


def matches(sent: Sent, source: str, target: str, kinds: tuple[str, ...]) -> bool:
    """`*` stands for any node; without a kind every one but a ping."""
    kind = type(sent[2]).__name__
    is_between = source in ("*", sent[0]) and target in ("*", sent[1])
    return is_between and (kind in kinds if kinds else not isinstance(sent[2], Ping))


def known_kinds() -> set[str]:
    """Kinds of all messages, for a test that scenarios name only those."""
    return {kind.__name__ for kind in messages.MESSAGES}


def named_kinds(text: str) -> set[str]:
    """The messages that a scenario names."""
    steps = [line.split("#")[0] for line in text.splitlines()]
    return set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", " ".join(steps)))
