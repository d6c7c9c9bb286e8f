"""Sections 4 to 4.4: alternate exchanges, and what each type of exchange makes of a message."""

from fluffle.protocol.wire import PlainValue
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Arguments, speaker


@scenario("4")
def an_alternate_takes_what_is_not_routed(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("alt q", exclusive=True)
    main.declare("alt rest", exclusive=True)
    main.declare_exchange("alt 3", "fanout", internal=True)
    main.declare_exchange("alt 2", arguments={"alternate-exchange": "alt 3"})
    main.declare_exchange("alt 1", arguments={"alternate-exchange": "alt 2"})
    main.declare_exchange("alt front", "fanout")
    main.bind("alt q", "alt 1", "k")
    main.bind("alt rest", "alt 3")
    main.bind_exchange("alt 1", "alt front")
    main.bind("alt q", "alt front")
    main.publish("alt 1", "k", "matched", mandatory=True)
    main.publish("alt 1", "other", "not matched twice", mandatory=True)
    main.publish("alt 1", "other", "matched by CC", headers={"CC": ["k"]})
    main.publish("alt 1", "other", "not even by CC", headers={"CC": ["another"]})
    main.publish("alt front", "other", "matched at the front, not behind it")
    main.drain("alt q")
    main.drain("alt rest")
    for name in ("alt 1", "alt 2", "alt 3", "alt front"):
        main.delete_exchange(name)


@scenario("4")
def alternates_that_lead_nowhere(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("dead end q", exclusive=True)
    main.declare_exchange("end missing", arguments={"alternate-exchange": "end of none"})
    main.declare_exchange("end loop a", arguments={"alternate-exchange": "end loop b"})
    main.declare_exchange("end loop b", arguments={"alternate-exchange": "end loop a"})
    main.declare_exchange("end itself", arguments={"alternate-exchange": "end itself"})
    main.declare_exchange("end default", arguments={"alternate-exchange": ""})
    main.declare_exchange("end matched", arguments={"alternate-exchange": "amq.fanout"})
    main.declare_exchange("end empty", "fanout")
    main.bind_exchange("end empty", "end matched", "dead end q")
    main.bind("dead end q", "amq.fanout", "dead end q")
    names = ("missing", "loop a", "itself", "default", "matched")
    for name in names:
        main.publish(f"end {name}", "dead end q", name, mandatory=True)
    main.expect("Basic.Return", len(names))
    main.drain("dead end q")
    for name in (*names, "loop b", "empty"):
        main.delete_exchange(f"end {name}")


@scenario("4.1")
def copies_by_cc_and_bcc(peer: Peer) -> None:
    main = speaker(peer)
    queues = ("cc a", "cc b", "cc c")
    for queue in queues:
        main.declare(queue, exclusive=True)
    main.publish("", "cc a", "one", headers={"CC": ["cc b"], "BCC": ["cc c"], "x": "y"})
    main.publish("", "cc a", "never twice", headers={"CC": ["cc a", "cc b", "cc b"]})
    main.publish("", "nowhere", "blind", headers={"BCC": ["cc c"]}, mandatory=True)
    main.publish("", "nowhere", "none", headers={"CC": ["no"], "BCC": ["no"]}, mandatory=True)
    main.publish(
        "", "cc a", "odd ones", headers={"CC": [5, ("x", b"cc b"), None, ["cc b"], "cc c"]}
    )
    main.publish("", "cc a", "empty", headers={"CC": [], "BCC": []})
    main.publish("", "cc a", "other cases", headers={"cc": ["cc b"], "Bcc": ["cc b"]})
    for queue in queues:
        main.drain(queue)


@scenario("4.1")
def cc_that_is_no_array(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("array q", exclusive=True)
    values: tuple[PlainValue, ...] = ("k", 5, True, None, 1.5, {"a": 1}, ("x", b"k"), ("T", 5))
    headers: list[Arguments] = [{name: value} for value in values for name in ("CC", "BCC")]
    for bad in (*headers, {"CC": 4, "BCC": "x"}, {"CC": ["array q"], "BCC": 5}):
        refused = main.another()
        refused.publish("", "array q", headers=bad)
        refused.expect("Channel.Close")
    main.drain("array q")


@scenario("4.1")
def copies_through_each_type(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("copy q", exclusive=True)
    for kind in ("direct", "topic", "fanout", "headers"):
        exchange = f"copy {kind}"
        main.declare_exchange(exchange, kind)
        main.bind("copy q", exchange, "k.*" if kind == "topic" else "k", {"h": 1})
        for header in ("CC", "BCC"):
            main.publish(exchange, "n", f"{kind} {header}", headers={header: ["k", "k.x"], "h": 1})
            main.publish(exchange, "n", f"{kind} {header} other", headers={header: ["x"]})
        main.delete_exchange(exchange)
    main.drain("copy q")


@scenario("4.2")
def direct_compares_bytes(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("bytes q", exclusive=True)
    main.declare_exchange("bytes")
    for key in ("é", "A", "", "#", "k" * 255):
        main.bind("bytes q", "bytes", key)
    for key in ("é", "e", "a", "A", "A ", " ", "", "#", "*", "k" * 255, "k" * 254):
        main.publish("bytes", key, "direct")
    main.drain("bytes q")
    main.delete_exchange("bytes")


@scenario("4.2")
def fanout_ignores_the_key(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("fan a", exclusive=True)
    main.declare("fan b", exclusive=True)
    main.declare_exchange("fan", "fanout")
    main.bind("fan a", "fan", "one")
    main.bind("fan a", "fan", "two")
    main.bind("fan b", "fan")
    for key in ("one", "", "three"):
        main.publish("fan", key, "to all")
    main.drain("fan a")
    main.drain("fan b")
    main.delete_exchange("fan")


TOPIC_KEYS = (
    *("", "a", "ab", "a.b", "a.b.c", "a.b.a.b", ".", "..", "a.", ".a", "a..b", "a.b."),
    *("*", "#", "a.*", "a.#.b"),
)
TOPIC_PATTERNS = (
    *("", "a", ".", "a..b", "*", "*.*", "a.*", "*.a", "*.", ".*", "a.*.b"),
    *("#", "a.#", "#.a", "a.#.b", "#.b", "#.#", "*.#", "#.*", "#.a.#", "#.*.#", "a.#.#"),
    *("a*", "a.b#", "**", "##"),
)


@scenario("4.3")
def topic_patterns(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("topics", "topic")
    for pattern in TOPIC_PATTERNS:
        main.declare(f"topic {pattern}", exclusive=True)
        main.bind(f"topic {pattern}", "topics", pattern)
    for key in TOPIC_KEYS:
        main.publish("topics", key, key)
    for pattern in TOPIC_PATTERNS:
        main.drain(f"topic {pattern}")
    main.delete_exchange("topics")


@scenario("4.3")
def topic_patterns_that_are_unbound(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("unbound", "topic")
    main.declare("unbound q", exclusive=True)
    for pattern in ("a.#", "a.*", "a.b"):
        main.bind("unbound q", "unbound", pattern)
    for pattern in ("a.#", "a.b", "a.*"):
        main.publish("unbound", "a.b", f"before {pattern}")
        main.publish("unbound", "a.c", f"c before {pattern}")
        main.unbind("unbound q", "unbound", pattern)
    main.publish("unbound", "a.b", "after all", mandatory=True)
    main.expect("Basic.Return")
    main.drain("unbound q")
    main.delete_exchange("unbound")


@scenario("4.3")
def more_than_two_hash_words(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("hashes q", exclusive=True)
    main.bind("hashes q", "amq.topic", "#.a.#.b.#")


HEADER_VALUES: tuple[PlainValue, ...] = (
    *(True, False, None, 0, 1, -1, 1.0, 1.5, "1", "a", ""),
    *(("s", 1), ("b", 1), ("B", 1), ("u", 1), ("I", 1), ("i", 1), ("f", 1.0)),
    *(("x", b"1"), ("x", b"a"), ("l", 1000), ("T", 0), ("T", 1), ("T", 1000)),
    *(("D", (0, 1)), ("D", (1, 10))),
    *([], ["a"], [("x", b"a")], [1], [("s", 1)], [None]),
    *({}, {"a": 1}, {"a": ("s", 1)}, {"a": None}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
)


@scenario("4.4")
def header_values_that_are_equal(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("values", "headers")
    for number, value in enumerate(HEADER_VALUES):
        main.declare(f"value {number}", exclusive=True)
        main.bind(f"value {number}", "values", "", {"k": value})
    for value in HEADER_VALUES:
        main.publish("values", "", str(value), headers={"k": value})
    main.publish("values", "", "no headers")
    main.publish("values", "", "empty headers", headers={})
    main.publish("values", "", "another name", headers={"K": 1})
    for number in range(len(HEADER_VALUES)):
        main.drain(f"value {number}")
    main.delete_exchange("values")


MODES = ("all", "any", "all-with-x", "any-with-x")
ASKED: tuple[Arguments, ...] = (
    {},
    *({"x-match": mode} for mode in MODES),
    *({"x-match": mode, "x-b": 2} for mode in MODES),
    *({"x-match": mode, "a": 1, "x-b": 2} for mode in MODES),
    *({"x-match": mode, "a": 1, "b": 1} for mode in ("all", "any")),
    {"a": 1, "x": 1},
    {"x-match": "any", "a": None, "b": 2},
)
GIVEN: tuple[Arguments | None, ...] = (
    *(None, {}, {"a": 1}, {"a": 2, "b": 1}, {"a": None}, {"a": 1, "b": 1}, {"b": 1}, {"b": 2}),
    *({"x-b": 2}, {"a": 1, "x-b": 2}, {"x": 1, "a": 1}, {"x-match": "all"}, {"x-match": "any"}),
)


@scenario("4.4")
def all_and_any_with_and_without_x(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("modes", "headers")
    for number, arguments in enumerate(ASKED):
        main.declare(f"mode {number}", exclusive=True)
        main.bind(f"mode {number}", "modes", "any key", arguments)
    for headers in GIVEN:
        main.publish("modes", "", str(headers), headers=headers)
    for number in range(len(ASKED)):
        main.drain(f"mode {number}")
    main.delete_exchange("modes")


@scenario("4.4")
def an_x_match_that_is_none(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("match q", exclusive=True)
    words = ("foo", "ALL", "", "é", 'a"b\\c', b"\xff")
    for value in (*words, 5, 1.5, True, None, ("x", b"all"), ["all"], {"a": 1}, ("T", 1)):
        main.another().bind("match q", "amq.headers", "", {"x-match": value})
        main.unbind("match q", "amq.headers", "", {"x-match": value})
