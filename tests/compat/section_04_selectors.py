"""Section 4.5: x-jms-topic, whose bindings select messages by compiled JMS selectors."""

from random import Random
from typing import Any

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Arguments, Speaker, speaker
from tests.support.selectors import Drawn, selector

TYPE = "x-jms-topic"
SEED = 4_005

MESSAGES: tuple[dict[str, Any], ...] = (
    {},
    {"s": "blue", "n": 5, "b": True, "f": 2.5},
    {"s": "", "n": ("b", -1), "b": False, "f": ("f", 0.5)},
    {"s": "b%_e", "n": ("s", 300), "f": 0.0},
    {"s": "blé", "n": ("I", -70_000), "f": -2.5},
    {"s": "bl\nue", "n": ("l", 2**53 + 1), "f": 1e300},
    {"s": "'quoted'", "n": 0, "b": True},
    {"s": 'a"b\\c', "n": 2501},
    {"S": "blue", "N": 5},
    {"f": -0.0},
)

SELECTORS = (
    "true",
    "false",
    "1",
    '<<"true">>',
    "{'ident',<<\"b\">>}",
    "{'not',{'ident',<<\"b\">>}}",
    "{'not',{'ident',<<\"n\">>}}",
    "{'is_null',{'ident',<<\"n\">>}}",
    "{'not_null',{'ident',<<\"b\">>}}",
    "{'is_null',{'+',{'ident',<<\"n\">>},1}}",
    "{'=',{'ident',<<\"s\">>},<<\"blue\">>}",
    "{'=',{'ident',<<\"s\">>},<<\"blé\">>}",
    "{'<>',{'ident',<<\"s\">>},<<\"blue\">>}",
    "{'>',{'ident',<<\"s\">>},<<\"b\">>}",
    "{'>',{'ident',<<\"s\">>},5}",
    "{'>',{'ident',<<\"b\">>},5}",
    "{'=',{'ident',<<\"n\">>},5.0}",
    "{'=',{'ident',<<\"n\">>},9007199254740992.0}",
    "{'>=',{'ident',<<\"n\">>},5}",
    "{'<',{'+',{'*',{'ident',<<\"n\">>},2},1},{'-',10}}",
    "{'=',{'/',{'ident',<<\"n\">>},2},2.5}",
    "{'>',{'/',{'ident',<<\"n\">>},{'ident',<<\"f\">>}},1000}",
    "{'>',{'-',{'ident',<<\"f\">>},0.25},{'+',0}}",
    "{'between',{'ident',<<\"n\">>},0,300}",
    "{'not_between',{'ident',<<\"n\">>},{range,0,300}}",
    '{\'between\',{\'ident\',<<"s">>},<<"b">>,<<"c">>}',
    '{\'in\',{\'ident\',<<"s">>},[<<"blue">>,<<"">>,<<"a\\"b\\\\c">>]}',
    "{'not_in',{'ident',<<\"s\">>},[<<\"blue\">>]}",
    "{'in',{'ident',<<\"n\">>},[5.0,2501]}",
    "{'in',{'ident',<<\"n\">>},[]}",
    "{'in',{'ident',<<\"f\">>},[0.0]}",
    "{'in',{'ident',<<\"f\">>},[-0.0]}",
    "{'like',{'ident',<<\"s\">>},<<\"b%\">>,'no_escape'}",
    "{'like',{'ident',<<\"s\">>},<<\"%e\">>,no_escape}",
    "{'like',{'ident',<<\"s\">>},<<\"bl__\">>,'no_escape'}",
    '{\'like\',{\'ident\',<<"s">>},<<"b\\\\%\\\\__">>,<<"\\\\">>}',
    '{\'like\',{\'ident\',<<"s">>},<<"b!%!_e">>,<<"!">>}',
    "{'like',{'ident',<<\"s\">>},<<\"%\n%\">>,'no_escape'}",
    "{'like',{'ident',<<\"s\">>},<<\"\">>,'no_escape'}",
    "{'not_like',{'ident',<<\"s\">>},<<\"%.*%\">>,'no_escape'}",
    "{'not_like',{'ident',<<\"s\">>},<<\"%u%\">>,'no_escape'}",
    "{'and',{'ident',<<\"b\">>},{'=',{'ident',<<\"n\">>},5}}",
    "{'or',{'ident',<<\"b\">>},{'like',{'ident',<<\"s\">>},<<\"b%\">>,'no_escape'}}",
    "{'and',{'not',{'ident',<<\"gone\">>}},{'is_null',{'ident',<<\"gone\">>}}}",
    "{'or',{'ident',<<\"gone\">>},{'not',{'ident',<<\"gone\">>}}}",
    "{'and',1,{'ident',<<\"b\">>}}",
    "{'=',{'/',1,0},{'/',2,0}}",
)


def selecting(text: str) -> Arguments:
    return {"rjms_erlang_selector": text, "rjms_version": "3.4.0"}


def publish_all(main: Speaker, exchange: str, key: str = "k") -> None:
    for number, headers in enumerate(MESSAGES):
        main.publish(exchange, key, str(number), headers=headers)
    main.publish(exchange, key, "no headers")


@scenario("4.5")
def selectors(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("selectors", TYPE, {"rjms_version": "3.4.0"})
    queues = {f"selectors {number}": f"{text}." for number, text in enumerate(SELECTORS)}
    for queue, text in queues.items():
        main.declare(queue, exclusive=True)
        main.bind(queue, "selectors", "", selecting(text))
    publish_all(main, "selectors")
    for queue, text in queues.items():
        peer.note(text)
        main.drain(queue)
    main.delete_exchange("selectors")


@scenario("4.5")
def selectors_that_are_drawn(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("drawn selectors", TYPE)
    drawn = Drawn(Random(SEED))
    texts = [selector(drawn.condition(3)) for _ in range(80)]
    for number, text in enumerate(texts):
        main.declare(f"drawn selectors {number}", exclusive=True)
        main.bind(f"drawn selectors {number}", "drawn selectors", "", selecting(text))
    for number in range(25):
        main.publish("drawn selectors", "k", str(number), headers=drawn.headers())
    for number, text in enumerate(texts):
        peer.note(text)
        main.drain(f"drawn selectors {number}")
    main.delete_exchange("drawn selectors")


@scenario("4.5")
def selectors_with_white_space(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("spaced", TYPE)
    main.declare("spaced q", exclusive=True)
    text = " { '=' ,\t{ident ,<<\"n\">> }\n, + 5}\r\n. "
    main.bind("spaced q", "spaced", "", selecting(text))
    main.publish("spaced", "", "five", headers={"n": 5})
    main.drain("spaced q")
    main.delete_exchange("spaced")


@scenario("4.5")
def selectors_ask_for_no_routing_key(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("no key", TYPE)
    main.declare("no key q", exclusive=True)
    main.bind("no key q", "no key", "a.#", selecting("{'ident',<<\"b\">>}."))
    for key in ("a.b", "c"):
        main.publish("no key", key, key, headers={"b": True, "CC": ["a.c"]}, mandatory=True)
    main.drain("no key q")
    main.delete_exchange("no key")


@scenario("4.5")
def selectors_behind_a_topic(peer: Peer) -> None:
    """Bind selectors as the JMS client does."""
    main = speaker(peer)
    main.declare_exchange("jms.topic", "topic", durable=True)
    main.declare_exchange("jms.sel", TYPE, {"rjms_version": "3"}, durable=True, auto_delete=True)
    main.declare("jms q", exclusive=True)
    main.bind_exchange("jms.sel", "jms.topic", "news")
    main.bind("jms q", "jms.sel", "jms q", selecting("{'>',{'ident',<<\"n\">>},4}."))
    for key, n in (("news", 5), ("news", 4), ("old", 5)):
        main.publish("jms.topic", key, f"{key} {n}", headers={"n": n}, mandatory=True)
    main.drain("jms q")
    main.unbind("jms q", "jms.sel", "jms q", selecting("{'>',{'ident',<<\"n\">>},4}."))
    main.another().declare_exchange("jms.sel", passive=True)
    main.publish("jms.topic", "news", "to nobody", headers={"n": 5}, mandatory=True)
    main.expect("Basic.Return")
    main.delete_exchange("jms.topic")


@scenario("4.5")
def what_no_selector_matches(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("unselected", TYPE, {"alternate-exchange": "amq.fanout"})
    main.declare("unselected q", exclusive=True)
    main.declare("unselected rest", exclusive=True)
    main.bind("unselected rest", "amq.fanout")
    main.bind("unselected q", "unselected", "1", selecting("{'=',{'ident',<<\"n\">>},1}."))
    main.bind("unselected q", "unselected", "2", selecting("{'>',{'ident',<<\"n\">>},0}."))
    for n in (0, 1, 2):
        main.publish("unselected", "", str(n), headers={"n": n}, mandatory=True)
    main.drain("unselected q")
    main.drain("unselected rest")
    main.unbind("unselected q", "unselected", "2", selecting("{'>',{'ident',<<\"n\">>},0}."))
    for n in (0, 1, 2):
        main.publish("unselected", "", str(n), headers={"n": n}, mandatory=True)
    main.drain("unselected q")
    main.drain("unselected rest")
    main.delete_exchange("unselected")


@scenario("4.5")
def two_selectors_of_one_key(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("one key", TYPE)
    main.declare("one key q", exclusive=True)
    for n in (1, 2):
        main.bind("one key q", "one key", "k", selecting(f"{{'=',{{'ident',<<\"n\">>}},{n}}}."))
    for n in (1, 2, 3):
        main.publish("one key", "", f"n is {n}", headers={"n": n})
    main.drain("one key q")
    main.delete_exchange("one key")


@scenario("4.5")
def selectors_that_cannot_be(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("no selector", TYPE)
    main.declare("no selector q")
    cases: tuple[Arguments, ...] = (
        {},
        {"rjms_erlang_selector": 5},
        *map(selecting, ("", ".", "{", "{'=',1", "true..", "true. false.", '<<"a', "$", "n = 5")),
    )
    for number, arguments in enumerate(cases):
        other = speaker(peer, f"case {number}")
        other.bind("no selector q", "no selector", f"key {number}", arguments)
    main.publish("no selector", "k", "lost", headers={"n": 5})
    main.drain("no selector q")
    main.delete("no selector q")
    main.delete_exchange("no selector")


@scenario("4.5")
def selectors_that_rabbitmq_refuses_since_4_3(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("bad selector", TYPE)
    main.declare("bad selector q", exclusive=True)
    for text in (
        "{'unheard_of',1,2}.",
        '{\'like\',{\'ident\',<<"s">>},<<"a">>,<<"!!">>}.',
        "{'like',{'ident',<<\"s\">>},5,'no_escape'}.",
        f"{{'like',{{'ident',<<\"s\">>}},<<\"{'a' * 1025}\">>,'no_escape'}}.",
        "{'not'," * 101 + "true" + "}" * 101 + ".",
    ):
        main.another().bind("bad selector q", "bad selector", "", selecting(text))
    main.delete_exchange("bad selector")


@scenario("4.5")
def a_selector_with_a_regular_expression(peer: Peer) -> None:
    """The JMS client makes none."""
    main = speaker(peer)
    main.declare_exchange("regex", TYPE)
    main.declare("regex q", exclusive=True)
    text = "{'like',{'ident',<<\"s\">>},regex,<<\"a+\">>}."
    main.another().bind("regex q", "regex", "", selecting(text))
    main.delete_exchange("regex")


@scenario("4.5")
def headers_that_a_selector_cannot_use(peer: Peer) -> None:
    main = speaker(peer)
    cases: tuple[tuple[str, object], ...] = (
        ("{'>',{'+',{'ident',<<\"h\">>},1},0}.", "text"),
        ("{'=',{'-',{'ident',<<\"h\">>}},0}.", True),
        ("{'like',{'ident',<<\"h\">>},<<\"%\">>,'no_escape'}.", 5),
        ("{'=',{'ident',<<\"h\">>},1}.", ("T", 1)),
        ("{'=',{'ident',<<\"h\">>},1}.", None),
        ("{'>',{'*',{'ident',<<\"h\">>},1.0e300},0}.", 1e300),
        ("{'in',{'ident',<<\"h\">>},<<\"text\">>}.", "text"),
    )
    for number, (text, value) in enumerate(cases):
        name = f"useless {number}"
        main.declare_exchange(name, TYPE)
        main.declare(name)
        main.bind(name, name, "", selecting(text))
        other = speaker(peer, f"case {number}")
        other.publish(name, "", "lost", headers={"h": value})
        other.get(name)
        main.delete(name)
        main.delete_exchange(name)
