"""Identity of the node at the end of a link, and the reasons to refuse it.

A node is its name and its **boot**: a counter that it raises at each start, on its disk, and a
number drawn at each start.  So a disk that was rolled back shows by its counter, and one that was
copied by two processes with one counter.  A counter alone grows on a wiped disk as well: therefore
each says in which boot it knew the other last, and one that does not remember that is not that
node.  And one that was removed and let in anew is another node: each says which of them its data
are of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from fluffle.raft.config import NodeId

BOOT_NONCE_BYTES = 16
NAME_BYTES_MAX = 255
"""Most bytes of the name of a node or a cluster: three names fit into a hello."""


MARK_LETTERS = 16


class HelloRefusal(StrEnum):
    """Why a hello is refused: on the wire, in logs and as the name of a counter."""

    NOT_A_HELLO = "not_a_hello"
    TOO_SLOW = "too_slow"
    VERSION = "version"
    CLUSTER = "cluster"
    OTHER_CLUSTER = "other_cluster"
    WRONG_NODE = "wrong_node"
    OWN_NAME = "own_name"
    UNKNOWN_NODE = "unknown_node"
    SECRET = "secret"
    OLD_BOOT = "old_boot"
    FORGOTTEN = "forgotten"
    FORMER_NODE = "former_node"
    SECOND_PROCESS = "second_process"
    TLS = "tls"


JOINS_ANEW = (
    "start it with an empty data directory: it joins by itself (with `--cluster-admit no`, after "
    "`fluffle cluster add`)"
)
"""The last step for a node that was forgotten."""

ADVICE: Mapping[HelloRefusal, str] = {
    HelloRefusal.NOT_A_HELLO: "it does not speak this protocol; let only nodes reach the cluster "
    "port",
    HelloRefusal.TOO_SLOW: "it did not say in time who it is; look whether it is overloaded",
    HelloRefusal.VERSION: "no version of the protocol is known to both; upgrade the older node",
    HelloRefusal.CLUSTER: "the two belong to clusters of different names; correct "
    "--cluster-name, or lead --peers to others",
    HelloRefusal.OTHER_CLUSTER: "two clusters of this name and secret have met, which cannot be "
    "joined; choose the one to keep: whose data count, or, after `fluffle salvage`, the "
    "salvaged one; have it take the clients, save what the OTHER one has (`fluffle definitions "
    "export`, consumers), have the kept one forget those nodes of the OTHER one that it knows "
    "(`fluffle cluster forget`), then start the nodes of the OTHER one with empty data "
    "directories: they join the kept one; or give them another --cluster-name",
    HelloRefusal.WRONG_NODE: "another node than expected is at the address; correct --peers",
    HelloRefusal.OWN_NAME: "both have the same name; names must differ, and --peers lead to others",
    HelloRefusal.UNKNOWN_NODE: "the refused node is no node of the cluster for the other; let it "
    "in with `fluffle cluster add` there, or correct --peers",
    HelloRefusal.SECRET: "the secrets differ; give all nodes the same --cluster-secret",
    HelloRefusal.OLD_BOOT: "the disk of the refused node was wiped or rolled back; have the "
    f"cluster forget that node (`fluffle cluster forget`), then {JOINS_ANEW}",
    HelloRefusal.FORGOTTEN: "the disk of the node that refuses was wiped, rolled back or copied: "
    "it does not remember how the other knew it; stop the other process if there are two of that "
    f"node, or have the cluster forget it (`fluffle cluster forget`), then {JOINS_ANEW}",
    HelloRefusal.FORMER_NODE: "the refused node has the data of one of its name that the cluster "
    f"was told to forget; {JOINS_ANEW}",
    HelloRefusal.SECOND_PROCESS: "two processes run with copies of one data directory; stop one",
    HelloRefusal.TLS: "a certificate cannot be verified, or only one of the two speaks TLS",
}
"""Advice for each refusal; both ends log it."""

DESTRUCTIVE = frozenset(
    {
        HelloRefusal.OTHER_CLUSTER, HelloRefusal.OLD_BOOT, HelloRefusal.FORGOTTEN,
        HelloRefusal.FORMER_NODE, HelloRefusal.SECOND_PROCESS,
    }
)  # fmt: skip
"""Reasons whose advice costs data or stops a process where it is followed in vain."""
UNPROVED = (
    "`fluffle cluster status`, on a node that takes clients: if it does not name the refused node, "
    f"that one was forgotten, so {JOINS_ANEW}; if it does, the log of that node says what to do; "
    "this here was said without proof: empty and stop nothing because of it alone"
)
"""The text that stands in the place of such advice if the sender has not proved its identity."""

SEE_REFUSER = "the log of the node that refuses says what to do"
"""The advice for a node that is refused without proof, as one that is not remembered."""

WITHOUT_DATA = (
    "this node has no data, and the cluster knows one of its name that had some: `fluffle cluster "
    "forget NAME`, on a node that takes clients; then this one joins by itself (with "
    "`--cluster-admit no`, after `fluffle cluster add`)"
)
"""The advice for a node with an empty disk of which others remember a life."""

WRONG_PORT = "no node answers there: is that its --cluster-listen address, not the one for clients?"
"""Advice for a node that has dialled a port of another protocol."""


class LinkRefused(Exception):
    """A refusal of a link, with its reason."""

    def __init__(
        self, reason: HelloRefusal, *, by_peer: bool = False, detail: str = "", proof: bytes = b"",
        has_data: bool = True,
    ) -> None:  # fmt: skip
        self.what = f"{reason} ({detail})" if detail else str(reason)
        super().__init__(f"refused by it: {self.what}" if by_peer else self.what)
        self.reason = reason
        self.by_peer = by_peer
        """True if the other end refuses us; it may say so without proof."""
        self.proof = proof
        """The proof of the refusing end, which goes to the other end first; empty without one."""
        self.has_data = has_data
        """True if this node has data of its cluster: what it has not, no advice can cost."""
        self.is_proved = False
        """True if the other end had proved its identity."""

    @property
    def advice(self) -> str:
        """Advice for the operator, as far as it is known which node the refusal is about."""
        if self.reason is HelloRefusal.FORGOTTEN and not self.by_peer and not self.has_data:
            return WITHOUT_DATA
        if self.is_proved or self.reason not in DESTRUCTIVE:
            return ADVICE[self.reason]
        return SEE_REFUSER if self.reason is HelloRefusal.FORGOTTEN and self.by_peer else UNPROVED


@dataclass(frozen=True, slots=True)
class Boot:
    """The number and nonce of one run of a node's process."""

    count: int
    """Raised at each start, from 1."""
    nonce: bytes
    """Drawn at each start; `BOOT_NONCE_BYTES`."""


BOOTS_KEPT = 1_000
"""Number of boots kept: a node that missed more starts of a peer than that knows it by its counter
alone."""


@dataclass(frozen=True, slots=True)
class Boots:
    """The boots that a node has had on its disk."""

    count: int
    """Counter of the latest boot."""
    nonces: tuple[bytes, ...]
    """Nonces of the last boots, the latest at the end; `BOOTS_KEPT` at most."""
    began: tuple[int, ...] = ()
    """The last commit on the disk when each of them began; as many at most, maybe fewer."""

    @classmethod
    def since(cls, boot: Boot) -> Boots:
        """Boots that begin with this one: nothing is known of earlier ones."""
        return cls(boot.count, (boot.nonce,))

    @property
    def began_at(self) -> int:
        """The last commit on the disk when the present one began; 0 if that is not known."""
        return self.began[-1] if self.began else 0

    def remember(self, boot: Boot) -> bool:
        """True if this disk may have been in that one."""
        age = self.count - boot.count
        if age < 0:
            return False
        if age < len(self.nonces):
            return self.nonces[-1 - age] == boot.nonce
        return len(self.nonces) < self.count

    def has_all_of(self, boot: int, commit: int) -> bool:
        """True if what this disk had durable in a life before this one, up to that commit, is on it
        still.

        If not it was put back to what it was before.
        """
        age = self.count - boot
        if age <= 0:
            return False  # it does not even know that life
        return not self.began or self.began[-min(age, len(self.began))] >= commit  # mutant: N3

    def followed_by(self, nonce: bytes, began: int) -> Boots:
        """With one more, which begins when that is the last commit on the disk."""
        nonces, all_began = (*self.nonces, nonce), (*self.began, began)
        return Boots(self.count + 1, nonces[-BOOTS_KEPT:], all_began[-BOOTS_KEPT:])


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity that a node claims in its hello."""

    cluster: str = field(compare=False)
    """The mark that `marked` makes; a node without data has no mark before it helps to found a
    cluster, or joins one."""
    node: NodeId
    boot: Boot
    reads: int = 1
    """The newest version of the logs of queues that this life understands."""
    speaks: int = field(default=0, compare=False)
    """Newest version of links that both nodes speak; 0 of this node."""
    is_begun: bool = field(default=False, compare=False)
    """True if another node had data of its cluster when it said hello."""


def marked(cluster: str, mark: str) -> str:
    """The name of a cluster with the mark that was drawn when it was founded; none for who is not
    of it yet."""
    return f"{cluster} {mark}" if mark else cluster


def mark_of(cluster: str) -> str:
    """The mark behind the name; empty if there is none."""
    return cluster.partition(" ")[2]


def have_same_name(cluster: str, other: str) -> bool:
    """True if these are called alike, whatever their marks are."""
    return cluster.partition(" ")[0] == other.partition(" ")[0]


def are_same_cluster(cluster: str, other: str) -> bool:
    """True if these are one cluster, as far as the two nodes know that say so."""
    mark, other_mark = mark_of(cluster), mark_of(other)
    return have_same_name(cluster, other) and (mark == other_mark or not (mark and other_mark))


def check_name(name: str) -> None:
    """ValueError for a name that no hello can hold."""
    if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"a name needs 1 to {NAME_BYTES_MAX} bytes: {name!r}")


class Incarnations(Protocol):
    """Incarnations of the nodes: the number that a node's data gets each time that it is let in."""

    def ours(self) -> int:
        """Incarnation of this node; 0 while its data are empty: a node that is let in begins with
        that."""

    def is_former(self, node: NodeId, incarnation: int) -> bool:
        """True if the cluster has forgotten the node that was this one."""


class NoIncarnations:
    """The `Incarnations` of a cluster that has forgotten no node, for one without data."""

    def ours(self) -> int:
        return 0

    def is_former(self, node: NodeId, incarnation: int) -> bool:
        del node, incarnation
        return False


NONE_FORGOTTEN = NoIncarnations()

OnNewBoot = Callable[[NodeId, Boot], None]


class PeerBoots:
    """The latest boot of each node that has proved its identity."""

    def __init__(
        self, latest: Mapping[NodeId, Boot] | None = None, on_new: OnNewBoot | None = None
    ) -> None:
        """With what is known from earlier, if anything is; `on_new` hears of each that is newer."""
        self._latest = dict(latest or {})
        self._on_new = on_new or (lambda _node, _boot: None)

    def admit(self, node: NodeId, boot: Boot) -> None:
        """A node has proved that it is this boot.  Raises `LinkRefused` for one that cannot be."""
        latest = self._latest.get(node)
        if latest is not None and boot.count < latest.count:
            raise LinkRefused(HelloRefusal.OLD_BOOT)
        if latest is not None and boot.count == latest.count and boot.nonce != latest.nonce:
            # An empty disk is not copied: it was wiped after its first start.
            raise LinkRefused(
                HelloRefusal.OLD_BOOT if boot.count == 1 else HelloRefusal.SECOND_PROCESS
            )
        self._know(node, boot)

    def learn(self, node: NodeId, boot: Boot) -> None:
        """Learn that other nodes know a node in this boot, if not in a newer one; 0: in none
        yet."""
        latest = self._latest.get(node)
        if latest is None or latest.count < boot.count:
            self._know(node, boot)

    def _know(self, node: NodeId, boot: Boot) -> None:
        if self._latest.get(node) != boot:
            self._latest[node] = boot
            self._on_new(node, boot)

    def latest(self, node: NodeId) -> Boot | None:
        """In which life a node was known last."""
        return self._latest.get(node)

    def forget(self, node: NodeId) -> None:
        """Forget a removed node: a new one of its name starts anew."""
        self._latest.pop(node, None)
