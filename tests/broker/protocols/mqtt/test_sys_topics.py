"""`$SYS`: figures of a node for those who may read them, and topics that nobody else has."""

import pytest

from fluffle.broker.access.access import Permission, TopicPermission, User
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.protocols.mqtt.sys_topics import LoadAverage
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Connect, Disconnect, Will, encode
from fluffle.protocol.mqtt.properties import decode_properties
from fluffle.protocol.mqtt.reader import Publishes
from tests.support.mqtt_edge import MqttClient, MqttEdge

AS_PUBLISHED = 8


def figures(client: MqttClient) -> dict[str, str]:
    """Take everything, which must be figures: by their names below `$SYS/broker/`."""
    return {
        topic.removeprefix("$SYS/broker/"): payload.decode()
        for topic, payload, _qos in client.messages()
    }


def downgrade(mqtt: MqttEdge, *tags: str) -> None:
    """Take the user's tags away but these."""
    editor = mqtt.edge.editor
    user = mqtt.edge.services.access.users["guest"]
    editor.put_user(User("guest", user.password, tags))


def test_who_subscribes_has_all_figures_at_once_as_retained_messages() -> None:
    mqtt = MqttEdge()
    mqtt.connect("away", expiry_s=60).lose()
    publisher = mqtt.connect("p", MQTT_3_1_1)
    publisher.publish("a", b"12345", 1, retain=True)
    client = mqtt.connect("c")
    client.subscribe("$SYS/#", options=1)
    runs = client.packets()
    assert all(isinstance(run, Publishes) and run.retain and not run.qos for run in runs)
    found = {
        run.topic.decode().removeprefix("$SYS/broker/"): run.payloads[0]
        for run in runs
        if isinstance(run, Publishes)
    }
    loads = [each for each in found if each.startswith("load/")]
    assert len(loads) == 3 * 9
    for each in loads:
        del found[each]
    assert found.pop("version").startswith(b"fluffle version ")
    assert int(found.pop("bytes/received")) > int(found.pop("bytes/sent")) > 0
    assert int(found.pop("heap/maximum")) >= int(found.pop("heap/current")) > 1 << 20
    assert found == {
        "uptime": b"0 seconds",
        "clients/total": b"3",
        "clients/connected": b"2",
        "clients/active": b"2",
        "clients/disconnected": b"1",
        "clients/inactive": b"1",
        "clients/maximum": b"2",
        "clients/expired": b"0",
        "subscriptions/count": b"1",
        "retained messages/count": b"1",
        "messages/received": b"5",
        "messages/sent": b"5",
        "publish/messages/received": b"1",
        "publish/messages/sent": b"0",
        "publish/messages/dropped": b"0",
        "publish/bytes/received": b"5",
        "publish/bytes/sent": b"0",
        "shared_subscriptions/count": b"0",
    }


def test_payloads_that_are_sent_are_counted() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=1)
    publisher.publish("a", b"12345", 1)
    assert client.messages() == [("a", b"12345", 1)]
    mqtt.edge.advance(1)
    watcher = mqtt.connect("w")
    watcher.subscribe("$SYS/broker/publish/bytes/sent", options=0)
    assert figures(watcher) == {"publish/bytes/sent": "5"}


def test_what_has_changed_is_sent_every_interval() -> None:
    mqtt = MqttEdge(MqttConfig(sys_interval_s=10))
    client = mqtt.connect("c")
    client.subscribe("$SYS/broker/clients/#", "$SYS/broker/uptime", options=0)
    client.packets()
    mqtt.connect("d")
    mqtt.edge.advance(9)
    assert client.packets() == []
    mqtt.edge.advance(1)
    reported = figures(client)
    assert (reported["clients/connected"], reported["uptime"]) == ("2", "10 seconds")
    mqtt.edge.advance(10)
    assert figures(client) == {"uptime": "20 seconds"}
    client.unsubscribe("$SYS/broker/clients/#", "$SYS/broker/uptime")
    mqtt.edge.advance(20)
    assert client.packets() == []


def test_what_is_reported_later_is_not_retained_unless_that_is_asked_for() -> None:
    mqtt = MqttEdge()
    plain, asking = mqtt.connect("plain"), mqtt.connect("asking")
    plain.subscribe("$SYS/broker/uptime", options=2, identifier=7)
    asking.subscribe("$SYS/broker/uptime", options=2 | AS_PUBLISHED)
    plain.packets()
    asking.packets()
    mqtt.edge.advance(10)
    (run,) = plain.packets()
    assert isinstance(run, Publishes)
    assert (run.qos, run.retain) == (0, False)
    assert decode_properties(run.properties).subscription_ids == [7]
    (run,) = asking.packets()
    assert isinstance(run, Publishes)
    assert run.retain


def test_wildcards_of_all_topics_see_none_of_it() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("#", "+/broker/uptime", options=0)
    mqtt.edge.advance(30)
    assert client.packets() == []


def test_loads_are_averages_of_minutes() -> None:
    mqtt = MqttEdge(MqttConfig(sys_interval_s=60))
    client = mqtt.connect("c", keep_alive_s=0)
    client.subscribe("$SYS/broker/load/publish/received/+", options=0)
    for _ in range(100):
        client.publish("nobody")
    mqtt.edge.advance(60)
    assert figures(client) == {
        "load/publish/received/1min": "63.21",
        "load/publish/received/5min": "18.13",
        "load/publish/received/15min": "6.45",
    }
    mqtt.edge.advance(60)
    assert figures(client)["load/publish/received/1min"] == "23.25"


def test_an_average_comes_near_what_goes_on() -> None:
    average = LoadAverage(0)
    for number in range(600):
        average.take(number * 10, number * 10_000)
    assert [float(each) for _, each in average.shown()] == pytest.approx([60, 60, 60], rel=0.01)


def test_with_an_interval_of_0_there_are_none() -> None:
    mqtt = MqttEdge(MqttConfig(sys_interval_s=0))
    client = mqtt.connect("c")
    client.subscribe("$SYS/#", options=0)
    mqtt.edge.advance(30)
    assert client.packets() == []


def test_nothing_ticks_once_all_clients_are_gone() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("$SYS/#", options=0)
    client.lose()
    assert mqtt.edge.scheduler.timer_count == 0
    assert not mqtt.server.sys._watchers
    mqtt.connect("c")
    assert mqtt.edge.scheduler.timer_count == 1


@pytest.mark.parametrize(
    "topic",
    [
        *("$SYS", "$SYS/x", "$SYS/broker/uptime", "$SYS/broker/connection/b"),
        *("$SYS/broker/connection/b/c/state", "$SYS/broker/connection/b/state/x"),
    ],
)
def test_nobody_publishes_there(topic: str) -> None:
    mqtt = MqttEdge()
    watcher, client, old = mqtt.connect("w"), mqtt.connect("c"), mqtt.connect("o", MQTT_3_1_1)
    watcher.subscribe("$SYS", "$SYS/x", options=2)
    client.publish(topic, b"", 0)
    client.publish(topic, b"", 1, retain=True)
    client.publish(topic, b"", 2)
    refused = ReasonCode.NOT_AUTHORIZED
    assert client.acks() == [(PacketType.PUBACK, 1, refused), (PacketType.PUBREC, 2, refused)]
    old.publish(topic, b"", 1)
    assert old.acks() == [(PacketType.PUBACK, 1, ReasonCode.SUCCESS)]
    amqp = mqtt.edge.connect()
    amqp.publish(b"forged", exchange="amq.topic", queue=topic.replace("/", "."))
    assert watcher.packets() == []
    assert mqtt.edge.vhost.retained.count == 0


def test_other_topics_that_begin_with_a_dollar_are_anybodys() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("$SYSTEM/x", options=0)
    client.publish("$SYSTEM/x", b"mine")
    assert client.messages() == [("$SYSTEM/x", b"mine", 0)]


def test_a_will_below_it_is_refused() -> None:
    client = MqttEdge().accept(MQTT_5)
    will = Will(b"$SYS/broker/uptime", b"for ever")
    client.send(Connect(MQTT_5, "c", user="guest", password=b"guest", will=will))
    assert client.expect(Connack).code is ReasonCode.NOT_AUTHORIZED


BRIDGE_STATE = "$SYS/broker/connection/b/state"


def test_a_bridge_publishes_its_state_below_it() -> None:
    mqtt = MqttEdge()
    bridge = mqtt.accept(MQTT_3_1_1)
    will = Will(BRIDGE_STATE.encode(), b"0", 1, retain=True)
    bridge.send(Connect(MQTT_3_1_1, "b", user="guest", password=b"guest", will=will))
    assert bridge.expect(Connack).code is ReasonCode.SUCCESS
    early = mqtt.connect("early")
    early.subscribe(BRIDGE_STATE, options=1)
    bridge.publish(BRIDGE_STATE, b"1", 1, retain=True)
    assert early.messages() == [(BRIDGE_STATE, b"1", 1)]
    late, all_topics = mqtt.connect("late"), mqtt.connect("all")
    late.subscribe("$SYS/broker/connection/#", options=1)
    (run,) = late.packets()
    assert isinstance(run, Publishes)
    assert (run.topic, run.payloads, run.retain) == (BRIDGE_STATE.encode(), [b"1"], True)
    all_topics.subscribe("#", options=1)
    bridge.lose()
    assert early.messages() == late.messages() == [(BRIDGE_STATE, b"0", 1)]
    assert all_topics.messages() == []


def test_the_state_of_a_bridge_stands_beside_all_figures() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.publish(BRIDGE_STATE, b"1", 1, retain=True)
    client.acks()
    client.subscribe("$SYS/#", options=0)
    found = figures(client)
    assert (found["connection/b/state"], found["clients/connected"]) == ("1", "1")
    mqtt.edge.advance(10)
    assert set(figures(client)) >= {"uptime"}


def test_who_is_no_monitor_may_read_states_of_bridges() -> None:
    mqtt = MqttEdge()
    downgrade(mqtt)
    client = mqtt.connect("c")
    filters = "$SYS/broker/connection/+/state", BRIDGE_STATE, "$SYS/broker/connection/#"
    success, refused = ReasonCode.SUCCESS, ReasonCode.NOT_AUTHORIZED
    assert client.subscribe(*filters, options=0) == [success, success, refused]
    client.publish(BRIDGE_STATE, b"1")
    assert client.messages() == [(BRIDGE_STATE, b"1", 0)]


def test_who_is_no_monitor_may_not_read_it() -> None:
    mqtt = MqttEdge()
    downgrade(mqtt)
    client = mqtt.connect("c")
    codes = client.subscribe("$SYS/#", "$SYSTEM/#", "#", options=0)
    assert codes == [ReasonCode.NOT_AUTHORIZED, ReasonCode.SUCCESS, ReasonCode.SUCCESS]
    downgrade(mqtt, "monitoring")
    assert client.subscribe("$SYS/#", options=0) == [ReasonCode.SUCCESS]


def test_a_topic_permission_is_enough() -> None:
    mqtt = MqttEdge()
    downgrade(mqtt)
    permission = TopicPermission(write="", read=r"^\$SYS\.broker\.clients\.")
    mqtt.edge.editor.put_topic_permission("guest", "/", "amq.topic", permission)
    client = mqtt.connect("c")
    codes = client.subscribe("$SYS/#", "$SYS/broker/clients/+", options=0)
    assert codes == [ReasonCode.NOT_AUTHORIZED, ReasonCode.SUCCESS]
    assert set(figures(client)) >= {"clients/connected", "clients/total"}


def test_who_is_a_monitor_no_longer_is_notified_no_more() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("$SYS/broker/uptime", options=0)
    client.packets()
    downgrade(mqtt)
    mqtt.edge.advance(10)
    assert client.packets() == [Disconnect(ReasonCode.NOT_AUTHORIZED)]
    again = mqtt.accept(MQTT_5)
    again.send(Connect(MQTT_5, "c", clean_start=False, user="guest", password=b"guest"))
    assert again.expect(Connack).code is ReasonCode.NOT_AUTHORIZED


def test_a_session_that_lasts_goes_on_to_watch() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("$SYS/broker/uptime", options=0)
    client.lose()
    mqtt.edge.advance(20)
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.connack.session_present
    mqtt.edge.advance(10)
    assert set(figures(client)) == {"uptime"}


def test_other_virtual_hosts_see_the_same() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.vhost("other")
    mqtt.edge.editor.put_permission("guest", "other", Permission(".*", ".*", ".*"))
    mqtt.connect("c")
    client = mqtt.accept(MQTT_5)
    client.send(Connect(MQTT_5, "c", user="other:guest", password=b"guest"))
    client.expect(Connack)
    client.subscribe("$SYS/broker/clients/connected", options=0)
    assert figures(client) == {"clients/connected": "2"}


def test_who_did_not_read_is_sent_all_figures_once_he_does() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("$SYS/broker/clients/connected", options=0)
    client.packets()
    client.connection.pause_writing()
    other = mqtt.connect("d")
    mqtt.edge.advance(10)
    client.connection.resume_writing()
    assert client.packets() == []
    mqtt.edge.advance(10)
    assert figures(client) == {"clients/connected": "2"}
    mqtt.edge.advance(10)
    assert client.packets() == []
    other.lose()
    mqtt.edge.advance(10)
    assert figures(client) == {"clients/connected": "1"}


def test_who_leaves_in_the_turn_of_the_figures_is_sent_none() -> None:
    mqtt = MqttEdge()
    client, other = mqtt.connect("c"), mqtt.connect("d")
    client.subscribe("$SYS/broker/uptime", options=0)
    client.packets()
    mqtt.server.sys._tick()
    client.transport.receive(encode(Disconnect(), MQTT_5))
    mqtt.edge.run()
    assert client.packets() == []
    assert not other.transport.is_lost


def test_loads_go_on_while_nobody_watches() -> None:
    mqtt = MqttEdge(MqttConfig(sys_interval_s=60))
    client = mqtt.connect("c")
    for _ in range(100):
        client.publish("nobody")
    mqtt.edge.advance(120)
    client.subscribe("$SYS/broker/load/+/received/1min", options=0)
    found = figures(client)
    assert found["load/publish/received/1min"] == "23.25"
    assert 0 < float(found["load/bytes/received/1min"]) < mqtt.server.sys.read_bytes
