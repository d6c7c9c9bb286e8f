"""What became of messages in a cluster: whichever node they came and went by."""

from __future__ import annotations

import pytest

from fluffle.broker import Cluster
from tests.support.quorum_queue import ChannelAt, declare, publish


async def test_the_way_of_a_message_from_one_node_to_another(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        vhost = cluster.vhost()
        await declare(cluster, channel := await channel_at(cluster, 0))
        await publish(channel, b"first", b"second")
        queue = await (await channel_at(cluster, 2)).declare_queue("orders", passive=True)
        await (await queue.get()).ack()
        await queue.get()
        first, second = await vhost.history("orders")
        assert [step.what for step in first.steps] == ["published", "delivered", "acked"]
        assert first.steps[0].who != first.steps[1].who
        assert second.state == "unacked"
        with pytest.raises(AssertionError, match="1 not acknowledged"):
            await vhost.assert_no_unacked(within=0.1)
        await cluster.kill(0)
        assert await cluster.leader("orders") in {1, 2}
        assert [each.state for each in await vhost.history("orders")] == ["acked", "unacked"]
        assert "left in queue 'orders': 0 ready, 1 unacknowledged" in await vhost.timeline()
