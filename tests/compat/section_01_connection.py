"""Section 1, the life of a connection: from the protocol header to the last close."""

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    Queue,
    field_table,
    make,
    octets,
    pamqp_table,
)
from fluffle.protocol.spec import PROTOCOL_HEADER
from fluffle.protocol.wire import encode_table, to_table
from tests.compat.scenario import Peer, scenario
from tests.support.client import Client, raw_frame, show, start_ok

MUTE = ("publisher_confirms",)
"""Capabilities of a client that is told nothing when its login fails."""


def greeted(peer: Peer, name: str = "client") -> Client:
    """A client that has heard connection.start; nothing is written down yet."""
    client = peer.connect(name)
    client.send_bytes(PROTOCOL_HEADER)
    client.next()
    client.transcript.clear()
    return client


def logged_in(peer: Peer, name: str = "client") -> Client:
    """A client that has heard connection.tune; nothing is written down yet."""
    client = greeted(peer, name)
    client.send(0, start_ok())
    client.expect("Connection.Tune")
    client.transcript.clear()
    return client


def tuned(peer: Peer, name: str = "client") -> Client:
    """A client that has agreed to the limits and may open its virtual host."""
    client = logged_in(peer, name)
    client.send(0, tune_ok())
    return client


def tune_ok(channel_max: int = 2047, frame_max: int = 131_072, heartbeat: int = 0) -> Method:
    return make(
        Connection.TuneOk, channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat
    )


def sasl(mechanism: str, response: bytes, *, can_hear_refusal: bool = True) -> Method:
    """connection.start-ok with any response."""
    capabilities = {"authentication_failure_close": can_hear_refusal}
    return make(
        Connection.StartOk,
        client_properties=pamqp_table(to_table({"capabilities": capabilities})),
        mechanism=mechanism,
        response=response,  # type: ignore[arg-type]
    )


def amqplain(**fields: str | int) -> bytes:
    """The response of AMQPLAIN: a table without its length."""
    return encode_table(to_table(fields))[4:]


OPEN = make(Connection.Open, virtual_host="/")
CLOSE = make(Connection.Close, reply_code=200, reply_text="bye", class_id=0, method_id=0)

# 1.1


@scenario("1.1")
def protocol_headers_that_are_served(peer: Peer) -> None:
    headers = {"0-9-1": PROTOCOL_HEADER, "0-9": b"AMQP\x01\x01\x00\x09"}
    for name, header in headers.items():
        client = peer.connect(name)
        client.send_bytes(header)
        client.next()
        client.transcript.clear()
        client.send(0, start_ok(), tune_ok(), OPEN)
        client.expect("Connection.OpenOk")


@scenario("1.1")
def protocol_headers_that_are_refused(peer: Peer) -> None:
    headers = {
        "0-9-2": b"AMQP\x00\x00\x09\x02",
        "0-10": b"AMQP\x01\x01\x00\x0a",
        "0-8": b"AMQP\x01\x01\x08\x00",
        "zeros": b"AMQP\x00\x00\x00\x00",
        "not AMQP": b"GET / HTTP/1.1\r\n\r\n",
        "lower case": b"amqp\x00\x00\x09\x01",
    }
    for name, header in headers.items():
        peer.connect(name).send_bytes(header)
    for client in peer.clients.values():
        client.until_closed()


@scenario("1.1")
def a_protocol_header_in_pieces(peer: Peer) -> None:
    client = peer.connect()
    for position in range(len(PROTOCOL_HEADER)):
        client.send_bytes(PROTOCOL_HEADER[position : position + 1])
    peer.note(client.next().name)
    client.transcript.clear()


@scenario("1.1")
def a_handshake_has_ten_seconds(peer: Peer) -> None:
    peer.connect("nothing")
    peer.connect("half a header").send_bytes(PROTOCOL_HEADER[:4])
    greeted(peer, "no start-ok")
    logged_in(peer, "no tune-ok")
    logged_in(peer, "no open").send(0, tune_ok())
    for client in peer.clients.values():
        client.until_closed()


# 1.2


@scenario("1.2")
def what_the_server_says_of_itself(peer: Peer) -> None:
    client = peer.connect()
    client.send_bytes(PROTOCOL_HEADER)
    start = client.next().method
    client.transcript.clear()
    assert isinstance(start, Connection.Start)
    peer.note(f"{start.version_major}-{start.version_minor}, {octets(start.locales).decode()}")
    for mechanism in sorted(octets(start.mechanisms).decode().split()):
        peer.note(mechanism)
    properties = field_table(start.server_properties)
    for name, (tag, value) in sorted(properties.items()):
        told = show(value) if name in ("capabilities", "product", "version") else ""
        peer.note(f"{name}: {tag} {told}".rstrip())


@scenario("1.2")
def a_client_that_cannot_hear_a_cancel(peer: Peer) -> None:
    client = peer.client(capabilities=())
    queue = "a_client_that_cannot_hear_a_cancel"
    client.call(client.channel(1), make(Queue.Declare, queue=queue))
    client.call(1, make(Basic.Consume, queue=queue, consumer_tag="tag"))
    client.call(1, make(Queue.Delete, queue=queue))
    client.settle(1)


# 1.3


@scenario("1.3")
def a_wrong_password_is_refused_with_a_close(peer: Peer) -> None:
    client = greeted(peer)
    client.send(0, start_ok(password="wrong"))
    client.expect("Connection.Close")


@scenario("1.3")
def logins_that_are_taken(peer: Peer) -> None:
    responses = {
        "PLAIN": ("PLAIN", b"\0guest\0guest"),
        "AMQPLAIN": ("AMQPLAIN", amqplain(LOGIN="guest", PASSWORD="guest")),
        "AMQPLAIN with more": ("AMQPLAIN", amqplain(A=1, PASSWORD="guest", LOGIN="guest", Z="z")),
    }
    for name, response in responses.items():
        client = greeted(peer, name)
        client.send(0, sasl(*response))
        client.next()


@scenario("1.3")
def logins_that_are_refused(peer: Peer) -> None:
    responses = {
        "unknown user": ("PLAIN", b"\0nobody\0guest"),
        "no user": ("PLAIN", b"\0\0guest"),
        "blank password": ("PLAIN", b"\0guest\0"),
        "user not UTF-8": ("PLAIN", b"\0gu\xffest\0guest"),
        "AMQPLAIN": ("AMQPLAIN", amqplain(LOGIN="guest", PASSWORD="wrong")),
        "AMQPLAIN with a number": ("AMQPLAIN", amqplain(LOGIN="guest", PASSWORD=1)),
        "AMQPLAIN blank password": ("AMQPLAIN", amqplain(LOGIN="guest", PASSWORD="")),
    }
    for name, response in responses.items():
        client = greeted(peer, name)
        client.send(0, sasl(*response))
        client.end()


@scenario("1.3")
def a_client_that_cannot_hear_a_refusal(peer: Peer) -> None:
    client = greeted(peer)
    client.send(0, start_ok(password="wrong", capabilities=MUTE))
    client.until_closed()


@scenario("1.3")
def responses_that_no_mechanism_reads(peer: Peer) -> None:
    responses = {
        "unknown mechanism": ("CRAM-MD5", b"\0guest\0guest"),
        "no mechanism": ("", b"\0guest\0guest"),
        "mechanism in lower case": ("plain", b"\0guest\0guest"),
        "PLAIN empty": ("PLAIN", b""),
        "PLAIN without NUL": ("PLAIN", b"guest"),
        "PLAIN with an identity": ("PLAIN", b"guest\0guest\0guest"),
        "PLAIN with one NUL": ("PLAIN", b"guest\0guest"),
        "PLAIN with three NULs": ("PLAIN", b"\0guest\0gue\0st"),
        "AMQPLAIN empty": ("AMQPLAIN", b""),
        "AMQPLAIN no table": ("AMQPLAIN", b"\xff\xff\xff"),
        "AMQPLAIN without PASSWORD": ("AMQPLAIN", amqplain(LOGIN="guest")),
        "AMQPLAIN with a number for a name": ("AMQPLAIN", amqplain(LOGIN=1, PASSWORD="guest")),
    }
    for name, response in responses.items():
        greeted(peer, name).send(0, sasl(*response))
    for client in peer.clients.values():
        client.end()


# 1.4


@scenario("1.4")
def the_limits_that_the_server_proposes(peer: Peer) -> None:
    client = greeted(peer)
    client.send(0, start_ok())
    client.next()


@scenario("1.4")
def limits_that_are_taken(peer: Peer) -> None:
    answers = {
        "as proposed": tune_ok(2047, 131_072, 60),
        "smallest": tune_ok(1, 8_192, 1),
        "no heartbeat": tune_ok(2047, 131_072, 0),
        "longest heartbeat": tune_ok(2047, 131_072, 65_535),
    }
    for name, answer in answers.items():
        client = logged_in(peer, name)
        client.send(0, answer, OPEN)
        client.next()


@scenario("1.4")
def limits_that_are_not_taken(peer: Peer) -> None:
    answers = {
        "frame_max 4095": tune_ok(frame_max=4_095),
        "frame_max 131073": tune_ok(frame_max=131_073),
        "frame_max 0": tune_ok(frame_max=0),
        "channel_max 2048": tune_ok(channel_max=2_048),
        "channel_max 0": tune_ok(channel_max=0),
    }
    for name, answer in answers.items():
        logged_in(peer, name).send(0, answer, OPEN)
    for client in peer.clients.values():
        client.end()


@scenario("1.4")
def the_smallest_frame_of_old(peer: Peer) -> None:
    client = logged_in(peer)
    client.send(0, tune_ok(frame_max=4_096), OPEN)
    client.next()


@scenario("1.4")
def heartbeats_keep_a_connection_and_silence_ends_it(peer: Peer) -> None:
    beating = peer.client("beating", heartbeat=1)
    silent = peer.client("silent", heartbeat=1)
    for _ in range(4):
        heartbeat = beating.frame()
        peer.note(f"frame {heartbeat.kind} on {heartbeat.channel}: {heartbeat.payload!r}")
        beating.send_bytes(raw_frame(8, 0, b""))
    silent.until_closed()
    beating.call(1, make(Channel.Open))


# 1.5


@scenario("1.5")
def an_unknown_vhost(peer: Peer) -> None:
    for name in ("nowhere", "", "//"):
        client = logged_in(peer, f"vhost {name!r}")
        client.send(0, tune_ok(), make(Connection.Open, virtual_host=name))
        client.expect("Connection.Close")


@scenario("1.5")
def an_open_with_the_arguments_of_old(peer: Peer) -> None:
    client = logged_in(peer)
    opening = make(Connection.Open, virtual_host="/", capabilities="all of them", insist=True)
    client.send(0, tune_ok(), opening)
    client.next()


@scenario("1.5")
def methods_before_their_time(peer: Peer) -> None:
    greeted(peer, "tune-ok for start-ok").send(0, tune_ok())
    greeted(peer, "open for start-ok").send(0, OPEN)
    greeted(peer, "close for start-ok").send(0, CLOSE)
    greeted(peer, "channel.open for start-ok").send(1, make(Channel.Open))
    logged_in(peer, "start-ok again").send(0, start_ok())
    logged_in(peer, "open for tune-ok").send(0, OPEN)
    tuned(peer, "start-ok for open").send(0, start_ok())
    tuned(peer, "tune-ok again").send(0, tune_ok())
    tuned(peer, "close for open").send(0, CLOSE)
    tuned(peer, "channel.open for open").send(1, make(Channel.Open))
    tuned(peer, "body for open").send_bytes(raw_frame(3, 1, b"body"))
    for client in peer.clients.values():
        client.end()


@scenario("1.5")
def methods_after_their_time(peer: Peer) -> None:
    methods = {
        "start-ok": start_ok(),
        "secure-ok": make(Connection.SecureOk, response="response"),
        "tune-ok": tune_ok(),
        "open": OPEN,
        "open-ok": make(Connection.OpenOk, known_hosts=""),
        "blocked": make(Connection.Blocked, reason="none"),
        "update-secret-ok": make(Connection.UpdateSecretOk),
    }
    for name, method in methods.items():
        client = peer.client(name)
        client.send(0, method)
        client.end()


@scenario("1.5")
def heartbeats_during_the_handshake(peer: Peer) -> None:
    client = peer.connect()
    beat = raw_frame(8, 0, b"")
    client.send_bytes(PROTOCOL_HEADER)
    client.next()
    client.transcript.clear()
    client.send_bytes(beat)
    client.send(0, start_ok())
    client.send_bytes(beat)
    client.send(0, tune_ok())
    client.send_bytes(beat)
    client.send(0, OPEN)
    client.expect("Connection.OpenOk")


# 1.7


@scenario("1.7")
def a_close_with_channels_open(peer: Peer) -> None:
    client = peer.client()
    client.channel(1)
    client.channel(2)
    client.call(0, CLOSE)


@scenario("1.7")
def exclusive_queues_are_gone_before_close_ok(peer: Peer) -> None:
    client, other = peer.client(), peer.client("other")
    queue = "exclusive_queues_are_gone_before_close_ok"
    client.call(client.channel(1), make(Queue.Declare, queue=queue, exclusive=True))
    client.call(0, CLOSE)
    other.call(other.channel(1), make(Queue.Declare, queue=queue, passive=True))


@scenario("1.7")
def what_follows_a_close_is_not_heard(peer: Peer) -> None:
    client = peer.client()
    client.send(0, CLOSE)
    client.send(1, make(Channel.Open))
    client.expect("Connection.CloseOk")


@scenario("1.7")
def only_a_close_ok_counts_after_a_close_of_the_server(peer: Peer) -> None:
    client = peer.client()
    client.send(7, make(Channel.Flow, active=True))
    client.expect("Connection.Close")
    client.send(7, make(Channel.Open), make(Queue.Declare, queue="late"))
    client.send(0, OPEN)
    client.send_bytes(raw_frame(8, 0, b""))
    client.send(0, make(Connection.CloseOk))
    client.until_closed()


@scenario("1.7")
def both_sides_close(peer: Peer) -> None:
    client = peer.client()
    client.send(7, make(Channel.Flow, active=True))
    client.expect("Connection.Close")
    client.send(0, CLOSE)
    client.next()
    client.send(0, make(Connection.CloseOk))
    client.until_closed()


@scenario("1.7")
def a_close_ok_that_nobody_waits_for(peer: Peer) -> None:
    client = peer.client()
    client.send(0, make(Connection.CloseOk))
    client.end()


@scenario("1.7")
def a_new_secret(peer: Peer) -> None:
    client = peer.client()
    secret = make(Connection.UpdateSecret, new_secret=b"guest", reason="it was time")  # type: ignore[arg-type]
    client.send(0, secret)
    client.next()
    client.call(1, make(Channel.Open))


@scenario("1.7")
def what_stands_behind_a_close_is_dropped(peer: Peer) -> None:
    """The socket stays for so long as a heartbeat, for the client to close it."""
    client = peer.client(heartbeat=2)
    client.channel(1)
    client.send(0, CLOSE)
    for _ in range(1_000):
        client.publish(1, "", "nobody's", bytes(1_000))
    client.expect("Connection.CloseOk")
    for _ in range(1_000):
        client.publish(1, "", "nobody's", bytes(1_000))
    client.until_closed()
