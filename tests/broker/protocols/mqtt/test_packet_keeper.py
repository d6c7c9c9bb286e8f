"""Packets of QoS 2 of sessions that last are noted before they are answered."""

from unittest.mock import patch

from fluffle.broker.base.client_session import INCOMING, OUTGOING, ClientSession
from fluffle.broker.base.errors import PreconditionFailed, Unreachable
from fluffle.broker.base.queue_names import subscription_queue
from fluffle.broker.protocols.mqtt import packet_keeper
from fluffle.broker.protocols.mqtt.incoming_publishes import IncomingPublishes
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import Deferred, DeliveryBatch, Outcome, SettlementStatus
from fluffle.broker.vhosts.client_sessions import PacketChanges
from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Disconnect, Publish, Suback, Subscribe
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_nodes import MqttNodes


def numbers(mqtt: MqttEdge, direction: str) -> list[int]:
    return mqtt.edge.vhost.client_sessions.numbers("c", direction)


def lasting(mqtt: MqttEdge) -> MqttClient:
    return mqtt.connect("c", clean_start=False, expiry_s=60)


def test_a_packet_from_the_client_is_noted_until_it_is_released() -> None:
    mqtt = MqttEdge()
    client = lasting(mqtt)
    client.send(*(Publish(b"a", b"x", 2, packet_id=packet_id) for packet_id in (4, 2)))
    assert numbers(mqtt, INCOMING) == [4, 2]
    assert [ack[:2] for ack in client.acks()] == [(PacketType.PUBREC, 4), (PacketType.PUBREC, 2)]
    client.answer(PacketType.PUBREL, 4)
    assert numbers(mqtt, INCOMING) == [2]


def test_a_packet_to_the_client_is_noted_from_its_receipt_to_its_end() -> None:
    mqtt = MqttEdge()
    client = lasting(mqtt)
    client.subscribe("a", options=2)
    mqtt.connect("p").publish("a", b"x", 2)
    assert client.messages() == [("a", b"x", 2)]
    assert numbers(mqtt, OUTGOING) == []
    client.answer(PacketType.PUBREC, 1)
    assert numbers(mqtt, OUTGOING) == [1]
    assert client.acks() == [(PacketType.PUBREL, 1, ReasonCode.SUCCESS)]
    client.answer(PacketType.PUBCOMP, 1)
    assert numbers(mqtt, OUTGOING) == []


def test_nothing_is_noted_of_a_session_that_ends_with_its_connection() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.send(Publish(b"a", b"x", 2, packet_id=1))
    assert numbers(mqtt, INCOMING) == []
    assert len(mqtt.edge.vhost.client_sessions) == 0


def test_a_session_that_lasts_is_kept_from_its_begin_to_its_end() -> None:
    mqtt = MqttEdge()
    client = lasting(mqtt)
    sessions = mqtt.edge.vhost.client_sessions.by_client
    assert (sessions["c"].expiry_s, sessions["c"].ended_at_ms) == (60, 0)
    client.lose()
    assert sessions["c"].ended_at_ms > 0
    mqtt.edge.advance(61)
    assert sessions == {}


def test_what_fails_once_a_packet_is_noted_ends_one_connection() -> None:
    mqtt = MqttEdge()
    client, other = lasting(mqtt), mqtt.connect("d", expiry_s=60)
    failing = patch.object(IncomingPublishes, "_forgotten", side_effect=ValueError)
    with failing:
        client.answer(PacketType.PUBREL, 4)
    assert client.packets() == [Disconnect(ReasonCode.UNSPECIFIED_ERROR)]
    other.send(Publish(b"a", b"x", 2, packet_id=1))
    assert other.acks() == [(PacketType.PUBREC, 1, ReasonCode.SUCCESS)]


def publishing(nodes: MqttNodes, node: str, *client_ids: str) -> list[MqttClient]:
    """Clients of sessions that last, at a node."""
    clients = [nodes.begin(node, client_id) for client_id in client_ids]
    nodes.settle()
    for client in clients:
        assert client.expect(Connack).code is ReasonCode.SUCCESS
    return clients


def taken(nodes: MqttNodes, client_id: str) -> list[int]:
    return nodes.edge.vhost.client_sessions.numbers(client_id, INCOMING)


def test_a_change_has_all_that_was_asked_for_before_it() -> None:
    nodes = MqttNodes()
    one, other = publishing(nodes, "a", "p", "q")
    with nodes.reading():
        one.send(Publish(b"a", b"x", 2, packet_id=1), Publish(b"b", b"x", 2, packet_id=2))
        other.send(Publish(b"c", b"x", 2, packet_id=1))
    assert len(nodes.metadata) == 1
    one.send(*(Publish(b"t%d" % number, b"x", 2, packet_id=number) for number in range(3, 9)))
    other.send(Publish(b"d", b"x", 2, packet_id=2))
    assert len(nodes.metadata) == 1, "a change is under way"
    nodes.commit()
    assert (taken(nodes, "p"), taken(nodes, "q")) == ([1, 2], [1])
    assert len(nodes.metadata) == 1
    nodes.commit()
    assert (taken(nodes, "p"), taken(nodes, "q")) == ([*range(1, 9)], [1, 2])
    assert not nodes.has_work
    assert [ack[1] for ack in one.acks()] == [*range(1, 9)]
    assert [ack[1] for ack in other.acks()] == [1, 2]


def test_a_session_taken_elsewhere_keeps_no_other_waiting() -> None:
    nodes = MqttNodes()
    moving, staying = publishing(nodes, "a", "p", "q")
    come_back = nodes.begin("b", "p")
    with nodes.reading():
        moving.send(Publish(b"a", b"x", 2, packet_id=1))
        staying.send(Publish(b"b", b"x", 2, packet_id=1))
    nodes.commit()  # that of the other node, which had come first
    nodes.commit()  # both: it does not hold
    assert nodes.metadata.stale_count == 1
    assert taken(nodes, "q") == []
    nodes.settle()
    assert nodes.metadata.stale_count == 1
    assert (taken(nodes, "p"), taken(nodes, "q")) == ([], [1])
    assert [ack[1] for ack in staying.acks()] == [1]
    assert come_back.expect(Connack).code is ReasonCode.SUCCESS
    assert moving.packets()[-1] == Disconnect(ReasonCode.SESSION_TAKEN_OVER)


def begin_anew_while_receipts_wait() -> None:
    """Have a receipt wait for a change of another session, while its client begins anew."""
    nodes = MqttNodes()
    line, other, sender = publishing(nodes, "a", "s", "q", "p")
    line.send(Subscribe(1, [("t", 2)]))
    nodes.settle()
    line.packets()
    sender.send(Publish(b"t", b"one", 2, packet_id=1))
    nodes.settle()
    assert line.messages() == [("t", b"one", 2)]
    other.send(Publish(b"x", b"x", 2, packet_id=1))
    line.answer(PacketType.PUBREC, 1)
    line.lose()
    line = nodes.begin("a", "s", clean_start=True)
    nodes.settle()
    assert nodes.edge.vhost.client_sessions.numbers("s", OUTGOING) == []
    line.send(Subscribe(1, [("t", 2)]))
    nodes.settle()
    sender.send(Publish(b"t", b"two", 2, packet_id=2))
    nodes.settle()
    line.lose()  # before it has read that
    nodes.settle()
    line = nodes.begin("a", "s")
    nodes.settle()
    assert line.expect(Connack).session_present
    assert line.messages() == [("t", b"two", 2)]


def test_what_a_client_has_received_is_not_of_the_session_that_it_begins_anew() -> None:
    begin_anew_while_receipts_wait()


def test_a_change_has_so_many_packets_and_no_more() -> None:
    nodes = MqttNodes()
    clients = publishing(nodes, "a", "p", "q", "r")
    with patch.object(packet_keeper, "PACKETS_MAX", 4):
        with nodes.reading():
            for client, count in zip(clients, (2, 2, 5), strict=True):
                numbers = range(1, count + 1)
                client.send(*(Publish(b"a", b"x", 2, packet_id=each) for each in numbers))
        nodes.commit()
        assert [len(taken(nodes, client_id)) for client_id in "pqr"] == [2, 2, 0]
        nodes.commit()
        assert [len(taken(nodes, client_id)) for client_id in "pqr"] == [2, 2, 5]


def test_a_bug_in_what_one_client_has_noted_ends_that_and_keeps_no_other_waiting() -> None:
    nodes = MqttNodes()
    guilty, other = publishing(nodes, "a", "p", "q")
    with patch.object(PacketChanges, "keep_messages", side_effect=ValueError):
        guilty.send(Publish(b"a", b"x", 2, packet_id=1))
    nodes.settle()
    assert guilty.packets() == [Disconnect(ReasonCode.UNSPECIFIED_ERROR)]
    other.send(Publish(b"a", b"x", 2, packet_id=1))
    nodes.settle()
    assert other.acks() == [(PacketType.PUBREC, 1, ReasonCode.SUCCESS)]


def test_the_number_of_a_session_rises_whatever_the_clocks_say() -> None:
    requests = MqttNodes().nodes["a"].server.packet_requests
    first = requests.session_number(None)
    assert requests.session_number(None) != first
    ahead = ClientSession("guest", 60, 0, "b", b"", 1 << 62)
    assert requests.session_number(ahead) == ahead.number + 1


class LostSettlements:
    """Settlements of a session's queue whose leader is out of reach, and takes them for nothing."""

    def __init__(self, nodes: MqttNodes) -> None:
        self.nodes = nodes
        self.status = SettlementStatus()
        self.asked: list[Deferred[None]] = []
        """Questions whether all is settled."""
        self._lost: list[tuple[DeliveryBatch, int, int]] = []

    def exchange(self, client: MqttClient) -> None:
        """Have the client get a message of QoS 2, and be done with it."""
        client.send(Subscribe(1, [("t", 2)]))
        self.nodes.settle()
        client.expect(Suback)
        (sender,) = publishing(self.nodes, "a", "p")
        sender.send(Publish(b"t", b"x", 2, packet_id=1))
        self.nodes.settle()
        assert client.messages() == [("t", b"x", 2)]
        client.answer(PacketType.PUBREC, 1)
        self.nodes.settle()
        assert client.acks() == [(PacketType.PUBREL, 1, ReasonCode.SUCCESS)]
        client.answer(PacketType.PUBCOMP, 1)
        self.nodes.settle()

    def settle(
        self, batch: DeliveryBatch, start: int, stop: int, _outcome: Outcome
    ) -> SettlementStatus:
        self._lost.append((batch, start, stop))
        return self.status

    def ask(self, _queue: Queue) -> Deferred[None]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def give_back(self) -> None:
        """The leader gives the messages back to its queue."""
        queue = self.nodes.edge.vhost.queues[subscription_queue("c", 1)]
        for batch, start, stop in self._lost:
            queue.settle(batch, start, stop, Outcome.NACK_REQUEUED)
        self.nodes.settle()


def test_what_comes_again_as_its_settlement_was_lost_is_not_sent_again() -> None:
    nodes = MqttNodes()
    (client,) = publishing(nodes, "b", "c")
    lost = LostSettlements(nodes)
    with (
        patch.object(Queue, "settle", lost.settle),
        patch.object(Queue, "settling", property(lost.ask)),
    ):
        lost.exchange(client)
        lost.asked[0].fail(Unreachable("not in time"))
        assert len(lost.asked) == 2
        assert nodes.edge.vhost.client_sessions.numbers("c", OUTGOING) == [1]
        lost.status.error = PreconditionFailed("messages have come back")
        lost.asked[1].answer(None)
        nodes.settle()
    assert client.expect(Disconnect).code is ReasonCode.ADMINISTRATIVE_ACTION
    lost.give_back()
    (client,) = publishing(nodes, "b", "c")
    nodes.settle()
    assert client.messages() == []
    assert nodes.edge.vhost.client_sessions.numbers("c", OUTGOING) == []
