"""Section 3: who may log in, open a virtual host, and do what in it; limits of users and hosts.

Users, virtual hosts and permissions are those of `estate`, which fluffle has from RabbitMQ.
"""

from collections.abc import Callable

from fluffle.protocol.methods import Channel, Connection, make
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.compat.estate import PASSWORD, VHOST
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker
from tests.support.client import Closed, Heard, start_ok

Verb = Callable[[Speaker], object]


def as_user(peer: Peer, name: str, **options: object) -> Speaker:
    return speaker(peer, name, user=name, password=PASSWORD.format(name), vhost=VHOST, **options)


def each(first: Speaker, *verbs: Verb) -> None:
    """Each on a channel of its own, of which it may be the end."""
    for verb in verbs:
        channel = first.another()
        verb(channel)
        if not is_closed(channel):
            channel.settle()
        if is_closed(channel):
            channel.send(make(Channel.CloseOk))
        else:
            channel.close()


def is_closed(channel: Speaker) -> bool:
    last = channel.client.heard[-1]
    return (last.name, last.channel) == ("Channel.Close", channel.number)


def knock(
    peer: Peer, name: str, password: str | None = None, *, vhost: str = VHOST, label: str = ""
) -> Heard | None:
    """Log in and open a virtual host: the last that is heard of it is written down."""
    client = peer.connect(label or name)
    client.send_bytes(PROTOCOL_HEADER)
    client.next()
    client.transcript.clear()
    client.send(0, start_ok(name, PASSWORD.format(name) if password is None else password))
    try:
        heard = client.next()
        if heard.name != "Connection.Tune":
            return heard
        client.transcript.clear()
        client.send(0, make(Connection.TuneOk, 2047, 131_072, 0), make(Connection.Open, vhost))
        return client.next()
    except Closed:
        return None


# Who may come in


@scenario("3")
def passwords_of_all_algorithms(peer: Peer) -> None:
    for name in ("owner", "of sha512", "of md5", "guest"):
        knock(peer, name, "guest" if name == "guest" else None)


@scenario("3")
def passwords_that_are_wrong_or_blank(peer: Peer) -> None:
    for number, password in enumerate(["pässword of Owner", "", "pässword of owner ", "pässword"]):
        knock(peer, "owner", password, label=f"owner {number}")
    for name in ("of sha512", "of md5", "blank", "nobody at all"):
        knock(peer, name, "", label=f"{name}, blank")
        knock(peer, name, "wrong", label=f"{name}, wrong")


@scenario("3", "1.5")
def virtual_hosts_without_permissions(peer: Peer) -> None:
    knock(peer, "stranger")
    knock(peer, "nobody")
    knock(peer, "owner", vhost="/", label="owner elsewhere")
    knock(peer, "owner", vhost="nowhere", label="owner nowhere")


# Names


OPERATIONS: dict[str, Verb] = {
    "declare an exchange": lambda it: it.declare_exchange("mine.new"),
    "declare another's": lambda it: it.declare_exchange("theirs.new"),
    "declare it again": lambda it: it.declare_exchange("theirs.x", durable=True),
    "declare it otherwise": lambda it: it.declare_exchange("theirs.x", "fanout"),
    "of no type": lambda it: it.declare_exchange("theirs.new", "nonsense"),
    "the default": lambda it: it.declare_exchange(""),
    "a reserved name": lambda it: it.declare_exchange("amq.mine"),
    "delete an exchange": lambda it: it.delete_exchange("mine.new"),
    "delete another's": lambda it: it.delete_exchange("theirs.x"),
    "delete what is not there": lambda it: it.delete_exchange("theirs.gone"),
    "delete a system's": lambda it: it.delete_exchange("amq.direct"),
    "declare a queue": lambda it: it.declare("mine.new"),
    "declare another's queue": lambda it: it.declare("theirs.new"),
    "another's queue again": lambda it: it.declare("theirs.q", durable=True),
    "a queue without a name": lambda it: it.declare(""),
    "purge": lambda it: it.purge("mine.new"),
    "purge another's": lambda it: it.purge("theirs.q"),
    "purge what is not there": lambda it: it.purge("theirs.gone"),
    "get": lambda it: it.get("mine.new"),
    "get another's": lambda it: it.get("theirs.q"),
    "get what is not there": lambda it: it.get("theirs.gone"),
    "consume": lambda it: it.consume("mine.new", "tag"),
    "consume another's": lambda it: it.consume("theirs.q", "tag"),
    "consume what is not there": lambda it: it.consume("theirs.gone", "tag"),
    "bind": lambda it: it.bind("mine.new", "mine.x", "key"),
    "bind another's queue": lambda it: it.bind("theirs.q", "mine.x", "key"),
    "bind another's exchange": lambda it: it.bind("mine.new", "theirs.x", "key"),
    "bind what is not there": lambda it: it.bind("theirs.gone", "theirs.gone", "key"),
    "bind to the default exchange": lambda it: it.bind("mine.new", "", "key"),
    "bind exchanges to it": lambda it: it.bind_exchange("mine.x", "", "key"),
    "bind another's to it": lambda it: it.bind("theirs.q", "", "key"),
    "unbind": lambda it: it.unbind("mine.new", "mine.x", "key"),
    "unbind another's queue": lambda it: it.unbind("theirs.q", "mine.x", "key"),
    "unbind another's exchange": lambda it: it.unbind("mine.new", "theirs.x", "key"),
    "bind exchanges": lambda it: it.bind_exchange("mine.x", "mine.x", "key"),
    "bind to another's": lambda it: it.bind_exchange("theirs.x", "mine.x", "key"),
    "bind from another's": lambda it: it.bind_exchange("mine.x", "theirs.x", "key"),
    "bind to the default": lambda it: it.bind_exchange("", "theirs.x", "key"),
    "unbind exchanges": lambda it: it.unbind_exchange("mine.x", "mine.x", "key"),
    "unbind from another's": lambda it: it.unbind_exchange("mine.x", "theirs.x", "key"),
    "publish": lambda it: it.publish("mine.x", "nowhere", mandatory=True),
    "publish to another's": lambda it: it.publish("theirs.x", "nowhere", mandatory=True),
    "publish to what is not there": lambda it: it.publish("theirs.gone", "nowhere"),
    "publish to what could be there": lambda it: it.publish("mine.gone", "nowhere"),
    "publish to the default": lambda it: it.publish("", "nowhere", mandatory=True),
    "publish to an internal one": lambda it: it.publish("amq.rabbitmq.trace", "nowhere"),
    "delete a queue": lambda it: it.delete("mine.new"),
    "delete another's queue": lambda it: it.delete("theirs.q"),
    "delete a queue that is not there": lambda it: it.delete("theirs.gone"),
}


@scenario("3")
def every_operation_by_one_with_rights_to_some(peer: Peer) -> None:
    each(as_user(peer, "owner"), *OPERATIONS.values())


@scenario("3")
def every_operation_by_one_with_no_rights(peer: Peer) -> None:
    each(as_user(peer, "nobody"), *OPERATIONS.values())


@scenario("3")
def patterns_search_and_need_not_match(peer: Peer) -> None:
    each(
        as_user(peer, "searching"),
        lambda it: it.declare("inn", durable=True),
        lambda it: it.declare("outing", exclusive=True),
        lambda it: it.declare("out", exclusive=True),
        lambda it: it.declare("out 5", exclusive=True),
        lambda it: it.declare("out 5s", exclusive=True),
        lambda it: it.bind("inn", "amq.direct", "key"),
        lambda it: it.publish("theirs.x", "key"),
        lambda it: it.get("inn"),
        lambda it: it.get("INN"),
    )


def exchange_before(name: str, alternate: str) -> Verb:
    arguments = {"alternate-exchange": alternate}
    return lambda it: it.declare_exchange(name, arguments=arguments)


def queue_before(name: str, dead_letter_exchange: str) -> Verb:
    arguments = {"x-dead-letter-exchange": dead_letter_exchange}
    return lambda it: it.declare(name, arguments, exclusive=True)


@scenario("3")
def another_exchange_behind_a_new_one(peer: Peer) -> None:
    """A new exchange or queue that passes messages on needs a right to where they go."""
    writer = as_user(peer, "writer")
    for name, other in (("new", "theirs.x"), ("new", "mine.x"), ("theirs.x", "mine.x")):
        each(writer, exchange_before(name, other), queue_before(name, other))
    each(
        as_user(peer, "owner"),
        lambda it: it.declare_exchange("mine.a", arguments={"alternate-exchange": "mine.x"}),
        lambda it: it.declare_exchange("mine.b", arguments={"alternate-exchange": "theirs.x"}),
        lambda it: it.declare_exchange("mine.a", arguments={"alternate-exchange": "theirs.x"}),
        lambda it: it.declare_exchange("mine.b", arguments={"alternate-exchange": ""}),
        lambda it: it.declare_exchange("mine.c", arguments={"alternate-exchange": 5}),
        lambda it: it.declare("mine.d", {"x-dead-letter-exchange": "mine.x"}),
        lambda it: it.declare("mine.e", {"x-dead-letter-exchange": "theirs.x"}),
        lambda it: it.declare("mine.d", {"x-dead-letter-exchange": "theirs.x"}),
        lambda it: it.declare("mine.e", {"x-dead-letter-exchange": ""}, exclusive=True),
        lambda it: it.declare("mine.f", {"x-dead-letter-exchange": 5}),
        lambda it: it.declare("mine.g", {"x-dead-letter-exchange": "theirs.x", "x-expires": -1}),
        lambda it: it.delete_exchange("mine.a"),
        lambda it: it.delete_exchange("mine.b"),
        lambda it: it.delete("mine.d"),
    )


@scenario("3")
def passive_declares(peer: Peer) -> None:
    mine: list[Verb] = [
        lambda it: it.declare("mine.q", passive=True),
        lambda it: it.declare_exchange("mine.x", passive=True),
    ]
    each(as_user(peer, "nobody"), *mine)
    each(
        as_user(peer, "owner"),
        *mine,
        lambda it: it.declare("mine.gone", passive=True),
        lambda it: it.declare_exchange("mine.gone", passive=True),
        lambda it: it.declare_exchange("", passive=True),
    )


# Topics


@scenario("3")
def routing_keys_for_topic_exchanges(peer: Peer) -> None:
    def publish(exchange: str, key: str, *more: str) -> Verb:
        headers = {"CC": list(more)} if more else None
        return lambda it: it.publish(exchange, key, headers=headers, mandatory=True)

    each(
        as_user(peer, "reporter"),
        publish("news", "reporter.of.it"),
        publish("news", "all"),
        publish("news", "editor.of.it"),
        publish("news", "all", "reporter.too", "editor.too"),
        publish("news", "all", "reporter.too"),
        publish("amq.topic", "editor.of.it"),
        publish("amq.direct", "editor.of.it"),
        lambda it: it.publish("news", "editor", user_id="somebody else"),
        lambda it: it.publish("news", "editor", expiration="nonsense"),
    )


@scenario("3")
def binding_keys_for_topic_exchanges(peer: Peer) -> None:
    each(
        as_user(peer, "reporter"),
        lambda it: it.bind("mine.q", "news", f"{VHOST}.#"),
        lambda it: it.bind("mine.q", "news", "elsewhere.#"),
        lambda it: it.unbind("mine.q", "news", f"{VHOST}.#"),
        lambda it: it.unbind("mine.q", "news", "elsewhere.#"),
        lambda it: it.bind("mine.q", "amq.topic", "elsewhere.#"),
        lambda it: it.unbind("mine.q", "amq.topic", "elsewhere.#"),
        lambda it: it.bind_exchange("mine.x", "news", "elsewhere.#"),
    )


# User ids


def sign_as(user_id: str) -> Verb:
    return lambda it: it.publish("", "nowhere", user_id=user_id, mandatory=True)


@scenario("3")
def messages_in_another_name(peer: Peer) -> None:
    for name in ("reporter", "impostor"):
        each(as_user(peer, name), sign_as(name), sign_as("somebody else"), sign_as(""))


# Limits


@scenario("1.5")
def no_connections_at_all(peer: Peer) -> None:
    knock(peer, "no connection")
    knock(peer, "guest", "guest", vhost="no connections", label="guest")
    knock(peer, "no connection", vhost="nowhere", label="nowhere")


@scenario("1.5")
def one_connection_and_no_more(peer: Peer) -> None:
    for user, password, vhost in (
        ("one connection", None, VHOST),
        ("guest", "guest", "one connection"),
    ):
        knock(peer, user, password, vhost=vhost, label=f"first {user}")
        peer.note(until_refused(peer, user, password, vhost))


def until_refused(peer: Peer, user: str, password: str | None, vhost: str) -> Heard | None:
    """Come again until there is no room: RabbitMQ counts a connection a moment after it opens."""
    while True:
        heard = knock(peer, user, password, vhost=vhost, label="further")
        client = peer.clients.pop("further")
        client.close()
        if heard is None or heard.name != "Connection.OpenOk":
            return heard


@scenario("1.6")
def channels_of_a_user(peer: Peer) -> None:
    for name in ("no channel", "two channels"):
        client = peer.client(name, user=name, password=PASSWORD.format(name), vhost=VHOST)
        opening = (client.call(number, make(Channel.Open)) for number in range(1, 2000))
        # RabbitMQ counts a channel a moment after it opens, so that more may open than are allowed.
        peer.note(next(heard for heard in opening if heard.name != "Channel.OpenOk"))
        client.transcript.clear()


@scenario("2.1", "5.1")
def no_further_queue(peer: Peer) -> None:
    guest = speaker(peer, vhost="one queue")
    each(
        guest,
        lambda it: it.declare("full", durable=True),
        lambda it: it.declare("further"),
        lambda it: it.declare("further", exclusive=True),
        lambda it: it.declare("full", durable=False),
        lambda it: it.declare("further", {"x-expires": -1}),
        lambda it: it.delete("full"),
        lambda it: it.declare("full", durable=True),
    )
