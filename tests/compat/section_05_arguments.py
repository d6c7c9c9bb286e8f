"""Sections 5.1 and 5.2: what x-arguments may be, and when two of them are the same."""

from fluffle.protocol.wire import PlainValue
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker

ODD: tuple[PlainValue, ...] = (
    *(-1, 0, 1.5, "", "abc", True, None, ("x", b"5"), ("T", 5), ("D", (0, 5)), [5], {"a": 5}),
)
"""Values that few arguments can have."""

INTEGERS: tuple[PlainValue, ...] = (
    *(5, ("b", 5), ("B", 5), ("s", 5), ("u", 5), ("I", 5), ("i", 5), ("L", 5)),
    *(255, 256, 315_360_000_000, 315_360_000_001, 2**63 - 1),
)


def declare_each(main: Speaker, name: str, *values: PlainValue) -> None:
    """Declare a queue with each of the values, and delete those that can be."""
    for value in values:
        main.another().declare(f"with {name}", {name: value})
        main.delete(f"with {name}")


@scenario("5.2")
def times(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-expires", *INTEGERS, *ODD)
    declare_each(main, "x-message-ttl", *INTEGERS, *ODD)


@scenario("5.2")
def lengths(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-max-length", *INTEGERS, *ODD)
    declare_each(main, "x-max-length-bytes", *INTEGERS, *ODD)


@scenario("5.2")
def priorities(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-max-priority", *INTEGERS, *ODD)


@scenario("5.2")
def overflow(peer: Peer) -> None:
    main = speaker(peer)
    words = ("drop-head", "reject-publish", "reject-publish-dlx", "Drop-Head")
    declare_each(main, "x-overflow", *words, *ODD)


@scenario("5.2")
def dead_letter_exchanges(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-dead-letter-exchange", "dlx", "amq.direct", 5, *ODD)


@scenario("5.2")
def dead_letter_routing_keys(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-dead-letter-routing-key", "k", 5, *ODD)
    for exchange, key in (("dlx", "k"), ("", ""), ("dlx", 5), (5, "k"), (5, 5)):
        arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": key}
        main.another().declare("with both", arguments)
        main.delete("with both")


@scenario("5.2")
def single_active_consumer(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-single-active-consumer", True, False, 1, "true", *ODD)


@scenario("5.2")
def queue_types(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-queue-type", "classic", "Classic", "foo", 'a"b\\c', "é", 5, *ODD)


@scenario("5.2")
def queue_modes_and_locators(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-queue-mode", "default", "lazy", "eager", 5, *ODD)
    places = ("client-local", "balanced", "random", "least-leaders", "min-masters", "here")
    declare_each(main, "x-queue-leader-locator", *places, 5, *ODD)
    declare_each(main, "x-queue-master-locator", "min-masters", "anything", 5)


@scenario("5.2")
def queue_versions(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-queue-version", 2, ("s", 2), 3, *ODD)


@scenario("5.2")
def the_first_queue_version(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("first version", {"x-queue-version": 1}, exclusive=True)


@scenario("5.2")
def arguments_of_other_queue_types(peer: Peer) -> None:
    main = speaker(peer)
    for name in (
        *("x-dead-letter-strategy", "x-max-in-memory-length", "x-max-in-memory-bytes"),
        *("x-quorum-initial-group-size", "x-delivery-limit"),
        *("x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size"),
    ):
        declare_each(main, name, 5, "1h", True)


@scenario("5.2")
def a_consumer_timeout_of_a_queue(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("timeout", {"x-consumer-timeout": 5000}, exclusive=True)


@scenario("5.2")
def unknown_arguments_are_kept(peer: Peer) -> None:
    main = speaker(peer)
    declare_each(main, "x-unknown", 5, *ODD)
    declare_each(main, "x-quorum-target-group-size", 5)


@scenario("5.2")
def which_bad_argument_is_named(peer: Peer) -> None:
    main = speaker(peer)
    for arguments in (
        {"x-max-length": -1, "x-expires": 0},
        {"x-overflow": "z", "x-max-priority": 300},
        {"x-queue-type": "foo", "x-expires": 0},
        {"x-queue-type": 5, "x-expires": 0},
        {"x-dead-letter-exchange": 5, "x-queue-type": "foo"},
        {"x-delivery-limit": 5, "x-expires": 0},
        {"x-max-age": "1h", "x-delivery-limit": 5},
        {"x-queue-type": "classic", "x-delivery-limit": 5},
        {"x-quorum-initial-group-size": 0},
    ):
        main.another().declare("named", arguments)


def redeclare(main: Speaker, name: str, value: PlainValue, *others: PlainValue) -> None:
    """Declare a queue with and without an argument, then again with and without others."""
    main.declare("same", {name: value})
    main.another().declare("same")
    for other in (value, *others):
        main.another().declare("same", {name: other})
    main.delete("same")
    main.declare("same")
    for other in (value, *others):
        main.another().declare("same", {name: other})
    main.delete("same")


@scenario("5.1")
def numbers_that_are_the_same(peer: Peer) -> None:
    main = speaker(peer)
    others = (("s", 1000), ("I", 1000), ("i", 1000), 1001, 0, -5, "1000", "abc", None, True)
    redeclare(main, "x-message-ttl", 1000, *others, ("T", 1000), ("x", b"1000"), 1000.0, 1.5, 1e20)
    redeclare(main, "x-expires", 100_000, 100_001)
    redeclare(main, "x-max-length", 5, 6, ("B", 5))
    redeclare(main, "x-max-length-bytes", 5, 6)
    redeclare(main, "x-max-priority", 5, 6, ("b", 5))


@scenario("5.1")
def words_that_are_the_same(peer: Peer) -> None:
    main = speaker(peer)
    exchanges = ("other", "", ("x", b"dlx"), 5, "é", b"\xff", 'a"b')
    redeclare(main, "x-dead-letter-exchange", "dlx", *exchanges)
    redeclare(main, "x-overflow", "drop-head", "reject-publish", "no such word")
    redeclare(main, "x-queue-mode", "lazy", "default")
    redeclare(main, "x-queue-leader-locator", "balanced", "client-local")
    redeclare(main, "x-queue-type", "classic", "quorum", "no such type", 5)
    redeclare(main, "x-queue-version", 2, 3)
    redeclare(main, "x-single-active-consumer", True, False, 1)
    redeclare(main, "x-single-active-consumer", False, True, 0, None)
    redeclare(main, "x-unknown", 5, 6, None)


@scenario("5.1")
def which_difference_is_named(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("named first", {"x-expires": 100_000, "x-max-length": 5})
    main.another().declare("named first", durable=True, auto_delete=True)
    main.another().declare("named first", auto_delete=True)
    main.another().declare("named first", {"x-max-length": 6})
    same = {"x-expires": 100_000, "x-max-length": 5}
    main.another().declare("named first", {"x-message-ttl": 5, "x-expires": 1, "x-max-length": 5})
    main.another().declare("named first", {**same, "x-overflow": "no such word"})
    main.declare("named first", {**same, "x-delivery-limit": 5, "x-unknown": 1})
    main.delete("named first")
