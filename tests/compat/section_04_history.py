"""Section 4.5: x-recent-history, which gives the last messages to who is bound to it."""

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker


def published(main: Speaker, exchange: str, *bodies: str, **options: object) -> None:
    """Publish, and return when the exchange has seen all of it."""
    with main.aside() as other:
        other.confirms()
        for body in bodies:
            other.publish(exchange, f"key of {body}", body, **options)  # type: ignore[arg-type]
        other.confirmed(len(bodies))


@scenario("4.5")
def who_is_bound_gets_the_last_messages(peer: Peer) -> None:
    main = speaker(peer)
    for length in (None, 3, 1):
        name = f"recent {length}"
        arguments = {} if length is None else {"x-recent-history-length": length}
        main.declare_exchange(name, "x-recent-history", arguments)
        main.declare(f"{name} early", exclusive=True)
        main.bind(f"{name} early", name, "any")
        published(main, name, *map(str, range(25)))
        main.declare(f"{name} late", exclusive=True)
        main.bind(f"{name} late", name)
        published(main, name, "one more")
        main.bind(f"{name} late", name)
        main.settle()
        main.drain(f"{name} early")
        main.drain(f"{name} late")
        main.bind(f"{name} late", name, "another binding is new")
        main.drain(f"{name} late")
        main.unbind(f"{name} late", name)
        main.bind(f"{name} late", name)
        main.drain(f"{name} late")
        main.delete_exchange(name)
        main.declare_exchange(name, "x-recent-history", arguments)
        main.bind(f"{name} late", name)
        main.drain(f"{name} late")
        main.delete_exchange(name)


@scenario("4.5")
def what_is_kept_lives_as_long_again(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("fleeting", "x-recent-history")
    main.declare("dead of age", exclusive=True)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead of age"}
    published(main, "fleeting", "not for long", expiration="1")
    main.consume("dead of age", "dead", no_ack=True)
    for late in ("fleeting first", "fleeting later"):
        main.declare(late, arguments, exclusive=True)
        main.bind(late, "fleeting")
        main.expect("Basic.Deliver")
    main.delete_exchange("fleeting")
    main.without_times()


@scenario("4.5")
def lengths_of_a_history(peer: Peer) -> None:
    main = speaker(peer)
    for value in (
        *(0, -1, "5", "abc", True, None, 1.5, [1], {"a": 1}),
        *(("B", 5), ("u", 5), ("i", 5), ("T", 5), ("x", b"5")),
    ):
        arguments = {"x-recent-history-length": value}
        main.another().declare_exchange("lengths", "x-recent-history", arguments)
    for value in (1, ("b", 5), ("s", 5), ("I", 5), ("l", 5), ("L", 5)):
        arguments = {"x-recent-history-length": value}
        main.declare_exchange("lengths", "x-recent-history", arguments)
        main.declare_exchange("lengths", "x-recent-history", {"x-recent-history-length": 0})
        main.delete_exchange("lengths")


@scenario("4.5")
def messages_that_are_not_to_be_kept(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("stores", "x-recent-history")
    for number, value in enumerate((True, False, "true", 1, None)):
        headers = {"x-recent-history-no-store": value}
        published(main, "stores", f"{number}: {value}", headers=headers)
    published(main, "stores", "other", headers={"x-other": "x-recent-history-no-store"})
    main.declare("stores q", exclusive=True)
    main.bind("stores q", "stores")
    main.drain("stores q")
    main.delete_exchange("stores")


@scenario("4.5")
def what_kept_messages_look_like(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("looks", "x-recent-history")
    main.declare("looks q", exclusive=True)
    options = {"content_type": "a/b", "priority": 5, "delivery_mode": 2}
    published(main, "looks", "with properties", headers={"n": 1}, **options)
    published(main, "looks", "with CC", headers={"CC": ["a"], "BCC": ["looks q"]})
    published(main, "looks", "unroutable", mandatory=True)
    main.bind("looks q", "looks")
    main.drain("looks q")
    main.publish("looks", "k", "is returned no more", mandatory=True)
    main.declare("looks durable", durable=True)
    main.bind("looks durable", "looks")
    main.drain("looks durable")
    main.delete("looks durable")
    main.delete_exchange("looks")


@scenario("4.5")
def histories_behind_other_exchanges(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("history front", "topic")
    main.declare_exchange("history back", "x-recent-history", internal=True)
    main.bind_exchange("history back", "history front", "#.kept")
    other = main.another()
    other.confirms()
    other.publish("history front", "a.kept", "kept")
    other.publish("history front", "a.other", "not kept")
    other.publish("history front", "other", "kept by CC", headers={"CC": ["x.kept"]})
    peer.note(other.confirmed(3))
    main.declare("history q", exclusive=True)
    main.bind("history q", "history back")
    main.drain("history q")
    main.delete_exchange("history front")
    main.delete_exchange("history back")


@scenario("4.5")
def exchanges_that_are_bound_to_a_history(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("of exchanges", "x-recent-history")
    main.declare_exchange("bound later", "direct")
    main.declare("bound later q", exclusive=True)
    main.bind("bound later q", "bound later", "key of 2")
    published(main, "of exchanges", "2")
    main.bind_exchange("bound later", "of exchanges")
    main.drain("bound later q")
    main.delete_exchange("of exchanges")
    main.delete_exchange("bound later")


@scenario("4.5")
def exchanges_that_are_bound_to_a_history_of_several(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("of several", "x-recent-history")
    main.declare_exchange("bound to several", "fanout")
    main.declare("bound to several q", exclusive=True)
    main.bind("bound to several q", "bound to several")
    published(main, "of several", "1", "2", "3")
    main.bind_exchange("bound to several", "of several")
    main.drain("bound to several q")
    main.delete_exchange("of several")
    main.delete_exchange("bound to several")


@scenario("4.5")
def exchanges_where_a_history_leads_nowhere(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("of nowhere", "x-recent-history")
    published(main, "of nowhere", "1")
    main.bind_exchange("amq.direct", "of nowhere")
    speaker(peer, "other").delete_exchange("of nowhere")


@scenario("4.5")
def histories_in_transactions(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("tx history", "x-recent-history")
    main.declare("tx history q", exclusive=True)
    other = main.another()
    other.transact()
    other.publish("tx history", "k", "rolled back")
    other.roll_back()
    other.publish("tx history", "k", "committed")
    other.commit()
    main.bind("tx history q", "tx history")
    main.drain("tx history q")
    main.delete_exchange("tx history")
