"""Messages on their way to an MQTT client: QoS, identifiers, windows, and what comes again."""

from unittest.mock import Mock, patch

import pytest

from fluffle.broker.base.message import KEY_BYTES, REMEMBERED_BYTES_MAX, Origin, with_key
from fluffle.broker.base.traffic import DISABLED
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.protocols.mqtt import publish_runs
from fluffle.broker.protocols.mqtt.annotations import Annotations, pack, unpack
from fluffle.broker.protocols.mqtt.publish_runs import (
    FORMS_MAX,
    LAST_RUN_BYTES_MAX,
    VARIANTS_MAX,
    LastRun,
)
from fluffle.broker.protocols.mqtt.server import TRAFFIC_LABELS
from fluffle.broker.protocols.mqtt.session_state import (
    MATCHES_MAX,
    NO_LOCAL,
    RETAIN_AS_PUBLISHED,
)
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.ready_list import ReadyList
from fluffle.broker.vhosts.vhost import set_tracer
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.hot import build_publishes
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Publish,
    Suback,
    Subscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import (
    Properties,
    PropertyId,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.mqtt.reader import Acks, Publishes
from fluffle.protocol.properties import build_content
from tests.support.mqtt_edge import MqttClient, MqttEdge


def runs(client: MqttClient) -> list[Publishes]:
    """Take everything, which must be messages."""
    came = client.packets()
    assert all(isinstance(each, Publishes) for each in came), came
    return [each for each in came if isinstance(each, Publishes)]


def ids(client: MqttClient) -> list[int]:
    return [packet_id for run in runs(client) for packet_id in run.packet_ids]


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_the_lower_qos_is_delivered(published: int, granted: int) -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=granted)
    publisher.publish("a", b"x", published)
    assert client.messages() == [("a", b"x", min(published, granted))]


def test_what_many_are_sent_is_made_once() -> None:
    mqtt = MqttEdge()
    clients = [mqtt.connect(f"c{number}", MQTT_3_1_1) for number in range(20)]
    for client in clients:
        client.subscribe("a", options=0)
    publisher = mqtt.connect("p")
    with patch.object(publish_runs, "build_publishes", wraps=build_publishes) as build:
        publisher.send(*(Publish(b"a", b"%d" % number) for number in range(5)))
    assert build.call_count == 1
    for client in clients:
        assert client.messages() == [("a", b"%d" % number, 0) for number in range(5)]


def test_each_of_many_is_sent_what_its_subscription_and_its_version_say() -> None:
    mqtt = MqttEdge()
    plain, old, keeper = mqtt.connect("c"), mqtt.connect("d", MQTT_3_1_1), mqtt.connect("e")
    plain.subscribe("a", options=0, identifier=7)
    old.subscribe("a", options=0)
    keeper.subscribe("#", options=RETAIN_AS_PUBLISHED, identifier=8)
    sure = mqtt.connect("f")
    sure.subscribe("a", options=1)
    publisher = mqtt.connect("p")
    for _ in range(2):
        publisher.send(Publish(b"a", b"x", 1, retain=True, packet_id=1, properties=b"\x01\x01"))
        said = []
        for client in (plain, old, keeper, sure):
            (run,) = runs(client)
            found = decode_properties(run.properties)
            said.append((run.qos, run.retain, found.subscription_ids, run.payloads))
        assert said == [
            (0, False, [7], [b"x"]),
            (0, False, [], [b"x"]),
            (0, True, [8], [b"x"]),
            (1, False, [], [b"x"]),
        ]


def test_nothing_is_kept_of_a_run_that_is_long() -> None:
    last, content = LastRun(), build_content(b"\x00\x00", b"x" * (LAST_RUN_BYTES_MAX // 2))
    origin = Origin("", "a")
    first = last.split([origin], [content])
    assert last.split([origin], [content]) is first
    assert last.split([origin] * 2, [content] * 2) is not first
    assert last.split([origin], [content]) is first
    assert last.split([Origin("", "b")], [content]) is not first


def test_messages_that_differ_in_their_keys_alone_are_sent_together() -> None:
    last, content = LastRun(), build_content(b"\x00\x00", b"x")
    annotations = [pack(Annotations(qos, retain=False, client=b"\0c")) for qos in (2, 2, 1)]
    keyed = [
        Origin("", "a", annotations=with_key(each, bytes([number]) * KEY_BYTES))
        for number, each in enumerate(annotations)
    ]
    groups = last.split([*keyed, Origin("", "a")], [content] * 4)
    assert [group.indices for group in groups] == [range(2), range(2, 3), range(3, 4)]
    assert [unpack(group.origin.annotations) for group in groups[:2]] == [
        *map(unpack, annotations[1:])
    ]
    (again,) = last.split([keyed[1]], [content])
    assert again.origin is groups[0].origin
    long = with_key(annotations[0] + bytes(REMEMBERED_BYTES_MAX), bytes(KEY_BYTES))
    (alone,) = last.split([Origin("", "a", annotations=long)], [content])
    assert alone.origin.annotations == long


def test_little_is_kept_for_clients_that_each_have_an_identifier_of_their_own() -> None:
    mqtt = MqttEdge()
    clients = [mqtt.connect(f"c{number}") for number in range(3 * VARIANTS_MAX)]
    for number, client in enumerate(clients, 1):
        client.subscribe("a", options=0, identifier=number)
    mqtt.connect("p").publish("a", b"x")
    for number, client in enumerate(clients, 1):
        (run,) = runs(client)
        assert decode_properties(run.properties).subscription_ids == [number]
    (group,) = mqtt.server.last_run._groups
    assert len(group.encoded) <= VARIANTS_MAX


def acknowledge_all(client: MqttClient) -> list[bytes]:
    """Take messages of QoS 1, and what comes once they are acknowledged; what was in them."""
    payloads: list[bytes] = []
    while came := runs(client):
        payloads += [payload for run in came for payload in run.payloads]
        client.answer(PacketType.PUBACK, *(each for run in came for each in run.packet_ids))
    return payloads


@pytest.mark.parametrize("kind", ["lower QoS", "unsubscribed", "overlapping"])
def test_what_waits_is_sent_though_its_subscription_has_changed(kind: str) -> None:
    mqtt = MqttEdge(MqttConfig(prefetch=2))
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    if kind == "overlapping":
        client.subscribe("a/#", options=0)
    client.subscribe("a/b", options=1)
    payloads = [b"%d" % number for number in range(6)]
    for payload in payloads:
        publisher.publish("a/b", payload, 1)
    first = client.messages()
    if kind == "lower QoS":
        client.subscribe("a/b", options=0)
    else:
        client.unsubscribe("a/b")
    client.answer(PacketType.PUBACK, 1, 2)
    assert [payload for _topic, payload, _qos in first] + acknowledge_all(client) == payloads


@pytest.mark.parametrize("before", [0, 1])
def test_a_message_comes_once_after_its_subscription_has_another_qos(before: int) -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    for number, qos in enumerate((before, 1 - before)):
        client.subscribe("a", options=qos)
        publisher.publish("a", b"%d" % number, 1)
        assert client.messages() == [("a", b"%d" % number, qos)]


def test_what_waits_for_qos_0_is_sent_though_its_subscription_has_qos_1_by_then() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a/b", options=0)
    client.connection.pause_writing()
    for payload in (b"0", b"1"):
        publisher.publish("a/b", payload, 1)
    client.send(Subscribe(9, [("a/b", 1)]))
    publisher.publish("a/b", b"2", 1)
    client.connection.resume_writing()
    mqtt.edge.run()
    client.expect(Suback)
    assert client.messages() == [("a/b", b"0", 0), ("a/b", b"1", 0), ("a/b", b"2", 1)]


def test_what_waits_for_qos_0_comes_once_beside_a_filter_of_qos_1() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a/#", options=0)
    client.subscribe("a/b", options=1)
    client.connection.pause_writing()
    publisher.publish("a/b", b"0", 1)
    client.connection.resume_writing()
    mqtt.edge.run()
    assert client.messages() == [("a/b", b"0", 1)]


def test_no_more_is_sent_than_the_window_of_the_client_has_room_for() -> None:
    mqtt = MqttEdge(MqttConfig(prefetch=3))
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=2)
    for qos in (1, 2, 1, 2, 1):
        publisher.publish("a", b"x", qos)
    assert ids(client) == [1, 2, 3]
    client.answer(PacketType.PUBACK, 1)
    assert ids(client) == [4]
    client.answer(PacketType.PUBREC, 2)
    assert client.acks() == [(PacketType.PUBREL, 2, ReasonCode.SUCCESS)]
    client.answer(PacketType.PUBCOMP, 2)
    assert ids(client) == [5]


def test_what_was_not_acknowledged_comes_again_with_its_identifier() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.subscribe("a", options=2)
    publisher = mqtt.connect("p")
    for number, qos in enumerate((1, 2, 1, 2)):
        publisher.publish("a", b"%d" % number, qos)
    assert ids(client) == [1, 2, 3, 4]
    client.answer(PacketType.PUBACK, 1)
    client.answer(PacketType.PUBREC, 2)
    client.lose()
    publisher.publish("a", b"new", 1)
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    came = client.packets()
    assert isinstance(came[0], Acks)
    assert (came[0].kind, [*came[0].packet_ids]) == (PacketType.PUBREL, [2])
    messages = [each for each in came if isinstance(each, Publishes)]
    assert [(run.payloads, [*run.packet_ids], run.dup) for run in messages] == [
        ([b"2"], [3], True),
        ([b"3"], [4], True),
        ([b"new"], [5], False),
    ]
    client.answer(PacketType.PUBCOMP, 2)
    client.answer(PacketType.PUBACK, 3, 5)
    client.answer(PacketType.PUBREC, 4)
    client.answer(PacketType.PUBCOMP, 4)
    client.packets()
    assert mqtt.edge.vhost.queues["mqtt-subscription-cqos1"].in_flight == 0


def connect_with(
    mqtt: MqttEdge, receive_max: int, *, expiry_s: int = 0, packet_bytes_max: int = 0
) -> MqttClient:
    """A client that takes so many messages of QoS 1 and 2 at once, and packets of that size."""
    client = mqtt.accept()
    values: dict[PropertyId, int | str | bytes] = {PropertyId.RECEIVE_MAXIMUM: receive_max}
    if packet_bytes_max:
        values[PropertyId.MAXIMUM_PACKET_SIZE] = packet_bytes_max
    if expiry_s:
        values[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
    client.send(Connect(MQTT_5, "c", clean_start=False, properties=Properties(values)))
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    return client


def test_retained_messages_take_places_of_the_window_too() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    for number in range(5):
        publisher.publish(f"a/{number}", b"kept", 1 + number % 2, retain=True)
    client = connect_with(mqtt, 3)
    client.subscribe("a/+", options=2)
    for _ in range(5):
        publisher.publish("a/live", b"live", 1)
    came: list[bytes] = []
    while found := runs(client):
        sent = [(run.qos, each) for run in found for each in run.packet_ids]
        assert len(sent) <= 3
        came += [payload for run in found for payload in run.payloads]
        for qos, packet_id in sent:
            if qos == 1:
                client.answer(PacketType.PUBACK, packet_id)
                continue
            client.answer(PacketType.PUBREC, packet_id)
        released = [each for qos, each in sent if qos == 2]
        more = client.packets()
        assert all(isinstance(each, Acks | Publishes) for each in more)
        client.answer(PacketType.PUBCOMP, *released)
        client._came = [each for each in more if isinstance(each, Publishes)]
    assert sorted(came) == [b"kept"] * 5 + [b"live"] * 5


def test_a_retained_message_that_is_refused_makes_room_for_the_next() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    for number in range(3):
        publisher.publish(f"a/{number}", b"kept", 1, retain=True)
    client = connect_with(mqtt, 1)
    client.subscribe("a/+", options=1)
    for _ in range(3):
        (packet_id,) = ids(client)
        client.send(Ack(PacketType.PUBACK, packet_id, ReasonCode.PAYLOAD_FORMAT_INVALID))
    assert client.packets() == []


def test_retained_messages_that_come_again_take_places_of_the_window_too() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    for number in range(7):
        publisher.publish(f"a/{number}", b"kept", 1, retain=True)
    client = connect_with(mqtt, 100, expiry_s=60)
    client.subscribe("a/+", options=1)
    sent = ids(client)
    client.lose()
    publisher.publish("a/live", b"live", 1)
    client = connect_with(mqtt, 2, expiry_s=60)
    came: list[int] = []
    while found := runs(client):
        some = [packet_id for run in found for packet_id in run.packet_ids]
        assert len(some) <= 2
        assert all(run.dup is (run.payloads == [b"kept"] * len(run.payloads)) for run in found)
        came += some
        client.answer(PacketType.PUBACK, *some)
    assert len(sent) == 7
    assert came[:7] == sent
    assert len(came) == 8


def test_retained_messages_that_come_again_too_large_are_dropped() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    for qos in (1, 2):
        publisher.publish(f"a/{qos}", b"x" * 1000, qos, retain=True)
        publisher.publish(f"a/small/{qos}", b"small", qos, retain=True)
    client = connect_with(mqtt, 100, expiry_s=60)
    client.subscribe("a/#", options=2)
    large = {run.qos: run.packet_ids[0] for run in runs(client) if run.payloads[0] != b"small"}
    assert set(large) == {1, 2}
    client.lose()
    client = connect_with(mqtt, 100, expiry_s=60, packet_bytes_max=100)
    came = client.packets()
    assert [run.payloads for run in came if isinstance(run, Publishes)] == [[b"small"]] * 2
    (release,) = [each for each in came if isinstance(each, Acks)]
    assert (release.kind, list(release.packet_ids)) == (PacketType.PUBREL, [large[2]])
    client.answer(PacketType.PUBCOMP, large[2])
    state = mqtt.server.states.find(("/", "c"))
    assert state is not None
    assert len(state.direct) == 2
    assert state.packet_ids.used == set(state.direct)


def test_what_is_long_is_not_remembered() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("#", options=1)
    properties = encode_properties(Properties(user=[("k", "v" * 1000)]))
    publisher.send(Publish(b"a", b"x", properties=properties))
    publisher.publish("t" * 1000, b"x")
    publisher.publish("short", b"x")
    assert len(client.messages()) == 3
    channel = client.connection.channel
    assert channel is not None
    (writer,) = channel.writers.values()
    assert {origin.routing_key for origin, _ in writer._forms} == {"short"}
    assert {topic for topic, _ in channel.state._matches} == {"a", "short"}


def test_an_answer_to_what_was_sent_over_an_earlier_connection_frees_nothing() -> None:
    mqtt = MqttEdge()
    client = connect_with(mqtt, 9, expiry_s=60)
    client.subscribe("a", options=1)
    publisher = mqtt.connect("p")
    publisher.publish("a", b"1", 1)
    publisher.publish("a", b"2", 1)
    assert ids(client) == [1, 2]
    client.lose()
    client = connect_with(mqtt, 1, expiry_s=60)
    assert ids(client) == [1]
    client.answer(PacketType.PUBACK, 2)
    state = mqtt.server.states.find(("/", "c"))
    assert state is not None
    assert state.packet_ids.used == {1, 2}
    client.answer(PacketType.PUBACK, 1)
    assert ids(client) == [2]


def test_an_answer_that_is_wrong_settles_what_came_before_it() -> None:
    mqtt = MqttEdge()
    client = connect_with(mqtt, 9, expiry_s=60)
    client.subscribe("a", options=2)
    publisher = mqtt.connect("p")
    publisher.publish("a", b"1", 2)
    publisher.publish("a", b"2", 1)
    assert ids(client) == [1, 2]
    client.answer(PacketType.PUBREC, 1, 2)
    assert client.packets()[-1] == Disconnect(ReasonCode.PROTOCOL_ERROR)
    client = connect_with(mqtt, 9, expiry_s=60)
    came = client.packets()
    assert [each.payloads for each in came if isinstance(each, Publishes)] == [[b"2"]]


@pytest.mark.parametrize(
    ("qos", "answer"),
    [(1, PacketType.PUBREC), (2, PacketType.PUBACK), (2, PacketType.PUBCOMP)],
)
def test_an_answer_that_belongs_to_the_other_qos_ends_the_connection(
    qos: int, answer: PacketType
) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("a", options=2)
    mqtt.connect("p").publish("a", b"x", qos)
    client.answer(answer, *ids(client))
    assert client.packets() == [Disconnect(ReasonCode.PROTOCOL_ERROR)]


def test_answers_to_nothing_are_passed_over() -> None:
    client = MqttEdge().connect("c")
    client.answer(PacketType.PUBACK, 9)
    client.answer(PacketType.PUBCOMP, 9)
    assert client.packets() == []
    client.answer(PacketType.PUBREC, 9)
    assert client.packets() == [Ack(PacketType.PUBREL, 9, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)]


def test_who_knows_nothing_of_a_message_that_is_released_is_done_with_it() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=2)
    publisher.publish("a", b"x", 2)
    (run,) = runs(client)
    (packet_id,) = run.packet_ids
    client.answer(PacketType.PUBREC, packet_id)
    assert client.acks() == [(PacketType.PUBREL, packet_id, ReasonCode.SUCCESS)]
    assert client.connection.channel is not None
    state = client.connection.channel.state
    assert state.packet_ids.used == {packet_id}
    client.send(Ack(PacketType.PUBCOMP, packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND))
    assert client.packets() == []
    assert (state.packet_ids.used, state.released) == (set(), {})


def test_what_is_remembered_of_messages_has_a_bound() -> None:
    """Topics without number, each once, and each with a property of its own."""
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a/+", options=1)
    for first in range(0, 2 * FORMS_MAX, 64):
        numbers = [f"{number}" for number in range(first, first + 64)]
        publisher.send(
            *(
                Publish(f"a/{each}".encode(), b"", 0, properties=encode_properties(user(each)))
                for each in numbers
            )
        )
        assert [run.topic.decode() for run in runs(client)] == [f"a/{each}" for each in numbers]
        assert client.connection.channel is not None
        state, last_run = client.connection.channel.state, mqtt.server.last_run
        assert len(state._matches) <= MATCHES_MAX
        assert len(last_run._variants) <= FORMS_MAX
        for writer in client.connection.channel.writers.values():
            assert len(writer._forms) <= FORMS_MAX


def user(name: str) -> Properties:
    return Properties(user=[("name", name)])


def test_a_message_that_is_refused_is_not_sent_again() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("a", options=1)
    mqtt.connect("p").publish("a", b"x", 1)
    refusal = Ack(PacketType.PUBACK, ids(client)[0], ReasonCode.PAYLOAD_FORMAT_INVALID)
    client.send(refusal)
    assert mqtt.edge.vhost.queues["mqtt-subscription-cqos1"].ready_count == 0
    assert mqtt.edge.vhost.queues["mqtt-subscription-cqos1"].in_flight == 0


def test_overlapping_filters_give_one_copy_with_all_identifiers() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("a/+", options=0, identifier=1)
    client.subscribe("a/#", options=2, identifier=2)
    client.subscribe("a/b", options=1, identifier=3)
    mqtt.connect("p").publish("a/b", b"x", 2)
    (run,) = runs(client)
    assert run.qos == 2
    assert decode_properties(run.properties).subscription_ids == [1, 2, 3]


def test_no_local_keeps_a_client_from_its_own_messages() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("a", options=1 | NO_LOCAL)
    client.publish("a", b"own")
    mqtt.connect("p").publish("a", b"other")
    assert client.messages() == [("a", b"other", 0)]


def test_a_message_that_is_too_large_for_the_client_is_left_out() -> None:
    mqtt = MqttEdge()
    client = mqtt.accept()
    properties = Properties({PropertyId.MAXIMUM_PACKET_SIZE: 100})
    client.send(Connect(MQTT_5, "c", properties=properties))
    client.expect(Connack)
    client.subscribe("a", options=1)
    publisher = mqtt.connect("p")
    publisher.publish("a", b"x" * 100, 1)
    publisher.publish("a", b"small", 1)
    assert client.messages() == [("a", b"small", 1)]
    assert mqtt.edge.vhost.queues["mqtt-subscription-cqos1"].in_flight == 1


# Past the queue


def mailbox(mqtt: MqttEdge) -> Queue:
    queue = mqtt.edge.vhost.queues["mqtt-subscription-cqos0"]
    assert isinstance(queue, Queue)
    return queue


def test_a_message_of_qos_0_needs_no_place_in_a_queue() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=0)
    with patch.object(ReadyList, "put", side_effect=AssertionError("it went into the queue")):
        publisher.publish("a", b"x", 1)
        publisher.send(*(Publish(b"a", b"%d" % number) for number in range(3)))
    assert [payload for _, payload, _ in client.messages()] == [b"x", b"0", b"1", b"2"]


def test_messages_stay_in_order_when_some_had_to_wait_in_the_queue() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=0)
    publisher.publish("a", b"0")
    client.connection.pause_writing()
    publisher.publish("a", b"1")
    publisher.publish("a", b"2")
    assert mailbox(mqtt).ready_count == 2
    # It may go on in the midst of what one client publishes.
    publisher.transport.receive(encode(Publish(b"a", b"3"), MQTT_5))
    client.connection.resume_writing()
    publisher.transport.receive(encode(Publish(b"a", b"4"), MQTT_5))
    mqtt.edge.run()
    publisher.publish("a", b"5")
    assert [payload for _, payload, _ in client.messages()] == [b"%d" % n for n in range(6)]
    assert mailbox(mqtt).ready_count == 0


def test_what_a_client_does_not_read_is_dropped_beyond_its_mailbox() -> None:
    mqtt = MqttEdge(MqttConfig(mailbox_soft_limit=3))
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=0)
    client.connection.pause_writing()
    for number in range(10):
        publisher.publish("a", b"%d" % number)
    assert mailbox(mqtt).ready_count == 4
    died = mqtt.edge.services.runtime.traffic.deaths.died
    assert died == {(QueueType.MQTT_QOS0, DISABLED, DeathReason.MAXLEN): 6}
    client.connection.resume_writing()
    mqtt.edge.run()
    publisher.publish("a", b"new")
    heard = [payload for _, payload, _ in client.messages()]
    assert heard == [b"0", b"1", b"2", b"3", b"new"]


def test_messages_that_go_past_a_queue_are_counted_and_traced() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    channel = client.connection.channel
    assert channel is not None
    channel.observer = observer = Mock()
    client.subscribe("a", options=0)
    counts = mqtt.edge.services.runtime.traffic.of(TRAFFIC_LABELS[5]).from_qos0_queues
    publisher.send(Publish(b"a", b"x"), Publish(b"a", b"y"))
    assert counts.consumed_auto_ack == 2
    (seen,) = observer.delivered.call_args_list
    delivery_batch = seen.args[0]
    assert (len(delivery_batch.contents), delivery_batch.holder.queue) == (2, mailbox(mqtt))
    tracer = Mock()
    set_tracer(mqtt.edge.vhost, "test", tracer)
    publisher.publish("a", b"z")
    assert tracer.delivered.call_count == 1
    assert counts.consumed_auto_ack == 3
    assert [payload for _, payload, _ in client.messages()] == [b"x", b"y", b"z"]


def test_a_bug_in_what_one_client_is_sent_ends_its_connection_alone() -> None:
    mqtt = MqttEdge()
    client, other, publisher = mqtt.connect("c"), mqtt.connect("d"), mqtt.connect("p")
    channel = client.connection.channel
    assert channel is not None
    channel.observer = Mock(delivered=Mock(side_effect=ValueError("a bug")))
    for each in (client, other):
        each.subscribe("a", options=0)
    publisher.publish("a", b"x", 1)
    assert publisher.acks() == [(PacketType.PUBACK, 1, ReasonCode.SUCCESS)]
    assert other.messages() == [("a", b"x", 0)]
    assert client.packets()[-1:] == [Disconnect(ReasonCode.UNSPECIFIED_ERROR)]
