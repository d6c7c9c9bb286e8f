"""A virtual host that is protected from deletion, beside a node that does not know of that."""

from __future__ import annotations

import pytest

from fluffle.broker.access.limits import PROTECTED
from fluffle.broker.cluster import metadata_group
from fluffle.broker.definitions.changes import doom, set_vhost
from fluffle.broker.durability.change_codec import encode_proposals
from fluffle.broker.metadata.change import Change, Fact, Kind
from fluffle.broker.metadata.state import Proposal
from tests.support.metadata_changes import declare
from tests.support.metadata_cluster import Cluster, Node, led_by_a


@pytest.fixture
def cluster() -> Cluster:
    return led_by_a()


def doom_unaware(node: Node) -> Change:
    """Deletion by a version that knows no protection."""
    mark = Kind.DOOMED, ("/",)
    return Change(puts=(Fact(*mark),), rests_on=((Kind.VHOST, ("/",)), mark))


@pytest.mark.parametrize("is_early", [False, True])
def test_an_earlier_version_deletes_nothing_that_is_protected(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, *, is_early: bool
) -> None:
    b = cluster.nodes["b"]
    protect = {PROTECTED: True}
    b.editor.have(lambda: set_vhost(b.catalogue, "/", metadata=protect))
    cluster.settle()
    doomed, declared = b.ask(lambda: doom_unaware(b)), b.ask(declare(b))
    if is_early:
        cluster.elect("c")
        cluster.settle()
        cluster.nodes["c"].metadata.led(cluster.term)
    cluster.settle()
    assert (doomed.heard, declared.heard) == ([], ["done"])
    assert "proposals_rejected" in caplog.text
    cluster.advance(60)
    (text,) = doomed.heard
    assert text.startswith("INTERNAL_ERROR - the operation timed out")
    assert [list(node.catalogue.vhosts["/"].queues) for node in cluster.nodes.values()] == [
        ["q"]
    ] * 3


def test_what_was_not_protected_when_it_was_decided_is_decided_anew(
    cluster: Cluster,
) -> None:
    b, c = cluster.nodes["b"], cluster.nodes["c"]
    c.is_paused = True
    b.editor.have(lambda: set_vhost(b.catalogue, "/", metadata={PROTECTED: True}))
    outcome = c.ask(lambda: doom(c.catalogue, "/"))
    cluster.settle()
    c.is_paused = False
    cluster.settle()
    (text,) = outcome.heard
    assert "it is protected from deletion" in text


def test_all_others_go_into_the_log_as_they_came(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of an earlier version must be able to read them."""
    written: list[int] = []

    def encode(proposals: list[Proposal]) -> bytes:
        written.append(len(proposals))
        return encode_proposals(proposals)

    monkeypatch.setattr(metadata_group, "encode_proposals", encode)
    declared = cluster.nodes["b"].ask(declare(cluster.nodes["b"]))
    cluster.settle()
    assert (declared.heard, written) == (["done"], [1])
