"""Section 4: exchanges, what leads from them to queues, and which messages take the way."""

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker

PREDECLARED = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}


@scenario("4")
def predeclared_exchanges(peer: Peer) -> None:
    main = speaker(peer)
    for name, kind in PREDECLARED.items():
        main.declare_exchange(name, passive=True)
        main.declare_exchange(name, kind, durable=True)
    main.declare_exchange("amq.rabbitmq.trace", passive=True)
    main.declare_exchange("amq.rabbitmq.trace", "topic", durable=True, internal=True)
    main.another().declare_exchange("amq.rabbitmq.trace", "topic", durable=True)
    main.another().declare_exchange("amq.direct")
    main.another().declare_exchange("amq.direct", "fanout", durable=True)


@scenario("4")
def reserved_names(peer: Peer) -> None:
    main = speaker(peer)
    main.another().declare_exchange("amq.mine")
    main.another().declare_exchange("amq.mine", passive=True)
    main.another().declare_exchange("amq.mine", "no such type")
    main.another().delete_exchange("amq.direct")
    main.another().delete_exchange("amq.nothing")


@scenario("4")
def the_default_exchange_is_left_alone(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("alone", exclusive=True)
    main.another().declare_exchange("")
    main.another().declare_exchange("", passive=True)
    main.another().declare_exchange("", "no such type")
    main.another().declare_exchange("\r\n")
    main.another().delete_exchange("")
    for bind in (Speaker.bind, Speaker.unbind):
        bind(main.another(), "alone", "", "k")
        bind(main.another(), "missing", "", "k")
    for bind_exchange in (Speaker.bind_exchange, Speaker.unbind_exchange):
        bind_exchange(main.another(), "", "amq.direct")
        bind_exchange(main.another(), "amq.direct", "")


@scenario("4")
def the_default_exchange_leads_to_every_queue(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("everywhere", exclusive=True)
    main.publish("", "everywhere", "by name")
    main.drain("everywhere")
    main.delete("everywhere")
    main.publish("", "everywhere", "gone", mandatory=True)
    main.expect("Basic.Return")


@scenario("4")
def declaring_an_exchange_again(peer: Peer) -> None:
    main = speaker(peer)
    alternate = {"alternate-exchange": "ae"}
    main.declare_exchange("again", arguments={**alternate, "x-other": 1})
    main.declare_exchange("again", arguments={"x-other": 2, **alternate})
    main.declare_exchange("again", passive=True)
    main.declare_exchange("again", "fanout", durable=True, internal=True, passive=True)
    main.another().declare_exchange("again", "fanout", alternate)
    for flag in ("durable", "auto_delete", "internal"):
        main.another().declare_exchange("again", "direct", alternate, **{flag: True})
    main.another().declare_exchange("again", "fanout", durable=True)
    main.another().declare_exchange("again", durable=True, internal=True)
    main.delete_exchange("again")


@scenario("4")
def declaring_an_exchange_again_with_another_alternate(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("alternates", arguments={"alternate-exchange": "ae"})
    main.another().declare_exchange("alternates")
    for value in ("other", 5, True, None, ("x", b"ae"), ["ae"], {"a": 1}):
        main.another().declare_exchange("alternates", arguments={"alternate-exchange": value})
    main.delete_exchange("alternates")
    main.declare_exchange("alternates")
    for value in ("other", 5, True, None):
        main.another().declare_exchange("alternates", arguments={"alternate-exchange": value})
    main.delete_exchange("alternates")


@scenario("4")
def an_alternate_exchange_that_is_no_name(peer: Peer) -> None:
    main = speaker(peer)
    for value in (5, True, None, 1.5, ("x", b"a"), ["a"], {"a": 1}, ("T", 5), ("s", 5), ("B", 5)):
        main.another().declare_exchange("no name", arguments={"alternate-exchange": value})


@scenario("4")
def unknown_types_and_exchanges(peer: Peer) -> None:
    main = speaker(peer)
    main.another().declare_exchange("typed", "no such type")
    main.another().declare_exchange("typed", "Direct")
    main.another().declare_exchange("typed", "x-no-such-type")
    main.another().declare_exchange("typed", passive=True)
    main.another().declare_exchange("typed", "no such type", passive=True)
    main.declare_exchange("typed")
    main.another().declare_exchange("typed", "no such type")
    main.another().declare_exchange("typed", "no such type", passive=True)
    main.delete_exchange("typed")
    main.another().publish("typed", "k", "to an exchange that is gone")
    main.expect("Channel.Close")


@scenario("4")
def names_of_exchanges(peer: Peer) -> None:
    main = speaker(peer)
    for name in ("with  blanks, ü / ~ #*.", "x" * 255):
        main.declare_exchange(name)
        main.declare_exchange(name, passive=True)
        main.delete_exchange(name)
    main.declare_exchange("line\r\nbreaks\n")
    main.declare_exchange("linebreaks", passive=True)
    main.publish("linebreaks", "k", mandatory=True)
    main.expect("Basic.Return")
    main.another().publish("line\nbreaks", "k")
    main.expect("Channel.Close")
    main.delete_exchange("\rlinebreaks")
    main.another().declare_exchange("linebreaks", passive=True)


@scenario("4")
def exchanges_without_answers(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("silent q", exclusive=True)
    main.declare_exchange("silent", nowait=True)
    main.bind("silent q", "silent", "k", nowait=True)
    main.bind_exchange("silent", "amq.fanout", "silent", nowait=True)
    main.publish("amq.fanout", "k", "all the way")
    main.drain("silent q")
    main.unbind_exchange("silent", "amq.fanout", "silent", nowait=True)
    main.delete_exchange("silent", nowait=True)
    main.settle()
    main.another().declare_exchange("silent", passive=True)
    refused = main.another()
    refused.declare_exchange("silent", "no such type", nowait=True)
    refused.expect("Channel.Close")


@scenario("4")
def deleting_an_exchange(peer: Peer) -> None:
    main = speaker(peer)
    main.delete_exchange("deleted")
    main.delete_exchange("deleted", if_unused=True)
    main.declare_exchange("deleted")
    main.declare_exchange("deleted to")
    main.bind_exchange("deleted to", "deleted", "k")
    main.delete_exchange("deleted to", if_unused=True)
    main.declare_exchange("deleted to")
    main.bind_exchange("deleted to", "deleted", "k")
    main.another().delete_exchange("deleted", if_unused=True)
    main.delete_exchange("deleted")
    main.delete_exchange("deleted to", if_unused=True)


@scenario("4")
def an_auto_delete_exchange_goes_with_its_last_binding(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("last a", exclusive=True)
    main.declare("last b", exclusive=True)
    main.declare_exchange("last", auto_delete=True)
    main.unbind("last a", "last", "never bound")
    main.bind("last a", "last")
    main.bind("last b", "last")
    main.unbind("last a", "last")
    main.declare_exchange("last", passive=True)
    main.delete("last b")
    main.another().declare_exchange("last", passive=True)


@scenario("4")
def auto_delete_exchanges_that_follow_one_another(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("chain q", exclusive=True)
    main.declare_exchange("chain 1", auto_delete=True)
    main.declare_exchange("chain 2", auto_delete=True)
    main.bind_exchange("chain 2", "chain 1")
    main.bind("chain q", "chain 2")
    main.unbind("chain q", "chain 2")
    main.another().declare_exchange("chain 2", passive=True)
    main.another().declare_exchange("chain 1", passive=True)
    main.declare_exchange("chain 3", auto_delete=True)
    main.declare_exchange("chain end")
    main.bind_exchange("chain end", "chain 3")
    main.delete_exchange("chain end")
    main.another().declare_exchange("chain 3", passive=True)
    main.declare_exchange("chain only destination", auto_delete=True)
    main.bind_exchange("chain only destination", "amq.direct")
    main.unbind_exchange("chain only destination", "amq.direct")
    main.declare_exchange("chain only destination", passive=True)
    main.delete_exchange("chain only destination")


@scenario("4")
def an_internal_exchange_takes_no_publishes(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("inner q", exclusive=True)
    main.declare_exchange("inner", "fanout", internal=True)
    main.declare_exchange("outer")
    main.bind("inner q", "inner")
    main.bind_exchange("inner", "outer", "k")
    main.publish("outer", "k", "through the outer one")
    main.drain("inner q")
    for name in ("inner", "amq.rabbitmq.trace"):
        refused = main.another()
        refused.publish(name, "k", "straight")
        refused.expect("Channel.Close")
    main.delete_exchange("inner")
    main.delete_exchange("outer")


@scenario("4")
def bindings_between_what_is_missing(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("bound q", exclusive=True)
    for queue, exchange in (("none", "amq.direct"), ("bound q", "no x"), ("none", "no x")):
        main.another().bind(queue, exchange, "k")
        main.unbind(queue, exchange, "k")
    for to, source in (("none", "amq.direct"), ("amq.direct", "no x"), ("none", "no x")):
        main.another().bind_exchange(to, source, "k")
        main.unbind_exchange(to, source, "k")
    main.unbind("bound q", "amq.direct", "never bound")


@scenario("4")
def two_bindings_are_one_if_all_is_equal(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("equal q", exclusive=True)
    main.declare_exchange("equal")
    main.bind("equal q", "equal", "k")
    main.bind("equal q", "equal", "k")
    main.bind("equal q", "equal", "k", {"a": 1})
    main.publish("equal", "k", "once")
    main.drain("equal q")
    main.unbind("equal q", "equal", "k")
    main.publish("equal", "k", "by the one with an argument")
    main.unbind("equal q", "equal", "k", {"a": ("s", 1)})
    main.publish("equal", "k", "a short is no long")
    main.unbind("equal q", "equal", "k", {"a": 1})
    main.publish("equal", "k", "no more", mandatory=True)
    main.expect("Basic.Return")
    main.bind("equal q", "equal", "k", {"a": 1, "b": 2})
    main.unbind("equal q", "equal", "k", {"b": 2, "a": 1})
    main.publish("equal", "k", "the order counts for nothing", mandatory=True)
    main.expect("Basic.Return")
    main.drain("equal q")
    main.delete_exchange("equal")


@scenario("4")
def the_last_declared_queue_is_bound(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("short")
    main.another().bind("", "short", "k")
    main.another().unbind("", "short", "k")
    main.declare("short q", exclusive=True)
    main.bind("", "short")
    main.publish("short", "short q", "its name is the key")
    main.publish("short", "", "no key", mandatory=True)
    main.expect("Basic.Return")
    main.unbind("", "short")
    main.bind("", "short", "k")
    main.publish("short", "k", "a key")
    main.bind("short q", "short")
    main.publish("short", "", "the empty key")
    main.bind("sho\rrt q", "sh\nort", "breaks")
    main.publish("short", "breaks", "line breaks are left out")
    main.drain("short q")
    main.delete("short q")
    main.another().bind("", "short")
    main.bind("", "short")
    speaker(peer, "other").delete_exchange("short")


@scenario("4")
def bindings_go_with_their_queue(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("again q")
    main.bind("again q", "amq.direct", "bound to go")
    main.delete("again q")
    main.declare("again q", exclusive=True)
    main.publish("amq.direct", "bound to go", mandatory=True)
    main.expect("Basic.Return")
    main.drain("again q")


@scenario("4")
def from_exchange_to_exchange(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("e2e a", exclusive=True)
    main.declare("e2e b", exclusive=True)
    for name, kind in (("e2e topic", "topic"), ("e2e fanout", "fanout"), ("e2e direct", "direct")):
        main.declare_exchange(name, kind)
    main.bind_exchange("e2e fanout", "e2e topic", "a.#")
    main.bind_exchange("e2e direct", "e2e fanout")
    main.bind_exchange("e2e topic", "e2e direct", "a.b")
    main.bind_exchange("e2e fanout", "e2e fanout")
    main.bind("e2e a", "e2e fanout")
    main.bind("e2e a", "e2e topic", "#")
    main.bind("e2e a", "e2e direct", "a.b")
    main.bind("e2e b", "e2e direct", "a.b")
    for exchange in ("e2e topic", "e2e fanout", "e2e direct"):
        for key in ("a.b", "a.c", "b"):
            main.publish(exchange, key, f"{key} to {exchange}")
    main.drain("e2e a")
    main.drain("e2e b")
    main.unbind_exchange("e2e fanout", "e2e topic", "a.#")
    main.publish("e2e topic", "a.b", "cut off")
    main.drain("e2e b")
    for name in ("e2e topic", "e2e fanout", "e2e direct"):
        main.delete_exchange(name)
