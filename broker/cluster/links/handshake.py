"""How two nodes prove their identities to each other, before anything else is said on a connection.

    dialler                                            listener
      HELLO  versions, cluster, node, boot,
             incarnation, node it wants, in
             which boot it knew that one, a
             challenge, which logs it reads -------->
                                         <------------  HELLO   the same of its own
      PROOF  -------------------------------------->
                                         <------------  PROOF

    message  size (2), then a msgpack list: its number and its fields
    proof    HMAC-SHA256(secret, role + both hellos as they were sent + certificate)

Both hellos are in each proof: both names, both challenges, which is whose.  Challenges are drawn
for each connection, so nothing that was overheard proves anything on another one, and roles differ,
so nothing can be sent back to where it came from.  The dialler proves first: a stranger who dials
learns nothing on which he could try secrets.  With TLS the listener's certificate is part of the
proof, so that no third can stand between two nodes and hand their proofs on.

Any refusal is sent to the other end, if it is no stranger to the format.  The first three fields of
a hello are for ever: by them the versions of both are compared.
"""

import hashlib
import hmac
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, cast

import msgpack

from fluffle.broker.cluster.links.identity import (
    BOOT_NONCE_BYTES,
    NONE_FORGOTTEN,
    Boot,
    Boots,
    HelloRefusal,
    Identity,
    Incarnations,
    LinkRefused,
    PeerBoots,
    are_same_cluster,
    have_same_name,
)
from fluffle.raft.config import NodeId

MAGIC = "fluffle link"
VERSIONS = (9, 18)
"""The oldest and the newest that are spoken here.  In 1 the first leader of a queue was elected; in
2 a settlement that came too late was done, and that it did was said beside that; before 4 no node
said in which incarnation it was, and before 5 what time it is; 6 says which logs it reads, when
messages expire, and what exchanges keep, 7 that messages were held for too long, and 9 for how long
each of some messages may wait that come together; in 10 nodes are asked for what they alone know,
in 11 hear of answers to direct reply-to, in 12 of how many connections there are, in 13 of what
dead letters have brought along, in 14 of how far disks have come, in 15 of clusters that are
founded or joined, in 16 asked for the read index, in 17 hear with which commits the lives of all
nodes began, and how far disks have come no more before, and in 18 which clients have come: who
speaks less is not.  One number for each form of what goes over links."""

RPC_SINCE, REPLIES_SINCE, USAGE_SINCE, COUNTS_SINCE, PROGRESS_SINCE = 10, 11, 12, 13, 17
FORMATION_SINCE, READS_SINCE, CLIENTS_SINCE = 15, 16, 18
"""The versions of links in which there are frames of these kinds, and counts in them."""

CHALLENGE_BYTES = 32
MESSAGE_BYTES_MAX = 1_024
"""A stranger makes us keep no more."""
SIZE_BYTES = 2
TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
"""How an alert and a hello of TLS begin; as a size it is too large for a message."""
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""TLS alert that a TLS peer understands, whichever end it is: fatal, protocol_version (RFC 8446,
6)."""

_REASONS = {str(reason): reason for reason in HelloRefusal}


class HandshakeMessage(IntEnum):
    """The kind of a handshake message: its first field."""

    HELLO = 0
    PROOF = 1
    REFUSAL = 2


class LinkRole(Enum):
    """End of the connection; the value is part of its proof."""

    DIALLER = b"dialler"
    LISTENER = b"listener"


@dataclass(slots=True)
class LinkCredentials:
    """The identity, secret and limits that a node uses on all its links."""

    us: Identity
    """This node.  Its cluster changes once, when it founds one or joins."""
    secret: bytes
    boots: PeerBoots
    peers: Container[NodeId]
    """The nodes that may dial us, beside those without data where it `admits`."""
    lives: Boots
    """Ours, the present one at the end."""
    incarnations: Incarnations = NONE_FORGOTTEN
    versions: tuple[int, int] = VERSIONS
    admits: bool = False
    """True if a node that is in no cluster yet may dial us to ask for one."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A hello as received, its fields checked."""

    raw: bytes
    identity: Identity
    wants: NodeId
    """The node that the sender believes to talk to."""
    known: Boot | None
    """In which life it knew that one last."""
    incarnation: int
    """Incarnation of the sender; see `Incarnations.ours`."""


def refusal(reason: HelloRefusal) -> bytes:
    """The message to the other end before it is cut off."""
    if reason is HelloRefusal.TLS:
        return TLS_ALERT
    return encode(HandshakeMessage.REFUSAL, str(reason))


def refusal_in(data: bytes) -> LinkRefused | None:
    """The refusal that was read, if it is one and nothing else.

    The end that gives a handshake up says so to an end that may have gone on to frames meanwhile.
    """
    if int.from_bytes(data[:SIZE_BYTES], "big") != len(data) - SIZE_BYTES:
        return None
    try:
        number, reason = _unpacked(data[SIZE_BYTES:])
        return (
            LinkRefused(_REASONS[reason], by_peer=True)
            if number == HandshakeMessage.REFUSAL
            else None
        )
    except (LinkRefused, TypeError, ValueError, LookupError):
        return None


class LinkHandshake:
    """The handshake of one end.  Write `start()`, then what `feed` returns, until `peer` is set."""

    def __init__(
        self,
        credentials: LinkCredentials,
        node: NodeId | None,
        *,
        challenge: bytes,
        binding: bytes = b"",
    ) -> None:
        """`node`: the one that we dialled; None at the end that listens.

        `challenge` is drawn for this connection alone; `binding` is the certificate of the listener
        as this end sees it, or nothing.
        """
        self._credentials = credentials
        self._role = LinkRole.LISTENER if node is None else LinkRole.DIALLER
        self._challenge = challenge
        self._binding = binding
        self._ours = b"" if node is None else self._hello_to(node)
        self._theirs: Hello | None = None
        self._rest = b""
        """Received, and not a whole message yet."""
        self.node = node
        """Name that the other end claims, or must have."""
        self.claims: NodeId | None = None
        """Name that the other end gives itself, right or not."""
        self.is_proved = False
        """True if it is that node, though it may be refused as such."""
        self.peer: Identity | None = None
        """Identity of the peer, once proved."""

    def start(self) -> bytes:
        """First bytes to write, before anything is received."""
        return _with_size(self._ours) if self._role is LinkRole.DIALLER else b""

    def feed(self, data: bytes) -> bytes:
        """Handle received bytes; returns the bytes to write.  Raises `LinkRefused`."""
        self._rest += data
        answer = b""
        try:
            while self.peer is None and (raw := self._next_message()) is not None:
                answer += self._on_message(raw)
        except LinkRefused as refused:
            refused.is_proved = self.is_proved
            raise
        return answer

    def take_rest(self) -> bytes:
        """Bytes received behind the handshake."""
        rest, self._rest = self._rest, b""
        return rest

    def _next_message(self) -> bytes | None:
        """The next one that has come whole."""
        if len(self._rest) < SIZE_BYTES:
            return None
        end = SIZE_BYTES + int.from_bytes(self._rest[:SIZE_BYTES], "big")
        if end > SIZE_BYTES + MESSAGE_BYTES_MAX:
            if self._rest.startswith(TLS_RECORDS):
                raise LinkRefused(
                    HelloRefusal.TLS, detail="that node speaks TLS, this one does not"
                )
            raise LinkRefused(HelloRefusal.NOT_A_HELLO)
        if len(self._rest) < end:
            return None
        raw, self._rest = self._rest[SIZE_BYTES:end], self._rest[end:]
        return raw

    def _on_message(self, raw: bytes) -> bytes:
        match _unpacked(raw):
            case [HandshakeMessage.REFUSAL, str(reason)] if reason in _REASONS:
                raise LinkRefused(_REASONS[reason], by_peer=True)
            case [HandshakeMessage.HELLO, *fields] if self._theirs is None:
                return self._on_hello(raw, fields)
            case [HandshakeMessage.PROOF, bytes(proof)] if self._theirs is not None:
                return self._on_proof(proof, self._theirs)
        raise LinkRefused(HelloRefusal.NOT_A_HELLO)

    def _on_hello(self, raw: bytes, fields: list[object]) -> bytes:
        hello = read_hello(raw, fields, self._credentials.versions)
        self.claims = hello.identity.node
        self._check_names(hello)
        self._theirs = hello
        if self._role is LinkRole.LISTENER:
            self.node = hello.identity.node
            self._ours = self._hello_to(self.node)
            return _with_size(self._ours)
        # Before any proof of ours: by that the other end would know us as we are now.
        self._check_data(hello)
        return encode(HandshakeMessage.PROOF, self._proof_of(LinkRole.DIALLER, hello))

    def _check_names(self, hello: Hello) -> None:
        """Check that these two may talk to each other, by their names."""
        ours, theirs = self._credentials.us, hello.identity
        if not have_same_name(ours.cluster, theirs.cluster):
            raise LinkRefused(HelloRefusal.CLUSTER)
        if theirs.node == ours.node:
            raise LinkRefused(HelloRefusal.OWN_NAME)
        if hello.wants != ours.node or self.node not in (None, theirs.node):
            raise LinkRefused(HelloRefusal.WRONG_NODE)

    def _check_data(self, hello: Hello) -> None:
        """Check that the disks of both are the same as before, and that the sender is a member of
        the cluster.

        The listening end looks at that once the dialler has proved its identity: else any stranger
        could have our log say that a disk is to be emptied.  A node that was forgotten hears that,
        and not that it has yet to be let in, which would not be enough.
        """
        theirs = hello.identity
        if self._are_apart(theirs):
            if self.is_proved:
                raise self._parting(hello)
            return  # the reason goes only to a node that has proved to know the secret
        if self._credentials.incarnations.is_former(theirs.node, hello.incarnation):
            raise LinkRefused(HelloRefusal.FORMER_NODE)
        if self._role is LinkRole.LISTENER and not self._may_dial(theirs):
            raise LinkRefused(HelloRefusal.UNKNOWN_NODE)
        if hello.known is not None and not self._credentials.lives.remember(hello.known):
            raise LinkRefused(HelloRefusal.FORGOTTEN, has_data=self._is_begun)

    @property
    def _is_begun(self) -> bool:
        """True if this node has data of its cluster."""
        return self._credentials.incarnations.ours() > 0

    def _are_apart(self, theirs: Identity) -> bool:
        """True if the two are of clusters that were founded apart.

        Who has no data yet is bound to none: it may have helped to found one that never began.
        """
        is_one = are_same_cluster(self._credentials.us.cluster, theirs.cluster)
        return not is_one and self._is_begun and theirs.is_begun

    def _may_dial(self, theirs: Identity) -> bool:
        """True if that node may dial us: a peer, or one in no cluster that asks for one."""
        is_new = not (self._is_begun and theirs.is_begun)
        return theirs.node in self._credentials.peers or (self._credentials.admits and is_new)

    def _parting(self, hello: Hello) -> LinkRefused:
        """Both are to know by proof that there are two clusters."""
        is_listener = self._role is LinkRole.LISTENER
        proof = (
            encode(HandshakeMessage.PROOF, self._proof_of(self._role, hello))
            if is_listener
            else b""
        )
        return LinkRefused(HelloRefusal.OTHER_CLUSTER, proof=proof)

    def _on_proof(self, proof: bytes, hello: Hello) -> bytes:
        other = LinkRole.DIALLER if self._role is LinkRole.LISTENER else LinkRole.LISTENER
        if not hmac.compare_digest(proof, self._proof_of(other, hello)):
            raise LinkRefused(HelloRefusal.SECRET)
        self.is_proved = True
        self._check_data(hello)  # where we dialled, again: it may have been removed meanwhile
        if hello.identity.node in self._credentials.peers:
            self._credentials.boots.admit(hello.identity.node, hello.identity.boot)
        self.peer = hello.identity
        if self._role is LinkRole.LISTENER:
            return encode(HandshakeMessage.PROOF, self._proof_of(LinkRole.LISTENER, hello))
        return b""

    def _hello_to(self, node: NodeId) -> bytes:
        return encode_hello(self._credentials, node, self._challenge)

    def _proof_of(self, role: LinkRole, theirs: Hello) -> bytes:
        """Proof that the end with that role has to send."""
        hellos = (self._ours, theirs.raw)
        dialler, listener = hellos if self._role is LinkRole.DIALLER else reversed(hellos)
        parts = (MAGIC.encode(), role.value, dialler, listener, self._binding)
        said = b"".join(_with_size(part) for part in parts)
        return hmac.digest(self._credentials.secret, said, hashlib.sha256)


def encode(*message: object) -> bytes:
    """A message with its size."""
    return _with_size(_packed(message))


def encode_hello(credentials: LinkCredentials, wants: NodeId, challenge: bytes) -> bytes:
    """Without its size."""
    us, versions = credentials.us, list(credentials.versions)
    identity = (us.cluster, us.node, us.boot.count, us.boot.nonce, credentials.incarnations.ours())
    known = credentials.boots.latest(wants)
    wanted = (wants, (known.count, known.nonce) if known is not None and known.count else None)
    return _packed(
        (HandshakeMessage.HELLO, MAGIC, versions, *identity, *wanted, challenge, us.reads)
    )


def read_hello(raw: bytes, fields: list[object], versions: tuple[int, int]) -> Hello:
    """Read the fields of a hello, behind the number.  Raises `LinkRefused`."""
    match fields:
        case [magic, [int(oldest), int(newest)], *rest] if magic == MAGIC:
            if min(newest, versions[1]) < max(oldest, versions[0]):
                raise LinkRefused(HelloRefusal.VERSION)
        case _:
            raise LinkRefused(HelloRefusal.NOT_A_HELLO)
    match rest:
        case [str(cluster), str(node), int(count), bytes(nonce), int(incarnation), str(wants),
              known, bytes(challenge), int(reads)] if (
            count >= 1 and reads >= 1
            and len(nonce) == BOOT_NONCE_BYTES and len(challenge) == CHALLENGE_BYTES
        ):  # fmt: skip
            speaks = min(newest, versions[1])
            boot, is_begun = Boot(count, nonce), incarnation > 0
            identity = Identity(cluster, node, boot, reads, speaks, is_begun)
            return Hello(raw, identity, wants, _read_known(known), incarnation)
    raise LinkRefused(HelloRefusal.NOT_A_HELLO)


def _read_known(field: object) -> Boot | None:
    match field:
        case None:
            return None
        case [int(count), bytes(nonce)]:
            return Boot(count, nonce)
    raise LinkRefused(HelloRefusal.NOT_A_HELLO)


def _packed(message: tuple[object, ...]) -> bytes:
    return cast(bytes, msgpack.packb(message))


def _unpacked(raw: bytes) -> Any:
    try:
        return msgpack.unpackb(raw)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise LinkRefused(HelloRefusal.NOT_A_HELLO) from error


def _with_size(body: bytes) -> bytes:
    return len(body).to_bytes(SIZE_BYTES, "big") + body
