"""Data that are a copy of what a node has written are not taken for what it has written."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import lmdb
import pytest
from click.testing import CliRunner, Result

from fluffle.broker.__main__ import main
from fluffle.broker.base.errors import StartFailed
from fluffle.broker.cluster.data_directory import (
    SET_ASIDE,
    NotACopy,
    NothingToRecover,
    force_single_node,
    owner_of,
)
from fluffle.broker.cluster.links.identity import HelloRefusal
from fluffle.broker.cluster.membership import begun_as
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node
from fluffle.broker.process.data_directory import LOCK_FILE, lock
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhosts.queue_changes import declare_queue
from fluffle.protocol.wire import to_table
from fluffle.raft.election import TERM_STEP
from fluffle.storage.environment import STORE_FOLDER, data_file
from fluffle.storage.file_mark import FileMark, mark_of
from tests.broker.cluster.queues.test_classic_queues import Scene as ClassicScene
from tests.broker.cluster.queues.test_membership import drained
from tests.broker.cluster.queues.test_quorum_queues import Scene, publish
from tests.broker.cluster.test_cluster import define, has
from tests.broker.cluster.test_membership import are_voters, let_in
from tests.support.cluster_nodes import ClusterNode, make_cluster, running_cluster, until
from tests.support.daemon import environment_for_nodes
from tests.support.ports import LOOPBACK, free_ports

pytestmark = pytest.mark.usefixtures("hasty")

UNCOPIED = shutil.ignore_patterns("*lock*", "*.sock")
"""Files of a process: closing a copy would give up the locks of the running node."""


def copied(node: ClusterNode, place: Path) -> None:
    """The data of a node, which may run; nothing is under way on its disk."""
    shutil.copytree(node.config.data_dir, place, ignore=UNCOPIED)


def put_back(place: Path, node: ClusterNode) -> None:
    node.wipe()
    shutil.copytree(place, node.config.data_dir, dirs_exist_ok=True)


def said(word: str, node: ClusterNode, *words: str) -> Result:
    """The output of `fluffle data`."""
    runner = CliRunner(env=environment_for_nodes())
    return runner.invoke(main, ["data", word, "--data-dir", str(node.config.data_dir), *words])


async def test_a_disk_that_was_put_back_within_a_life_is_no_part_of_a_majority(
    tmp_path: Path,
) -> None:
    """A copy of a, and c, which was down, are a majority that lacks what a and b have confirmed."""
    async with running_cluster(tmp_path) as nodes, AsyncExitStack() as stack:
        scene = Scene(nodes, stack)
        await scene.declare("a")
        a = nodes["a"]
        await nodes.agree()
        copied(a, tmp_path / "copy")
        await nodes["c"].kill()
        bodies = [b"%d" % number for number in range(200)]
        await publish(await scene.channel("a"), *bodies)
        await a.kill()
        await nodes["b"].kill()
        put_back(tmp_path / "copy", a)
        nodes["c"].begin()
        with pytest.raises(StartFailed, match="a copy of what node 'a' has written") as refused:
            await a.start()
        await nodes["b"].start()
        assert f"fluffle data restored --data-dir {a.config.data_dir}" in str(refused.value)
        assert f"fluffle data moved --data-dir {a.config.data_dir}" in str(refused.value)

        a.forget_process()
        done = said("restored", a)
        assert done.exit_code == 0, done.output
        for step in ("forget a`", "add a=HOST:PORT`", f"cp -r {a.config.data_dir}/{SET_ASIDE}-1 "):
            assert step in done.output
        assert (a.config.data_dir / f"{SET_ASIDE}-1").exists()
        await nodes["c"].started()
        await nodes["b"].ask("cluster.forget", name="a")
        await until(lambda: "a" not in nodes["b"].roles())
        await let_in(nodes, "a", by="b")
        await a.start()
        assert begun_as(a.cluster.running.host) > 1
        assert await drained(scene, "a", len(bodies)) == bodies


async def test_classic_queues_of_a_copy_are_saved_apart(tmp_path: Path) -> None:
    """Salvage a copy of what was set aside, and run it with another secret."""
    async with running_cluster(tmp_path) as nodes, AsyncExitStack() as stack:
        scene = ClassicScene(nodes, stack)
        await scene.declare("q")
        await publish(await scene.channel("a"), b"1", b"2")
        a = nodes["a"]
        await a.kill()
        assert said("restored", a).exit_code == 0
        apart = tmp_path / "apart"
        shutil.copytree(a.config.data_dir / f"{SET_ASIDE}-1", apart / STORE_FOLDER)
        force_single_node(apart, lambda: "salvaged")
        assert a.config.cluster is not None
        listen = ListenAddress(LOOPBACK, *free_ports(1))
        cluster = replace(a.config.cluster, peers={"a": listen}, listen=listen, secret=b"another")
        saved = ClusterNode(replace(a.config, data_dir=apart, cluster=cluster))
        await saved.start()
        assert saved.node.catalogue.vhosts["/"].queues["q"].ready_count == 2
        await saved.stop()


async def test_a_directory_that_was_moved_goes_on_when_it_is_said_so(tmp_path: Path) -> None:
    nodes = await make_cluster(tmp_path)
    await nodes.start()
    a = nodes["a"]
    await a.stop()
    shutil.copytree(a.config.data_dir, tmp_path / "elsewhere")
    put_back(tmp_path / "elsewhere", a)
    with pytest.raises(StartFailed, match="fluffle data moved"):
        await a.start()
    a.forget_process()
    assert said("moved", a).exit_code == 1, "it asks"
    done = said("moved", a, "--yes")
    assert done.exit_code == 0, done.output
    assert "node 'a' goes on with what is in" in done.output
    for _ in range(2):
        await a.start()
        assert a.cluster.boot.count > 1
        await a.stop()
    await nodes.stop()


async def test_a_store_whose_commits_are_counted_anew_was_not_moved(tmp_path: Path) -> None:
    """The others would refuse it when it had started, as one that was put back."""
    nodes = await make_cluster(tmp_path)
    await nodes.start()
    a = nodes["a"]
    await a.stop()
    file = data_file(a.config.data_dir)
    (tmp_path / "compacted").mkdir()
    with lmdb.open(str(file.parent), readonly=True, lock=False) as store:
        store.copy(str(tmp_path / "compacted"), compact=True)
    (tmp_path / "compacted" / file.name).replace(file)
    done = said("moved", a, "--yes")
    assert done.exit_code == 1
    assert "copy the files as they are" in done.output
    await nodes.stop()


async def test_a_directory_that_is_renamed_is_what_it_was(tmp_path: Path) -> None:
    """A disk that is mounted elsewhere is taken, too."""
    nodes = await make_cluster(tmp_path)
    await nodes.start()
    await nodes["a"].stop()
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "a")
    await nodes["a"].start()
    await nodes.stop()


async def test_what_is_no_copy_is_not_called_one(tmp_path: Path) -> None:
    with pytest.raises(NotACopy, match="no data of a node of a cluster"):
        owner_of(tmp_path)
    nodes = await make_cluster(tmp_path)
    done = said("restored", nodes["a"])
    assert done.exit_code == 1
    assert "holds no data of a node of a cluster" in done.output
    with lock(tmp_path / "a" / LOCK_FILE):
        done = said("moved", nodes["a"], "--yes")
    assert done.exit_code == 1
    assert "runs; stop it first" in done.output


async def test_a_copy_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    """A directory that is copied while it is written may be anything."""
    nodes = await make_cluster(tmp_path)
    await nodes.start()
    a = nodes["a"]
    await a.stop()
    data_file(a.config.data_dir).write_bytes(bytes(100_000))
    done = said("restored", a)
    assert done.exit_code == 0, done.output
    assert "`fluffle cluster forget NAME`" in done.output
    assert not data_file(a.config.data_dir).exists()
    await nodes.stop()


async def test_a_node_that_is_alone_starts_from_a_copy(tmp_path: Path) -> None:
    """No other node knows what the copy lacks."""
    (tmp_path / "original").mkdir()
    for place in ("original", "copy"):
        node = Node(Config(data_dir=tmp_path / place, listen=ListenAddress("127.0.0.1", 0)))
        await node.start()
        await node.stop("shutdown")
        if place == "original":
            shutil.copytree(tmp_path / "original", tmp_path / "copy")
    with pytest.raises(NotACopy, match="of a node that is alone"):
        owner_of(tmp_path / "copy")


def test_a_copy_of_a_file_has_another_mark(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    mark = mark_of(file)
    assert mark is not None
    assert mark.is_conclusive
    file.write_bytes(b"2")
    os.utime(file, (1, 1))
    file.chmod(0o600)
    file.rename(tmp_path / "renamed")
    assert mark_of(tmp_path / "renamed") == mark
    shutil.copy2(tmp_path / "renamed", file)
    copy = mark_of(file)
    assert copy is not None
    assert mark.is_other(copy)
    assert mark_of(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("one", "other", "is_other"),
    [
        (FileMark(1, 5, 9), FileMark(1, 5, 9), False),
        (FileMark(1, 5, 9), FileMark(2, 5, 9), True),
        (FileMark(1, 5, None), FileMark(1, 6, None), False),
        (FileMark(1, 5, 9), FileMark(None, 5, 9), False),
        (FileMark(None, 5, 9), FileMark(None, 5, 8), True),
        (FileMark(None, 5, 9), FileMark(None, 6, 9), True),
        (FileMark(None, 5, None), FileMark(None, 6, None), False),
        (FileMark(1, 5, None), FileMark(None, 6, 9), False),
    ],
)
def test_only_what_both_marks_tell_sets_files_apart(
    one: FileMark, other: FileMark, is_other: bool
) -> None:
    assert one.is_other(other) is is_other
    assert other.is_other(one) is is_other


MARK = "salvaged"


async def test_a_node_goes_on_alone_and_others_join_it(tmp_path: Path) -> None:
    nodes = await make_cluster(tmp_path)
    await nodes.start()
    vhost = nodes["a"].node.catalogue.vhosts["/"]
    quorum = Declaration("q", durable=True, arguments=to_table({"x-queue-type": "quorum"}))
    await nodes["a"].change(partial(declare_queue, vhost, quorum, None))
    queue = vhost.queues["q"].definition.id
    await define(nodes["b"], "before")
    await nodes.agree()
    for node in nodes:
        await node.kill()
    done = force_single_node(tmp_path / "b", lambda: MARK)
    assert set(done.groups) == {1, queue}
    assert done.damaged == ()
    await nodes["b"].start()
    assert has(nodes["b"], "before")
    await define(nodes["b"], "alone")
    host = nodes["b"].cluster.running.host
    await until(lambda: host.group(queue).status.leader == "b")
    assert host.group(queue).status.term > TERM_STEP, "nobody has seen a later one"

    nodes["a"].begin()  # with what it has
    refused = nodes["b"].cluster.links.counters.refused
    await until(lambda: refused[HelloRefusal.OTHER_CLUSTER] > 0)
    assert "amqp" not in nodes["a"].node.addresses
    await nodes["a"].kill()

    for name in "ac":
        await nodes["b"].ask("cluster.forget", name=name)
    nodes.grow("d")
    await let_in(nodes, "d", by="b")
    await nodes["d"].start()
    await are_voters(nodes["b"], "bd")
    assert has(nodes["d"], "before")
    assert has(nodes["d"], "alone")
    await nodes.stop()


async def test_only_a_node_of_a_cluster_that_does_not_run_can_be_salvaged(tmp_path: Path) -> None:
    with pytest.raises(NothingToRecover, match="no data of a node of a cluster"):
        force_single_node(tmp_path, lambda: MARK)
    nodes = await make_cluster(tmp_path)
    await nodes.start("ab")
    await nodes["b"].stop()
    runner = CliRunner(env=environment_for_nodes())
    arguments = ["salvage", "--data-dir", str(tmp_path / "b")]
    with lock(tmp_path / "b" / LOCK_FILE):
        refused = runner.invoke(main, arguments, input="y\n")
    assert refused.exit_code == 1
    assert "runs; stop it first" in refused.output
    assert "Go on?" not in refused.output
    assert runner.invoke(main, arguments, input="n\n").exit_code == 1
    done = runner.invoke(main, [*arguments, "--yes"])
    assert done.exit_code == 0, done.output
    assert "this node goes on alone, with 0 quorum queues; start it" in done.output
    await nodes.stop()
