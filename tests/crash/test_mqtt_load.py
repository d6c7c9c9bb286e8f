"""The MQTT clients that work beside kills leave nothing behind at a broker that did no wrong."""

import asyncio
from random import Random

from fluffle.broker import Broker
from fluffle.broker.torture.checker import Findings
from tests.support.deadlines import DEADLINE_S
from tests.support.mqtt_load import MqttLoad

SEEDS = range(5)


async def test_sessions_hold_no_message_once_all_have_finished() -> None:
    """A subscriber leaves once the node knows what it took, also what it had taken before."""
    async with Broker() as broker:
        url, vhost = broker.mqtt_url, broker.vhost()
        for seed in SEEDS:
            load, over = MqttLoad(Findings()), asyncio.Event()
            work = asyncio.create_task(load.roam([(url.host, url.port)], Random(seed), over))
            await load.is_busy.wait()
            over.set()
            await work
            await load.finish((url.host, url.port))
            assert load.report.is_clean, (seed, load.report.sentences())
            for name in "mqtt-subscription-s1qos1", "mqtt-subscription-s2qos1":
                await vhost.expect(name, count=0, within=DEADLINE_S)
