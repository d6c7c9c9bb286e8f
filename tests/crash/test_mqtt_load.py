"""The MQTT clients that work beside kills leave nothing behind at a broker that did no wrong."""

import asyncio
from random import Random

import pytest

from fluffle.broker import Broker
from fluffle.broker.torture.checker import Breach, Findings
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Packet, Suback, Subscribe
from tests.support.deadlines import DEADLINE_S
from tests.support.mqtt_load import MqttLoad, RetainedReader

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


@pytest.mark.parametrize("is_exact", [False, True])
def test_a_reader_whose_subscription_is_refused_asks_again_and_misses_nothing(
    is_exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is retained is lost by that; a node that is alone has no reason to refuse."""
    load, sent, now_s = MqttLoad(Findings(), is_exact=is_exact), list[Packet](), [100.0]
    monkeypatch.setattr("tests.support.mqtt_load.time.monotonic", lambda: now_s[0])
    reader = next(each for each in load.members if isinstance(each, RetainedReader))
    monkeypatch.setattr(reader, "send", lambda *packets: sent.extend(packets))
    load.publishers[-1].acknowledged.add(7)
    reader.go_on()
    reader.subscribed(Suback(1, [ReasonCode.UNSPECIFIED_ERROR]))
    now_s[0] += 2 * DEADLINE_S
    reader.go_on()
    assert [type(each) for each in sent] == [Subscribe, Subscribe]
    assert load.report.breaches == ({Breach.UNEXPECTED: 1} if is_exact else {})
