"""Section 4.5: exchange types that choose one of what is bound to them.

Where chance or a hash has a say, only what is certain is compared: how many there are in all, that
what belongs together stays together, that each gets its part.
"""

from collections.abc import Callable

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Arguments, Speaker, speaker

CHOOSING = ("x-consistent-hash", "x-random", "x-modulus-hash", "x-local-random")
TYPES = (*CHOOSING, "x-recent-history", "x-jms-topic")


def key_for(kind: str) -> str:
    """A binding key that the type takes."""
    return {"x-consistent-hash": "1", "x-local-random": ""}.get(kind, "k")


def arguments_for(kind: str) -> Arguments:
    """Arguments of a binding that the type takes."""
    return {"rjms_erlang_selector": "true."} if kind == "x-jms-topic" else {}


def counted(main: Speaker, *queues: str) -> list[int]:
    """How many messages are in queues; not written down."""
    other = main.another()
    counts = []
    for queue in queues:
        other.declare(queue, passive=True)
        counts.append(other.client.heard[-1].method.message_count)  # type: ignore[attr-defined]
    other.forget(f"[{other.number}] Queue.DeclareOk(")
    return counts


def confirmed(main: Speaker, publish: Callable[[Speaker], int]) -> None:
    """Publish on a channel of its own, and return when all is in the queues."""
    with main.aside() as other:
        other.confirms()
        assert "Nack []" in other.confirmed(publish(other))


@scenario("4.5")
def types_that_are_declared_again(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        name = f"types {kind}"
        main.declare_exchange(name, kind, durable=True)
        main.declare_exchange(name, kind, durable=True)
        main.declare_exchange(name, kind, {"hash-header": "x", "anything": 1}, durable=True)
        main.declare_exchange(name, passive=True)
        main.another().declare_exchange(name, kind)
        main.another().declare_exchange(name, "direct", durable=True)
        main.another().declare_exchange(name, kind, {"alternate-exchange": "a"}, durable=True)
        main.delete_exchange(name)


@scenario("4.5")
def names_that_are_no_types(peer: Peer) -> None:
    main = speaker(peer)
    for kind in ("x-no-such-type", "X-RANDOM", "x-random ", "x-delayed-messages"):
        main.another().declare_exchange("no type", kind)


@scenario("4.5")
def arguments_of_a_consistent_hash(peer: Peer) -> None:
    main = speaker(peer)
    for arguments in (
        {"hash-header": "h", "hash-property": "message_id"},
        {"hash-header": "h", "hash-property": "none"},
        {"hash-property": "priority"},
        {"hash-property": ""},
        {"hash-property": "Message_id"},
    ):
        main.another().declare_exchange("bad hash", "x-consistent-hash", arguments)
    for name in ("message_id", "correlation_id", "timestamp"):
        main.declare_exchange("good hash", "x-consistent-hash", {"hash-property": name})
        main.delete_exchange("good hash")
    main.declare_exchange("good hash", "x-consistent-hash", {"hash-header": ""})
    main.declare_exchange("good hash", "x-consistent-hash", {"hash-header": "other"})
    main.delete_exchange("good hash")


@scenario("4.5")
def arguments_of_a_hash_that_are_no_strings(peer: Peer) -> None:
    for name in ("hash-header", "hash-property"):
        main = speaker(peer, name)
        main.declare_exchange("odd hash", "x-consistent-hash", {name: 5})


@scenario("4.5")
def weights(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("weights", "x-consistent-hash")
    main.declare("weights q", exclusive=True)
    for key in ("", "x", "1.5", " 1", "1_0", "é", 'a"b', "0", "-1", "-0", "+0", "--1"):
        main.another().bind("weights q", "weights", key)
    for key in ("1", "+2", "007"):
        main.bind("weights q", "weights", key)
        main.unbind("weights q", "weights", key)
    main.bind_exchange("amq.fanout", "weights", "3")
    main.another().bind_exchange("amq.fanout", "weights", "three")
    main.another().bind("weights none", "weights", "three")
    main.unbind("weights q", "weights", "never bound")
    main.delete_exchange("weights")


@scenario("4.5")
def weights_that_are_too_large_since_4_3(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("heavy", "x-consistent-hash")
    main.declare("heavy q", exclusive=True)
    main.bind("heavy q", "heavy", "10000")
    main.unbind("heavy q", "heavy", "10000")
    main.another().bind("heavy q", "heavy", "10001")
    main.delete_exchange("heavy")


@scenario("4.5")
def one_of_all_that_is_bound(peer: Peer) -> None:
    main = speaker(peer)
    for kind in CHOOSING:
        queues = [f"one {kind} {number}" for number in range(4)]
        main.declare_exchange(f"one {kind}", kind)
        for queue in queues:
            main.declare(queue, exclusive=True)
            main.bind(queue, f"one {kind}", key_for(kind))

        def publish(other: Speaker, kind: str = kind) -> int:
            for number in range(200):
                other.publish(f"one {kind}", f"key {number}", mandatory=True)
            return 200

        confirmed(main, publish)
        counts = counted(main, *queues)
        peer.note(f"{kind}: {sum(counts)} in all, everybody has some: {min(counts) > 10}")
        main.delete_exchange(f"one {kind}")


@scenario("4.5")
def nothing_is_bound(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("nothing rest", exclusive=True)
    main.bind("nothing rest", "amq.fanout")
    for kind in TYPES:
        main.declare_exchange(f"nothing {kind}", kind)
        main.publish(f"nothing {kind}", "k", kind, mandatory=True)
        main.expect("Basic.Return")
        main.declare_exchange(f"else {kind}", kind, {"alternate-exchange": "amq.fanout"})
        main.publish(f"else {kind}", "k", kind, mandatory=True)
        main.delete_exchange(f"nothing {kind}")
        main.delete_exchange(f"else {kind}")
    main.drain("nothing rest")


@scenario("4.5")
def weights_are_parts(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("parts", "x-consistent-hash")
    wanted = {"parts 1": 1, "parts 2": 2, "parts 5": 5}
    for queue, weight in wanted.items():
        main.declare(queue, exclusive=True)
        main.bind(queue, "parts", str(weight))

    def publish(other: Speaker) -> int:
        for number in range(1600):
            other.publish("parts", f"key {number}")
        return 1600

    confirmed(main, publish)
    counts = counted(main, *wanted)
    peer.note([abs(n - 200 * each) < 80 for n, each in zip(counts, wanted.values(), strict=True)])
    main.delete_exchange("parts")


def is_together(main: Speaker, queues: list[str], keys: int) -> bool:
    """True if each of so many keys is in one queue alone; its messages have the key as body."""
    found: dict[bytes, set[str]] = {}
    with main.aside() as other:
        for queue in queues:
            while (heard := other.get(queue)).name == "Basic.GetOk":
                found.setdefault(heard.body, set()).add(queue)
    return len(found) == keys and all(len(each) == 1 for each in found.values())


@scenario("4.5")
def what_has_the_same_key_stays_together(peer: Peer) -> None:
    main = speaker(peer)
    ways: dict[str, tuple[str, dict[str, str]]] = {
        "key": ("x-consistent-hash", {}),
        "header": ("x-consistent-hash", {"hash-header": "h"}),
        "message_id": ("x-consistent-hash", {"hash-property": "message_id"}),
        "correlation_id": ("x-consistent-hash", {"hash-property": "correlation_id"}),
        "timestamp": ("x-consistent-hash", {"hash-property": "timestamp"}),
        "modulus": ("x-modulus-hash", {}),
    }
    for way, (kind, arguments) in ways.items():
        queues = [f"together {way} {number}" for number in range(5)]
        main.declare_exchange(f"together {way}", kind, arguments)
        for queue in queues:
            main.declare(queue, exclusive=True)
            main.bind(queue, f"together {way}", "2")

        def publish(other: Speaker, way: str = way) -> int:
            for number in range(90):
                same = number % 30
                key = str(same) if way in ("key", "modulus") else f"other {number}"
                other.publish(
                    f"together {way}",
                    key,
                    str(same),
                    headers={"h": str(same)} if way == "header" else {"n": number},
                    message_id=str(same) if way == "message_id" else str(number),
                    correlation_id=str(same) if way == "correlation_id" else str(number),
                    timestamp=same if way == "timestamp" else number,
                )
            return 90

        confirmed(main, publish)
        counts = counted(main, *queues)
        peer.note(f"{way}: everybody has some {min(counts) > 0}, {is_together(main, queues, 30)}")
        main.delete_exchange(f"together {way}")


@scenario("4.5")
def nothing_to_hash(peer: Peer) -> None:
    """Messages without the header or the property go all the same way."""
    main = speaker(peer)
    for number, arguments in enumerate(
        ({"hash-header": "h"}, {"hash-property": "message_id"}, {"hash-property": "timestamp"})
    ):
        queues = [f"without {number} {queue}" for queue in range(3)]
        main.declare_exchange(f"without {number}", "x-consistent-hash", arguments)
        for queue in queues:
            main.declare(queue, exclusive=True)
            main.bind(queue, f"without {number}", "1")

        def publish(other: Speaker, number: int = number) -> int:
            other.publish(f"without {number}", "a", "x")
            other.publish(f"without {number}", "b", "x", headers={})
            other.publish(f"without {number}", "c", "x", headers={"H": 1}, correlation_id="1")
            return 3

        confirmed(main, publish)
        peer.note(sorted(counted(main, *queues)))
        main.delete_exchange(f"without {number}")


@scenario("4.5")
def a_modulus_hash_leads_where_rabbitmq_says(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("modulus", "x-modulus-hash")
    queues = ["modulus é", "modulus b", "modulus c", "modulus B", "modulus 10"]
    for queue in queues:
        main.declare(queue, exclusive=True)
        main.bind(queue, "modulus", "same")
    keys = ("", "a", "a.b", "é", "twelve octet", "thirteen octe", "k" * 255, *map(str, range(20)))
    for key in keys:
        main.publish("modulus", key, key)
        main.publish("modulus", key, f"{key} CC", headers={"CC": ["another"], "BCC": ["third"]})
    main.unbind("modulus b", "modulus", "same")
    for key in keys:
        main.publish("modulus", key, f"{key} of four")
    for queue in queues:
        main.drain(queue)
    main.delete_exchange("modulus")


@scenario("4.5")
def what_a_local_random_is_bound_to(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("local", "x-local-random")
    main.declare("local q", exclusive=True)
    main.declare("local quorum", {"x-queue-type": "quorum"}, durable=True)
    main.another().bind("local q", "local", "k")
    main.another().bind("local quorum", "local")
    main.another().bind("local quorum", "local", "k")
    main.another().bind("local none", "local")
    main.another().bind_exchange("amq.fanout", "local")
    main.another().bind_exchange("amq.fanout", "local", "k")
    main.publish("local", "any", "nobody is there", mandatory=True)
    main.expect("Basic.Return")
    main.bind("local q", "local")
    main.publish("local", "any", "somebody is there", mandatory=True)
    main.drain("local q")
    main.delete("local quorum")
    main.delete_exchange("local")


@scenario("4.5")
def through_several_exchanges(peer: Peer) -> None:
    main = speaker(peer)
    for kind in CHOOSING:
        front, back, rest = f"front {kind}", f"back {kind}", f"rest {kind}"
        main.declare_exchange(front, "topic")
        main.declare_exchange(back, kind, internal=True)
        main.bind_exchange(back, front, "#")
        queues = [f"behind {kind} {number}" for number in range(3)]
        for queue in (*queues, rest):
            main.declare(queue, exclusive=True)
        for queue in queues:
            main.bind(queue, back, key_for(kind))
        main.bind(rest, front, "#")

        def publish(other: Speaker, front: str = front) -> int:
            for number in range(60):
                other.publish(front, f"{number}.x", str(number))
            return 60

        confirmed(main, publish)
        peer.note(f"{kind}: {sum(counted(main, *queues))} {counted(main, rest)}")
        main.drain(rest)
        main.delete_exchange(front)
        main.delete_exchange(back)
    main.declare_exchange("hash of exchanges", "x-consistent-hash")
    main.declare("hash of exchanges q", exclusive=True)
    for number in range(3):
        main.declare_exchange(f"hashed {number}", "fanout", auto_delete=True)
        main.bind("hash of exchanges q", f"hashed {number}")
        main.bind_exchange(f"hashed {number}", "hash of exchanges", "1")
    for number in range(12):
        main.publish("hash of exchanges", str(number), str(number))
    main.drain("hash of exchanges q")
    main.delete_exchange("hash of exchanges")


@scenario("4.5")
def types_with_auto_delete(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("auto type q", exclusive=True)
    for kind in TYPES:
        main.declare_exchange(f"auto {kind}", kind, auto_delete=True)
        main.bind("auto type q", f"auto {kind}", key_for(kind), arguments_for(kind))
        main.another().delete_exchange(f"auto {kind}", if_unused=True)
        main.unbind("auto type q", f"auto {kind}", key_for(kind), arguments_for(kind))
        main.another().declare_exchange(f"auto {kind}", passive=True)
