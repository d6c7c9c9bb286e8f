"""Links that are cut, or are none: nothing hangs, and all is well once they are back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from fluffle.broker.base.errors import InternalError
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster import cluster, metadata_group
from fluffle.broker.cluster.links.identity import HelloRefusal
from fluffle.broker.cluster.links.keepalive import LinkLimits
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.metadata_group import GIVE_UP_MS
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.definitions.changes import set_vhost
from tests.broker.cluster.test_cluster import define, has
from tests.support.certificates import Authority
from tests.support.cluster_nodes import (
    ClusterNodes,
    make_calm,
    make_cluster,
    running_cluster,
    until,
)
from tests.support.deadlines import soon

NEVER_MS = 60_000
"""Longer than anything is waited for here."""
PATIENCE_MS = 1_500
"""In place of `GIVE_UP_MS`."""


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_group, "GIVE_UP_MS", PATIENCE_MS)


@pytest.mark.usefixtures("_impatient")
async def test_in_a_minority_an_operation_ends_with_an_error(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, is_cuttable=True) as three:
        a = three["a"]
        three.isolate("a")
        began = asyncio.get_running_loop().time()
        with pytest.raises(InternalError, match="no majority of the cluster has agreed"):
            await a.change(lambda: set_vhost(a.node.catalogue, "v"))
        assert asyncio.get_running_loop().time() - began < GIVE_UP_MS / 1000
        assert "v" not in a.node.catalogue.vhosts
        await define(three["b"], "majority")
        await define(three["c"], "too")
        three.rejoin("a")
        await until(lambda: has(a, "majority") and has(a, "too"))
        await define(a, "after")
        await three.agree()


DIRECTIONS: Sequence[Sequence[tuple[str, str]]] = (
    [("a", "b")], [("b", "a")], [("a", "b"), ("b", "a")],
)  # fmt: skip


@pytest.mark.parametrize("directions", DIRECTIONS, ids=["a-b", "b-a", "both"])
async def test_a_link_that_flaps_costs_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directions: Sequence[tuple[str, str]]
) -> None:
    """At whatever moment of a change: what may be lost with a link goes over the next, and nobody
    waits until it is time to ask again, but consensus for some tenths of a second."""
    swift = LinkLimits(settled_ms=0, redial_ms=5, redial_ms_max=20, reopen_ms=NEVER_MS)
    monkeypatch.setattr(cluster, "ClusterLinks", partial(ClusterLinks, limits=swift))
    make_calm(monkeypatch)
    monkeypatch.setattr(metadata_group, "RETRY_MS", NEVER_MS)
    monkeypatch.setattr(metadata_group, "WAIT_S", NEVER_MS / 1_000)
    async with running_cluster(tmp_path, is_cuttable=True) as three:
        links = [three[dialling].cluster.links for dialling, _dialled in directions]
        for node, rounds in product(three, range(0, 60, 3)):
            opened = sum(each.counters.opened for each in links)
            word = f"{node.name}{rounds}"
            changing = asyncio.ensure_future(
                node.change(lambda: set_vhost(node.node.catalogue, word))  # noqa: B023
            )
            for _ in range(rounds):
                await asyncio.sleep(0)
            for direction in directions:
                three.proxies[direction].reset()
            await changing
            wanted = opened + len(links)
            await until(lambda: sum(each.counters.opened for each in links) >= wanted)  # noqa: B023
            assert all(word in each.node.catalogue.vhosts for each in three)


async def test_a_link_that_works_one_way_leaves_a_majority(tmp_path: Path) -> None:
    """Messages of the leader arrive at one of the two others, and are answered."""
    async with running_cluster(tmp_path, is_cuttable=True) as three:
        leader = next(node for node in three if node.cluster.metadata.leads)
        others = [node for node in three if node is not leader]
        three.cut_one_way(leader.name, others[0].name)
        await until(lambda: not leader.cluster.absent.is_alive(others[0].name))
        await define(others[1], "one-way")
        three.mend(leader.name, others[0].name)
        await three.agree()
        assert all(has(node, "one-way") for node in three)


async def test_a_node_with_another_secret_is_refused_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    three = await make_cluster(tmp_path)
    config = three["c"].config
    assert config.cluster is not None
    other = replace(config.cluster, secret=b"another")
    three["c"].config = replace(config, cluster=other)
    caplog.set_level(logging.WARNING)
    await three.start("ab")
    three["c"].begin()
    refused = three["c"].node
    await until(lambda: "cluster" in refused.addresses)

    def advice() -> dict[str, str]:
        """Logged advice by peer."""
        fields = [getattr(record, FIELDS_ATTRIBUTE) for record in caplog.records]
        said = [each for each in fields if "secret" in str(each.get("reason"))]
        return {each["peer"]: each["advice"] for each in said}

    await until(lambda: advice().keys() >= {"a", "b", "c"})
    assert all("give all nodes the same --cluster-secret" in said for said in advice().values())
    assert "amqp" not in refused.addresses
    await three.stop()


async def test_garbage_on_the_port_of_a_cluster_harms_nobody(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        address = three["a"].node.addresses["cluster"]
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"AMQP\0\0\x09\x01",
            bytes(10_000),
            b"\xff" * 99,
        ):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(garbage)
            async with soon():
                await reader.read()
            writer.close()
        refused = three["a"].cluster.links.counters.refused
        assert refused[HelloRefusal.NOT_A_HELLO] == 4
        await define(three["a"], "after")
        await three.agree()


async def test_clusters_that_were_founded_apart_do_not_mix_and_both_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that started alone has a log of its own, which the others would take for theirs."""
    caplog.set_level(logging.ERROR)
    three = await make_cluster(tmp_path)
    reported = reports_of(three)
    for names in ("a", "bc"):
        tell(three, names, {name: reported[name] for name in names})
    await three.start()
    await define(three["a"], "alone")
    await define(three["b"], "others")
    await three["a"].stop()
    tell(three, "a", reported)
    await three["a"].start()
    for node in three:
        refused = node.cluster.links.counters.refused
        await until(lambda: refused[HelloRefusal.OTHER_CLUSTER] > 0)  # noqa: B023
    assert has(three["c"], "others")
    assert has(three["a"], "alone")
    assert "v-alone" not in three["b"].node.catalogue.vhosts
    assert "v-others" not in three["a"].node.catalogue.vhosts
    said = [
        getattr(record, FIELDS_ATTRIBUTE)["advice"]
        for record in caplog.records
        if record.getMessage() == "cluster_split"
    ]
    assert said
    assert all("of the OTHER one with empty" in advice for advice in said)
    await three.stop()


def reports_of(nodes: ClusterNodes) -> Mapping[str, ListenAddress]:
    """Where each listens."""
    clusters = {node.name: node.config.cluster for node in nodes}
    return {name: cluster.listen for name, cluster in clusters.items() if cluster is not None}


def tell(nodes: ClusterNodes, names: str, peers: Mapping[str, ListenAddress]) -> None:
    """These have those founders, from their next start on."""
    for name in names:
        config = nodes[name].config
        assert config.cluster is not None
        nodes[name].config = replace(config, cluster=replace(config.cluster, peers=peers))


async def test_links_speak_tls_where_there_are_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    three = await make_cluster(tmp_path)
    for node in three:
        assert node.config.cluster is not None
        cluster = replace(
            node.config.cluster,
            tls_cert=authority.cert_file,
            tls_key=authority.key_file,
            tls_ca=authority.ca_file,
        )
        node.config = replace(node.config, cluster=cluster)
    await three.start()
    await define(three["a"], "hidden")
    authority.renew()
    for node in three:
        node.node.reload()
    await three["b"].stop()
    await three["b"].start()
    await three.agree()
    assert has(three["b"], "hidden")
    await three.stop()


async def test_who_speaks_no_tls_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    three = await make_cluster(tmp_path)
    for name in "ab":
        config = three[name].config
        assert config.cluster is not None
        cluster = replace(config.cluster, tls_cert=authority.cert_file, tls_key=authority.key_file)
        three[name].config = replace(config, cluster=cluster)
    await three.start("ab")
    three["c"].begin()
    await until(lambda: three["a"].cluster.links.counters.refused[HelloRefusal.TLS] > 0)
    assert "amqp" not in three["c"].node.addresses
    await three.stop()
