"""Section 1: the life of a connection."""

from fluffle.protocol.methods import Channel, Connection, make
from tests.compat.scenario import Peer, scenario
from tests.support.client import start_ok


@scenario("1.3")
def a_wrong_password_is_refused_with_a_close(peer: Peer) -> None:
    client = peer.connect()
    client.send_bytes(b"AMQP\x00\x00\x09\x01")
    client.next()
    client.transcript.clear()
    client.send(0, start_ok(password="wrong"))
    client.expect("Connection.Close")


@scenario("1.6")
def a_method_on_a_channel_that_is_not_open(peer: Peer) -> None:
    client = peer.client()
    client.send(7, make(Channel.Flow, active=True))
    client.expect("Connection.Close")


@scenario("1.5")
def an_unknown_vhost(peer: Peer) -> None:
    client = peer.connect()
    client.send_bytes(b"AMQP\x00\x00\x09\x01")
    client.next()
    client.send(0, start_ok())
    client.expect("Connection.Tune")
    client.transcript.clear()
    client.send(
        0,
        make(Connection.TuneOk, channel_max=2047, frame_max=131_072, heartbeat=0),
        make(Connection.Open, virtual_host="nowhere"),
    )
    client.expect("Connection.Close")
