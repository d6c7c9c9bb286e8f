"""Handshakes of two machines back to back, with an attacker between them who records and
changes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.links.handshake import (
    MESSAGE_BYTES_MAX,
    VERSIONS,
    HandshakeMessage,
    LinkCredentials,
    LinkHandshake,
    encode,
    refusal,
)
from fluffle.broker.cluster.links.identity import (
    Boot,
    Boots,
    HelloRefusal,
    Identity,
    LinkRefused,
    PeerBoots,
)

SECRET = b"correct horse battery staple"
A, B = Identity("rabbits", "a", Boot(3, b"a" * 16)), Identity("rabbits", "b", Boot(5, b"b" * 16))


def credentials(us: Identity, peers: str = "abc", secret: bytes = SECRET) -> LinkCredentials:
    return LinkCredentials(us, secret, PeerBoots(), set(peers), Boots.since(us.boot))


def dialler(
    of: LinkCredentials, node: str = "b", *, drawn: int = 1, binding: bytes = b""
) -> LinkHandshake:
    return LinkHandshake(of, node, challenge=bytes([drawn]) * 32, binding=binding)


def listener(of: LinkCredentials, *, drawn: int = 2, binding: bytes = b"") -> LinkHandshake:
    return LinkHandshake(of, None, challenge=bytes([drawn]) * 32, binding=binding)


@dataclass
class Talk:
    """Bytes of each end, and its result: the peer's identity, or the refusal."""

    said: list[tuple[LinkHandshake, bytes]]
    ends: dict[LinkHandshake, LinkRefused]

    def outcome(self, end: LinkHandshake) -> Identity | HelloRefusal | None:
        return self.ends[end].reason if end in self.ends else end.peer


def talk(one: LinkHandshake, other: LinkHandshake) -> Talk:
    """All that the two have to say to each other; who refuses tells it."""
    result = Talk([], {})
    speaker, hearer, data = one, other, one.start()
    while data:
        result.said.append((speaker, data))
        speaker, hearer = hearer, speaker
        try:
            data = speaker.feed(data)
        except LinkRefused as refused:
            result.ends[speaker] = refused
            data = b"" if refused.by_peer else refusal(refused.reason)
    return result


@pytest.mark.parametrize(("versions", "speaks"), [((9, 9), 9), ((3, 9), 9), ((9, 12), 10)])
def test_both_speak_the_newest_version_that_both_know(
    versions: tuple[int, int], speaks: int
) -> None:
    one = dialler(replace(credentials(A), versions=(9, 10)))
    other = listener(replace(credentials(B), versions=versions))
    talk(one, other)
    assert one.peer is not None
    assert other.peer is not None
    assert (one.peer.speaks, other.peer.speaks) == (speaks, speaks)


def test_both_know_each_other_after_two_round_trips() -> None:
    one, other = dialler(credentials(A)), listener(credentials(B))
    result = talk(one, other)
    assert (one.peer, other.peer) == (B, A)
    assert [speaker for speaker, _ in result.said] == [one, other, one, other]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_it_does_not_matter_how_the_bytes_are_cut(sizes: list[int]) -> None:
    one, other = dialler(credentials(A)), listener(credentials(B))
    speaker, hearer, data = one, other, one.start()
    while data:
        answer, at = b"", 0
        for size in [*sizes, len(data)]:
            answer += hearer.feed(data[at : at + size])
            at += size
        speaker, hearer, data = hearer, speaker, answer
    assert (one.peer, other.peer) == (B, A)


def test_what_comes_behind_the_handshake_is_kept() -> None:
    one, other = dialler(credentials(A)), listener(credentials(B))
    last = other.feed(one.feed(other.feed(one.start())))
    assert one.feed(last + b"frames") == b""
    assert one.take_rest() == b"frames"
    assert one.take_rest() == b""


REFUSALS: dict[str, tuple[LinkHandshake, LinkHandshake, HelloRefusal]] = {
    "secret": (
        dialler(credentials(A)), listener(credentials(B, secret=b"other")), HelloRefusal.SECRET
    ),
    "cluster": (
        dialler(credentials(replace(A, cluster="hares"))), listener(credentials(B)),
        HelloRefusal.CLUSTER,
    ),
    "another node at the address": (
        dialler(credentials(A), "c"), listener(credentials(B)), HelloRefusal.WRONG_NODE
    ),
    "itself": (dialler(credentials(A)), listener(credentials(A)), HelloRefusal.OWN_NAME),
    "two nodes of one name": (
        dialler(credentials(A)), listener(credentials(replace(B, node="a"))), HelloRefusal.OWN_NAME
    ),
    "a stranger": (
        dialler(credentials(A)), listener(credentials(B, peers="bc")), HelloRefusal.UNKNOWN_NODE
    ),
    "a newer protocol": (
        dialler(replace(credentials(A), versions=(VERSIONS[1] + 1, VERSIONS[1] + 2))),
        listener(credentials(B)),
        HelloRefusal.VERSION,
    ),
    "an older protocol": (
        dialler(credentials(A)),
        listener(replace(credentials(B), versions=(1, 1))),
        HelloRefusal.VERSION,
    ),
    "another certificate": (
        dialler(credentials(A), binding=b"of somebody between"),
        listener(credentials(B), binding=b"mine"),
        HelloRefusal.SECRET,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_node_that_does_not_belong_is_refused_with_the_reason(case: str) -> None:
    one, other, reason = REFUSALS[case]
    result = talk(one, other)
    assert (result.outcome(one), result.outcome(other)) == (reason, reason)
    assert [refused.by_peer for refused in result.ends.values()] == [False, True]
    assert (one.peer, other.peer) == (None, None)


def test_versions_that_overlap_agree() -> None:
    one = dialler(replace(credentials(A), versions=(1, 3)))
    other = listener(replace(credentials(B), versions=(3, 4)))
    talk(one, other)
    assert (one.peer, other.peer) == (B, A)


def test_an_answer_under_another_name_is_refused_by_the_dialler() -> None:
    """Even by one that knows the secret and was not asked."""
    one, other = dialler(credentials(A)), listener(credentials(replace(B, node="c")))
    hello = other._hello_to("a")
    one.start()
    with pytest.raises(LinkRefused, match="wrong_node"):
        one.feed(len(hello).to_bytes(2, "big") + hello)


@pytest.mark.parametrize("side", ["dialler", "listener"])
def test_a_wiped_disk_is_refused_once_it_has_proved_whose_it_is(side: str) -> None:
    """Even if it claims to remember everything."""
    liar = Boots(9, ())
    knows_a = replace(credentials(B), boots=PeerBoots({"a": Boot(4, b"a" * 16)}), lives=liar)
    knows_b = replace(credentials(A), boots=PeerBoots({"b": Boot(9, b"b" * 16)}), lives=liar)
    one = dialler(knows_b if side == "dialler" else replace(credentials(A), lives=liar))
    other = listener(knows_a if side == "listener" else replace(credentials(B), lives=liar))
    result = talk(one, other)
    refuser = one if side == "dialler" else other
    assert result.outcome(refuser) is HelloRefusal.OLD_BOOT
    assert refuser.peer is None


@pytest.mark.parametrize("side", ["dialler", "listener"])
@pytest.mark.parametrize("known", [Boot(3, b"x" * 16), Boot(2, b"x" * 16), Boot(9, b"a" * 16)])
def test_a_disk_that_does_not_remember_how_it_was_known_gives_no_proof(
    side: str, known: Boot
) -> None:
    """Wiped, and started as often since as the other knows, or more often; or rolled back."""
    wiped = replace(credentials(A), lives=Boots(3, (b"y" * 16, b"z" * 16, b"a" * 16)))
    knowing = replace(credentials(B), boots=PeerBoots({"a": known}))
    if side == "dialler":
        one, other = dialler(wiped), listener(knowing)
        refuser = one
    else:
        one, other = dialler(knowing, "a"), listener(wiped)
        refuser = other
    result = talk(one, other)
    assert result.outcome(refuser) is HelloRefusal.FORGOTTEN
    assert one.peer is other.peer is None
    assert knowing.boots.latest("a") == known


class Known:
    """The `Incarnations` of a node that has this one, and knows that some members are former."""

    def __init__(self, ours: int, *former: tuple[str, int]) -> None:
        self._ours = ours
        self._former = former

    def ours(self) -> int:
        return self._ours

    def is_former(self, node: str, incarnation: int) -> bool:
        return (node, incarnation) in self._former


@pytest.mark.parametrize(
    ("incarnation", "outcomes"), [(2, [HelloRefusal.FORMER_NODE] * 2), (4, [B, A]), (0, [B, A])]
)
@pytest.mark.parametrize("side", ["dialler", "listener"])
def test_a_former_node_is_refused(
    side: str, incarnation: int, outcomes: list[Identity | HelloRefusal]
) -> None:
    """The refusal does not depend on which side dials; that node knows nothing yet."""
    a = replace(credentials(A), incarnations=Known(1, ("b", 2)))
    b = replace(credentials(B), incarnations=Known(incarnation))
    if side == "dialler":
        ours, theirs = dialler(a), listener(b)
        result = talk(ours, theirs)
    else:
        ours, theirs = listener(a), dialler(b, "a")
        result = talk(theirs, ours)
    assert [result.outcome(ours), result.outcome(theirs)] == outcomes


def test_a_node_that_was_started_while_others_were_away_is_known_again() -> None:
    for known in (Boot(1, b"y" * 16), Boot(2, b"z" * 16), Boot(3, b"a" * 16)):
        us = replace(credentials(A), lives=Boots(3, (b"y" * 16, b"z" * 16, b"a" * 16)))
        one, other = dialler(us), listener(replace(credentials(B), boots=PeerBoots({"a": known})))
        talk(one, other)
        assert (one.peer, other.peer) == (B, A)


def test_nobody_is_remembered_before_the_proof() -> None:
    ours = credentials(B)
    liar = dialler(credentials(replace(A, boot=Boot(10**9, b"x" * 16)), secret=b"guess"))
    talk(liar, listener(ours))
    one = dialler(credentials(A))
    talk(one, listener(ours))
    assert one.peer == B


def test_a_stranger_who_dials_is_given_no_proof() -> None:
    """Else he could try secrets on it at home."""
    one, other = dialler(credentials(A, secret=b"guess")), listener(credentials(B))
    said = [data for speaker, data in talk(one, other).said if speaker is other]
    assert [msgpack.unpackb(data[2:])[0] for data in said] == [
        HandshakeMessage.HELLO,
        HandshakeMessage.REFUSAL,
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_what_was_overheard_proves_nothing_later(count: int) -> None:
    """All that A said is said again to B, which draws another challenge."""
    one = dialler(credentials(A))
    overheard = [data for speaker, data in talk(one, listener(credentials(B))).said
                 if speaker is one]  # fmt: skip
    later = listener(credentials(B), drawn=3)
    later.feed(b"".join(overheard[: count - 1]))
    if count == 1:
        overheard = [b"".join(overheard)]
    with pytest.raises(LinkRefused, match="secret"):
        later.feed(overheard[count - 1])
    assert later.peer is None


def test_a_listener_that_repeats_what_it_overheard_proves_nothing() -> None:
    other = listener(credentials(B))
    said = talk(dialler(credentials(A)), other).said
    hello, proof = (data for speaker, data in said if speaker is other)
    later = dialler(credentials(A), drawn=4)
    later.start()
    later.feed(hello)
    with pytest.raises(LinkRefused, match="secret"):
        later.feed(proof)


def test_a_proof_does_not_count_for_the_other_role() -> None:
    """An attacker without the secret sends A's own proof back to A."""
    one, other = dialler(credentials(A)), listener(credentials(B))
    proof = one.feed(other.feed(one.start()))
    with pytest.raises(LinkRefused, match="secret"):
        one.feed(proof)


@given(st.data())
def test_whatever_is_changed_on_the_way_there_is_no_link(data: st.DataObject) -> None:
    """A bit of one message is changed: at least one end refuses, and no end takes the other for
    another."""
    one, other = dialler(credentials(A)), listener(credentials(B))
    changed = data.draw(st.integers(0, 3), label="message")
    ends = [other, one, other, one]
    said, refused = one.start(), False
    for number, end in enumerate(ends):
        if number == changed:
            at = data.draw(st.integers(0, 8 * len(said) - 1), label="bit")
            octets = bytearray(said)
            octets[at // 8] ^= 1 << at % 8
            said = bytes(octets)
        try:
            said = end.feed(said)
        except LinkRefused:
            refused = True
            break
    assert one.peer in (None, B)
    assert other.peer in (None, A)
    if changed < 3:
        assert one.peer is None
    assert refused or one.peer is None, "the last end waits for bytes that do not come, or refuses"


JUNK = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "AMQP": b"AMQP\x00\x00\x09\x01",
    "no msgpack": b"\x00\x01\xc1",
    "nothing": b"\x00\x00",
    "a list of nothing": b"\x00\x01\x90",
    "a proof before a hello": encode(HandshakeMessage.PROOF, b"x" * 32),
    "deep nesting": b"\x02\x00" + b"\x91" * 512,
    "a hello of another protocol": encode(HandshakeMessage.HELLO, "gossip", [*VERSIONS]),
    "a hello without fields": encode(HandshakeMessage.HELLO, "fluffle link", [*VERSIONS]),
    "a hello whose challenge is short": encode(
        HandshakeMessage.HELLO,
        "fluffle link",
        [*VERSIONS],
        "rabbits",
        "a",
        1,
        b"a" * 16,
        0,
        "b",
        None,
        b"",
        1,
    ),
    "a boot of 0": encode(
        HandshakeMessage.HELLO,
        "fluffle link",
        [*VERSIONS],
        "rabbits",
        "a",
        0,
        b"a" * 16,
        0,
        "b",
        None,
        b"1" * 32,
        1,
    ),
    "an unknown reason": encode(HandshakeMessage.REFUSAL, "mood"),
}


@pytest.mark.parametrize("what", JUNK)
@pytest.mark.parametrize("role", ["dialler", "listener"])
def test_what_is_no_hello_is_refused(what: str, role: str) -> None:
    end = dialler(credentials(A)) if role == "dialler" else listener(credentials(B))
    with pytest.raises(LinkRefused, match="not_a_hello"):
        end.feed(JUNK[what])


def test_a_second_hello_is_refused() -> None:
    other = listener(credentials(B))
    hello = dialler(credentials(A)).start()
    other.feed(hello)
    with pytest.raises(LinkRefused, match="not_a_hello"):
        other.feed(hello)


@given(st.lists(st.binary(max_size=300), max_size=50))
def test_a_stranger_makes_us_keep_no_more_than_one_message(reads: list[bytes]) -> None:
    other = listener(credentials(B))
    with suppress(LinkRefused):
        for read in reads:
            other.feed(read)
            assert len(other._rest) <= MESSAGE_BYTES_MAX + 2
    assert other.peer is None
