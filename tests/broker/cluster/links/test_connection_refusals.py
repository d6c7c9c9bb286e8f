"""Log lines about refused links, and when they are repeated."""

from __future__ import annotations

import logging

import pytest

from fluffle.broker.cluster.links.connection import LinkFailure, link_failure
from fluffle.broker.cluster.links.handshake import LinkCredentials, LinkHandshake
from fluffle.broker.cluster.links.identity import (
    ADVICE,
    Boots,
    HelloRefusal,
    Identity,
    LinkRefused,
    PeerBoots,
)
from tests.broker.cluster.links.link_nodes import SECRET, Node, identity, stopping
from tests.broker.cluster.links.raw_sockets import raw_to
from tests.broker.cluster.links.test_links_inbound import logged
from tests.broker.conftest import Run
from tests.support.loop_turns import turns_until


def test_a_refusal_after_a_link_is_said_again(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Refusals of the host and of the node are repeated: the fault was mended, so it is new."""

    async def refused(node: Node, us: Identity, secret: bytes) -> None:
        remembering = LinkCredentials(us, secret, PeerBoots(), {"a"}, Boots(9, ()))
        handshake = LinkHandshake(remembering, "a", challenge=bytes(32))
        async with raw_to(node.address) as raw:
            raw.writer.write(handshake.start())
            with pytest.raises(LinkRefused):
                await raw.finish(handshake)

    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        async with stopping(a):
            for boot in (3, 5):
                for _ in range(2):
                    await refused(a, identity("b", boot), b"guess")
                async with raw_to(a.address) as raw:
                    await raw.prove(identity("b", boot), "a")
                for _ in range(2):
                    await refused(a, identity("b", 1), SECRET)

    caplog.set_level(logging.INFO)
    run(scenario())
    lines = [(line["reason"], line["node"]) for line in logged(caplog, "link_refused")]
    assert lines == 2 * [("secret", None), ("old_boot", "b")]


def test_a_peer_that_is_removed_and_set_again_is_spoken_of_again(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a, b = Node("a", secret=b"guess"), Node("b")
        async with stopping(a, b):
            b.links.set_peer("a", "127.0.0.1", 1)
            for times in (2, 4):
                a.knows(b)
                await a.has_refused(HelloRefusal.SECRET, times=times)
                a.links.remove_peer("b")

    caplog.set_level(logging.INFO)
    run(scenario())
    lines = [line["peer"] for line in logged(caplog, "link_refused")]
    assert lines.count("b") == 2


def test_both_ends_know_why_there_is_no_link_until_there_is_one(run: Run) -> None:
    """The one that has another secret, and the one that has refused it."""

    async def scenario() -> None:
        a, b, good = Node("a"), Node("b", secret=b"guess"), Node("b")
        async with stopping(a, b, good):
            a.knows(b)
            b.knows(a)
            await turns_until(lambda: None not in (a.links.hindrance("b"), b.links.hindrance("a")))
            assert a.links.hindrance("b") == LinkFailure("refused by b: secret", secret_advice)
            assert b.links.hindrance("a") == LinkFailure("refused by a: secret", secret_advice)
            assert a.links.hindrance("c") is None
            assert not a.links.dialled_by
            a.knows(good)
            good.knows(a)
            await turns_until(lambda: a.links.is_up("b") and "b" in a.links.dialled_by)
            assert a.links.hindrance("b") is None

    secret_advice = ADVICE[HelloRefusal.SECRET]
    run(scenario())


def test_who_is_refused_here_and_who_does_not_answer() -> None:
    refused = LinkRefused(HelloRefusal.TLS, detail="certificate verify failed")
    assert link_failure("b", "", refused).reason == "b is refused: tls (certificate verify failed)"
    assert link_failure("b", "connect call failed", None) == LinkFailure(
        "connect call failed", None
    )
