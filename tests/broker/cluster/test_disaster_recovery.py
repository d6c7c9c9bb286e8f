"""When a majority is lost for good, what one node has is still there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from fluffle.broker.__main__ import main
from fluffle.broker.cluster.disaster_recovery import NothingToRecover, force_single_node
from fluffle.broker.cluster.links.identity import Reason
from fluffle.broker.process.data_directory import LOCK_FILE, lock
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhosts.queue_changes import declare_queue
from fluffle.protocol.wire import to_table
from fluffle.raft.group import TERM_STEP
from tests.broker.cluster.test_cluster import define, has
from tests.broker.cluster.test_membership import are_voters, let_in
from tests.support.cluster_nodes import make_cluster, until
from tests.support.daemon import environment_for_nodes

pytestmark = pytest.mark.usefixtures("hasty")

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
    await until(lambda: refused[Reason.OTHER_CLUSTER] > 0)
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
