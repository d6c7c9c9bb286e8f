"""Links over TLS: who verifies whom, renewal, and somebody between two nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.cluster.links.identity import HelloRefusal
from fluffle.broker.cluster.links.tls import LinkCertificates
from fluffle.broker.cluster.ports import TrafficClass
from tests.broker.cluster.links.link_nodes import Node, linked, stopping, wire_to
from tests.broker.conftest import Run
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def certificates(authority: Authority, *, verifies: bool = True) -> LinkCertificates:
    ca = authority.ca_file if verifies else None
    return LinkCertificates(authority.cert_file, authority.key_file, ca)


def other_authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "other"
    folder.mkdir()
    return Authority(folder)


@pytest.mark.parametrize("verifies", [True, False])
def test_frames_go_over_tls(run: Run, authority: Authority, verifies: bool) -> None:
    async def scenario() -> None:
        shown = certificates(authority, verifies=verifies)
        a, b = (Node(name, certificates=shown) for name in "ab")
        async with stopping(a, b):
            await linked(a, b)
            for traffic in (TrafficClass.BULK, TrafficClass.URGENT):
                a.send("b", bytes([traffic]) * 1_000_000, traffic)
            await b.until(lambda: len(b.frames) == 2)
            assert b.payloads() == [bytes([traffic]) * 1_000_000 for traffic in (0, 2)]
            assert a.links.waiting_bytes("b", TrafficClass.BULK) == 0

    run(scenario())


def test_a_certificate_of_another_authority_is_refused_by_both(
    run: Run, authority: Authority, tmp_path: Path
) -> None:
    async def scenario() -> None:
        a = Node("a", certificates=certificates(authority))
        b = Node("b", certificates=certificates(other_authority(tmp_path)))
        async with stopping(a, b):
            a.knows(b)
            b.knows(a)
            for node in (a, b):
                await node.has_refused(HelloRefusal.TLS, times=2)
            assert (a.reported, b.reported) == ([], [])

    run(scenario())


@pytest.mark.parametrize("dialler", "ab")
def test_a_node_without_tls_and_one_with_both_say_that_this_is_why_they_are_not_linked(
    run: Run, authority: Authority, dialler: str
) -> None:
    async def scenario() -> None:
        a, b = Node("a", certificates=certificates(authority)), Node("b")
        async with stopping(a, b):
            if dialler == "a":
                a.knows(b)
            else:
                b.knows(a)
            await b.has_refused(HelloRefusal.TLS, times=2)
            await a.has_refused(HelloRefusal.TLS, times=2)
            assert (a.reported, b.reported) == ([], [])

    run(scenario())


def test_a_certificate_for_another_host_is_refused_by_who_dials(
    run: Run, authority: Authority
) -> None:
    """The certificate is for localhost and 127.0.0.1; the whole of 127/8 is this machine."""

    async def scenario() -> None:
        a, b = (Node(name, certificates=certificates(authority)) for name in "ab")
        async with stopping(a, b):
            a.knows(b, b.links.listen("127.0.0.2", 0))
            b.knows(a)
            assert await b.reports_of(1) == [True]
            await a.has_refused(HelloRefusal.TLS, times=1)
            assert a.reported == []

    run(scenario())


def test_a_renewed_certificate_is_used_by_the_next_links(run: Run, authority: Authority) -> None:
    """Its proofs, too: without authorities they are what ties the certificate to the node."""

    async def scenario() -> None:
        a, b = (Node(name, certificates=certificates(authority, verifies=False)) for name in "ab")
        async with stopping(a, b):
            await linked(a, b)
            before = authority.cert_file.read_bytes()
            authority.renew()
            assert authority.cert_file.read_bytes() != before
            a.links.reset("b", "renewal")
            assert await a.reports_of(2) == [True, True]
            assert await b.reports_of(2) == [True, True]

    run(scenario())


def test_somebody_between_two_nodes_cannot_hand_their_proofs_on(
    run: Run, authority: Authority, tmp_path: Path
) -> None:
    """The attacker ends the TLS of one node and starts its own; certificates are not verified."""

    async def scenario() -> None:
        a, b = (Node(name, certificates=certificates(authority, verifies=False)) for name in "ab")
        his = LinkCertificates((other := other_authority(tmp_path)).cert_file, other.key_file)
        contexts = his.current()
        async with (
            stopping(a, b),
            wire_to(b, accepts=contexts.listening, dials=contexts.dialling) as wire,
        ):
            b.knows(a)
            a.knows(b, wire.address)
            await b.has_refused(HelloRefusal.SECRET, times=2)
            assert a.reported == []

    run(scenario())


def test_what_cannot_be_used_keeps_a_node_from_starting(
    authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(StartFailed, match=r"cannot read .* with --cluster-tls-cert"):
        LinkCertificates(tmp_path / "nothing.pem", authority.key_file)
    with pytest.raises(StartFailed, match=r"no key in .* with --cluster-tls-key"):
        LinkCertificates(authority.cert_file)
    with pytest.raises(StartFailed, match=r"authorities in .* with --cluster-tls-ca"):
        LinkCertificates(authority.cert_file, authority.key_file, authority.key_file)
