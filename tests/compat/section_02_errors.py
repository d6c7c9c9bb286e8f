"""Section 2, errors: what each closes, how far its harm goes, and its text."""

from collections.abc import Mapping
from typing import Any

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Exchange,
    Method,
    Queue,
    Tx,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import PlainValue, to_table
from tests.compat.scenario import Peer, scenario
from tests.support.client import Client

CLOSE_OK = make(Channel.CloseOk)


def missing(queue: str = "nobody has declared this") -> Method:
    """Closes the channel it is sent on."""
    return make(Queue.Declare, queue=queue, passive=True)


def declare(queue: str, arguments: Mapping[str, PlainValue] | None = None, **flags: bool) -> Method:
    table = pamqp_table(to_table(arguments or {}))
    return make(Queue.Declare, queue=queue, arguments=table, **flags)


def each_on_its_channel(client: Client, *methods: Method, first: int = 100) -> None:
    """Each method on a channel of its own, which it may close; the channels count from `first`."""
    for number, method in enumerate(methods, first):
        client.channel(number)
        client.send(number, method)
        client.settle(number)


def each_on_its_connection(peer: Peer, methods: Mapping[str, Method]) -> None:
    """Each method on a connection of its own, which it may close."""
    for name, method in methods.items():
        client = peer.client(name)
        client.channel(1)
        client.send(1, method)
        client.settle(1)


# How far an error goes


@scenario("2")
def an_error_of_a_channel_leaves_the_others(peer: Peer) -> None:
    client, queue = peer.client(), "an_error_of_a_channel"
    client.channel(1)
    client.channel(2)
    client.call(2, declare(queue, exclusive=True))
    client.call(2, make(Basic.Consume, queue=queue, consumer_tag="stays", no_ack=True))
    client.call(1, make(Basic.Consume, queue=queue, consumer_tag="goes", no_ack=True))
    client.call(1, missing())
    for body in (b"one", b"two"):
        client.publish(2, "", queue, body)
    client.expect("Basic.Deliver", 2)
    client.send(1, CLOSE_OK)
    client.call(1, make(Channel.Open))
    client.call(1, declare(queue, passive=True))


@scenario("2")
def an_error_of_the_connection_takes_everything(peer: Peer) -> None:
    client, other, queue = peer.client(), peer.client("other"), "an_error_of_the_connection"
    client.call(client.channel(1), declare(queue))
    client.publish(1, "", queue, b"unacked")
    client.call(1, make(Basic.Get, queue=queue))
    client.send(client.channel(2), make(Basic.Qos, prefetch_size=1))
    client.expect("Connection.Close")
    client.send(0, make(Connection.CloseOk))
    other.call(other.channel(1), declare(queue, passive=True))
    other.call(1, make(Basic.Get, queue=queue))
    other.call(1, make(Queue.Delete, queue=queue))


@scenario("2")
def an_error_returns_what_was_not_acknowledged(peer: Peer) -> None:
    client, queue = peer.client(), "an_error_returns"
    client.call(client.channel(1), declare(queue, exclusive=True))
    client.channel(2)
    for body in (b"one", b"two", b"three"):
        client.publish(1, "", queue, body)
    for _ in range(3):
        client.call(1, make(Basic.Get, queue=queue))
    client.send(1, make(Basic.Ack, delivery_tag=2), make(Basic.Ack, delivery_tag=2))
    client.expect("Channel.Close")
    client.send(1, CLOSE_OK)  # RabbitMQ keeps what was fetched by basic.get until then
    client.send(2, make(Basic.Consume, queue=queue, consumer_tag="next", no_ack=True))
    client.expect("Basic.Deliver", 2)
    client.settle(2)


@scenario("2")
def what_stands_before_an_error_is_done_and_what_stands_behind_is_not(peer: Peer) -> None:
    client = peer.client()
    client.channel(1)
    client.channel(2)
    client.call(2, declare("in front of an error", exclusive=True))
    client.send(1, make(Queue.Purge, queue="in front of an error"), missing())
    client.send(1, declare("behind an error", exclusive=True), missing(), make(Tx.Select))
    client.publish(1, "", "in front of an error", b"behind an error")
    client.expect("Channel.Close")
    client.settle(2)
    client.call(2, declare("in front of an error", passive=True))
    client.call(2, declare("behind an error", passive=True))


@scenario("2")
def what_stands_behind_an_error_of_the_connection_is_not_done(peer: Peer) -> None:
    client, other = peer.client(), peer.client("other")
    client.channel(1)
    client.send(1, make(Channel.Flow, active=False), declare("behind the end"))
    client.expect("Connection.Close")
    client.send(1, declare("behind the end"))
    client.send(0, make(Connection.CloseOk))
    other.call(other.channel(1), declare("behind the end", passive=True))


@scenario("2")
def a_method_without_answer_can_fail_too(peer: Peer) -> None:
    each_on_its_channel(
        peer.client(),
        make(Queue.Declare, queue="nobody has declared this", passive=True, nowait=True),
        make(Exchange.Declare, exchange="nowait", exchange_type="none of these", nowait=True),
        make(Exchange.Delete, exchange="amq.direct", nowait=True),
        make(Queue.Bind, queue="nobody's", exchange="amq.direct", nowait=True),
        make(Queue.Purge, queue="nobody's", nowait=True),
        make(Basic.Consume, queue="nobody's", nowait=True),
    )


@scenario("2")
def methods_that_only_a_server_sends(peer: Peer) -> None:
    sent = (
        make(Channel.OpenOk),
        make(Channel.FlowOk, active=True),
        make(Exchange.DeclareOk),
        make(Queue.DeclareOk, queue="q", message_count=0, consumer_count=0),
        make(Basic.QosOk),
        make(Basic.GetEmpty),
        make(Basic.CancelOk, consumer_tag="tag"),
        make(Tx.SelectOk),
        make(Confirm.SelectOk),
    )
    each_on_its_connection(peer, {method.name: method for method in sent})


@scenario("2")
def methods_on_the_wrong_kind_of_channel(peer: Peer) -> None:
    for_channels = {"Channel.Open": make(Channel.Open), "Queue.Declare": declare("q")}
    for name, method in for_channels.items():
        client = peer.client(f"{name} on 0")
        client.send(0, method)
        client.end()
    closing = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    client = peer.client("Connection.Close on 1")
    client.channel(1)
    client.send(1, closing)
    client.end()


# The shape of a text


@scenario("2")
def a_text_has_at_most_255_bytes(peer: Peer) -> None:
    sizes = (219, 220, 221, 227, 255)
    each_on_its_channel(peer.client(), *(missing("q" * size) for size in sizes))


@scenario("2")
def a_long_text_that_is_not_ascii(peer: Peer) -> None:
    names = ("ü" * 120, "aü" * 80, "€" * 80, "a€" * 60, "aa€" * 50, "😀" * 60)
    for number, name in enumerate(names):
        client = peer.client(f"name {number}")
        heard = client.call(client.channel(1), missing(name))
        client.transcript.clear()
        text: str = heard.method.reply_text  # type: ignore[attr-defined]
        peer.note(f"{heard.name}: {text[:9]}, {'too long' if len(text.encode()) > 255 else 'cut'}")


@scenario("2")
def a_text_shows_names_as_they_are(peer: Peer) -> None:
    names = ("it's", 'a "name"', "~p ~s ~n", "a\\b", "a\tb", "a\0b", "ü€😀", "", " ", "<<1>>", "%")
    client = peer.client()
    each_on_its_channel(client, *map(missing, names))
    client.publish(client.channel(1), "an\r\nexchange", "key")
    client.expect("Channel.Close")


# The texts


@scenario("2.1")
def resources_that_are_not_found(peer: Peer) -> None:
    client = peer.client()
    client.call(client.channel(1), declare("not_found", exclusive=True))
    none, some = "nobody's", "not_found"
    each_on_its_channel(
        client,
        missing(),
        make(Exchange.Declare, exchange=none, passive=True),
        make(Queue.Bind, queue=none, exchange="amq.direct"),
        make(Queue.Bind, queue=some, exchange=none),
        make(Queue.Bind, queue=none, exchange=none),
        make(Queue.Unbind, queue=none, exchange=none),
        make(Exchange.Bind, destination=none, source="amq.direct"),
        make(Exchange.Bind, destination="amq.direct", source=none),
        make(Exchange.Bind, destination=none, source=none),
        make(Exchange.Unbind, destination=none, source=none),
        make(Queue.Purge, queue=none),
        make(Queue.Delete, queue=none),
        make(Exchange.Delete, exchange=none),
        make(Basic.Consume, queue=none),
        make(Basic.Get, queue=none),
        make(Queue.Bind, exchange="amq.direct"),
        make(Queue.Purge),
        make(Queue.Delete),
        make(Basic.Get),
        make(Basic.Consume),
    )


@scenario("2.1")
def a_publish_to_an_exchange_that_is_not_there(peer: Peer) -> None:
    client = peer.client()
    client.publish(client.channel(1), "nobody's", "key", b"body")
    client.publish(1, "nobody's", "another", b"body")
    client.expect("Channel.Close")
    client.settle(client.channel(2))


@scenario("2.1")
def queues_that_others_have_locked(peer: Peer) -> None:
    owner, client, queue = peer.client("owner"), peer.client(), "others_have_locked"
    owner.call(owner.channel(1), declare(queue, exclusive=True))
    each_on_its_channel(
        client,
        declare(queue),
        declare(queue, exclusive=True),
        declare(queue, passive=True),
        make(Queue.Bind, queue=queue, exchange="amq.direct", routing_key="k"),
        make(Queue.Unbind, queue=queue, exchange="amq.direct", routing_key="k"),
        make(Queue.Purge, queue=queue),
        make(Queue.Delete, queue=queue),
        make(Basic.Consume, queue=queue),
        make(Basic.Get, queue=queue),
    )


@scenario("2.1")
def accesses_that_are_refused(peer: Peer) -> None:
    each_on_its_channel(
        peer.client(),
        make(Exchange.Declare, exchange=""),
        make(Exchange.Declare, exchange="", passive=True),
        make(Exchange.Declare, exchange="amq.mine"),
        make(Exchange.Declare, exchange="amq.direct", exchange_type="fanout", durable=True),
        make(Exchange.Delete, exchange=""),
        make(Exchange.Delete, exchange="amq.direct"),
        make(Exchange.Delete, exchange="amq.mine"),
        make(Exchange.Bind, destination="amq.direct", source=""),
        make(Exchange.Bind, destination="", source="amq.direct"),
        make(Exchange.Unbind, destination="", source="amq.direct"),
        declare("amq.mine"),
        declare("amq.mine", passive=True),
        make(Queue.Bind, queue="nobody's", exchange=""),
        make(Queue.Unbind, queue="nobody's", exchange=""),
    )


@scenario("2.1")
def a_publish_to_an_internal_exchange(peer: Peer) -> None:
    client, exchange = peer.client(), "internal_exchange"
    client.channel(1)
    client.call(1, make(Exchange.Declare, exchange=exchange, auto_delete=True, internal=True))
    client.call(1, make(Exchange.Bind, destination="amq.fanout", source=exchange))
    client.publish(client.channel(2), exchange, "key", b"body")
    client.expect("Channel.Close")
    client.call(1, make(Exchange.Unbind, destination="amq.fanout", source=exchange))


@scenario("2.1")
def exclusive_consumers(peer: Peer) -> None:
    client = peer.client()
    client.call(client.channel(1), declare("with an exclusive one", exclusive=True))
    client.call(1, declare("with a plain one", exclusive=True))
    client.call(1, make(Basic.Consume, queue="with an exclusive one", exclusive=True))
    client.call(1, make(Basic.Consume, queue="with a plain one"))
    each_on_its_channel(
        client,
        make(Basic.Consume, queue="with an exclusive one"),
        make(Basic.Consume, queue="with an exclusive one", exclusive=True),
        make(Basic.Consume, queue="with a plain one", exclusive=True),
        make(Basic.Get, queue="with an exclusive one"),
    )


@scenario("2.1")
def declarations_that_are_not_equivalent(peer: Peer) -> None:
    client, queue, exchange = peer.client(), "not_equivalent q", "not_equivalent x"
    client.call(client.channel(1), declare(queue, {"x-expires": 60_000}, auto_delete=True))
    alternate = pamqp_table(to_table({"alternate-exchange": "other"}))
    another: dict[str, Any] = {"exchange": exchange, "auto_delete": True, "arguments": alternate}
    client.call(1, make(Exchange.Declare, **another))
    each_on_its_channel(
        client,
        declare(queue, {"x-expires": 60_000}),
        declare(queue, {"x-expires": 60_000}, auto_delete=True, durable=True),
        declare(queue, {"x-expires": 60_000}, auto_delete=True, exclusive=True),
        declare(queue, {"x-expires": 70_000}, auto_delete=True),
        declare(queue, auto_delete=True),
        declare(queue, {"x-expires": 60_000, "x-overflow": "drop-head"}, auto_delete=True),
        make(Exchange.Declare, **another | {"exchange_type": "fanout"}),
        make(Exchange.Declare, **another | {"durable": True}),
        make(Exchange.Declare, **another | {"auto_delete": False}),
        make(Exchange.Declare, **another | {"internal": True}),
        make(Exchange.Declare, **another | {"arguments": pamqp_table({})}),
        make(Exchange.Declare, **another | {"exchange_type": "none of these"}),
        make(Exchange.Delete, exchange=exchange),
        make(Queue.Delete, queue=queue),
    )


@scenario("2.1")
def preconditions_of_deletions(peer: Peer) -> None:
    client, queue, exchange = peer.client(), "of_deletions q", "of_deletions x"
    client.call(client.channel(1), declare(queue, exclusive=True))
    client.call(1, make(Exchange.Declare, exchange=exchange))
    client.call(1, make(Queue.Bind, queue=queue, exchange=exchange))
    client.publish(1, "", queue, b"body")
    each_on_its_channel(
        client,
        make(Queue.Delete, queue=queue, if_empty=True),
        make(Exchange.Delete, exchange=exchange, if_unused=True),
    )
    client.call(1, make(Basic.Consume, queue=queue, no_ack=True))
    each_on_its_channel(
        client,
        make(Queue.Delete, queue=queue, if_unused=True),
        make(Queue.Delete, queue=queue, if_unused=True, if_empty=True),
        make(Exchange.Delete, exchange=exchange),
        first=200,
    )


@scenario("2.1")
def preconditions_of_a_channel(peer: Peer) -> None:
    client = peer.client()
    conversations = (
        (make(Tx.Commit),),
        (make(Tx.Rollback),),
        (make(Tx.Select), make(Confirm.Select)),
        (make(Confirm.Select), make(Tx.Select)),
        (make(Confirm.Select), make(Tx.Commit)),
        (make(Basic.Ack, delivery_tag=1),),
        (make(Basic.Ack, delivery_tag=0),),
        (make(Basic.Ack, delivery_tag=0, multiple=True),),
        (make(Basic.Ack, delivery_tag=1, multiple=True),),
        (make(Basic.Nack, delivery_tag=(1 << 64) - 1),),
        (make(Basic.Reject, delivery_tag=7),),
        (make(Exchange.Declare, exchange="no_type", exchange_type="none of these"),),
        (make(Basic.Cancel, consumer_tag="nobody's"),),
    )
    for number, methods in enumerate(conversations, 1):
        client.channel(number)
        client.send(number, *methods)
        client.settle(number)


@scenario("2.1")
def messages_that_are_invalid(peer: Peer) -> None:
    client = peer.client()
    messages = (
        Properties(expiration="abc"),
        Properties(expiration=""),
        Properties(expiration="1ms"),
        Properties(expiration="-1"),
        Properties(expiration="1.5"),
        Properties(expiration=" 1"),
        Properties(expiration="+1"),
        Properties(expiration="315360000001"),
        Properties(user_id="somebody"),
        Properties(user_id=""),
        Properties(headers=to_table({"CC": "key"})),
        Properties(headers=to_table({"BCC": 1})),
        Properties(headers=to_table({"CC": ["key", 1, None]})),
    )
    for number, properties in enumerate(messages, 1):
        client.channel(number)
        client.publish(number, "", "nobody's", b"body", properties)
        client.settle(number)


@scenario("2.1")
def what_is_not_allowed_or_not_implemented(peer: Peer) -> None:
    each_on_its_connection(
        peer,
        {
            "prefetch_size": make(Basic.Qos, prefetch_size=1),
            "flow": make(Channel.Flow, active=False),
            "recover without requeue": make(Basic.Recover, requeue=False),
            "recover-async without requeue": make(Basic.RecoverAsync, requeue=False),
        },
    )
    immediate = peer.client("immediate")
    immediate.publish(immediate.channel(1), "", "nobody's", b"body", immediate=True)
    immediate.settle(1)
    tags = peer.client("a consumer tag twice")
    tags.call(tags.channel(1), declare("a consumer tag twice", exclusive=True))
    for _ in range(2):
        tags.call(1, make(Basic.Consume, queue="a consumer tag twice", consumer_tag="tag"))
