"""Policies: RabbitMQ and fluffle refuse, merge and apply the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.policies.policies import merged
from fluffle.broker.policies.validation import OPERATOR_POLICY_KEYS, check_policy
from tests.compat.comparison import difference_of
from tests.compat.embedded import Serving, serving
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript
from tests.compat.test_commands import fluffle_says

VHOST = "policies"
DEADLINE_S = 30.0

DEFINITIONS: list[dict[str, Any]] = [
    {},
    {"max-length": -1},
    {"max-length": "5"},
    {"max-length": 1000.0},
    {"max-length": 1.5, "expires": 0},
    {"max-length": {"a": 1}},
    {"max-length": ["a", 1]},
    {"max-length": 10**20},
    {"max-length": -1, "foo": 1},
    {"foo": 1},
    {"foo": 1, "bar": [True, None]},
    {"alternate-exchange": 5},
    {"dead-letter-exchange": 5},
    {"dead-letter-routing-key": "key"},
    {"dead-letter-routing-key": 1},
    {"dead-letter-strategy": "never"},
    {"dead-letter-strategy": "at-least-once"},
    {"delivery-limit": "x"},
    {"delivery-limit": -1},
    {"message-ttl": True},
    {"message-ttl": -1},
    {"max-length-bytes": -1},
    {"max-in-memory-length": -1},
    {"max-in-memory-bytes": -1},
    {"overflow": "never"},
    {"overflow": None},
    {"queue-mode": "eager"},
    {"queue-version": 3},
    {"queue-version": 1},
    {"queue-leader-locator": "here"},
    {"queue-master-locator": "here"},
    {"queue-master-locator": "min-masters"},
    {"target-group-size": 0},
    {"target-group-size": "a"},
    {"max-age": "5"},
    {"max-age": "0D"},
    {"max-age": "7D"},
    {"initial-cluster-size": -1},
    {"stream-max-segment-size-bytes": 3_000_000_001},
    {"stream-filter-size-bytes": 3},
    {"consumer-timeout": -1},
    {"ha-mode": "all"},
]
"""Definitions of policies, of which some may not be."""


def erlang(text: str) -> str:
    """A binary."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}"/utf8>>'


def evaluated(rabbitmq: RabbitMQ, function: str, arguments: list[str]) -> list[str]:
    """Results of a function of RabbitMQ for each argument, as texts."""
    said = f"[({function})(Each) || Each <- [{','.join(arguments)}]]"
    with TemporaryDirectory() as folder:
        file = Path(folder) / "said"
        rabbitmq.ctl("eval", f"file:write_file({erlang(str(file))}, rabbit_json:encode({said})).")
        texts: list[str] = json.loads(file.read_text())
        return texts


def refusal(definition: dict[str, Any], keys: frozenset[str] | None) -> str:
    try:
        check_policy("p", {"pattern": "", "priority": 0, "definition": definition}, keys)
    except PreconditionFailed as refused:
        return refused.explanation
    return "ok"


def without_breaks(text: str) -> str:
    """Erlang breaks long terms into lines."""
    return " ".join(text.split()).replace(", {", ",{")


def refused_by_rabbitmq(rabbitmq: RabbitMQ, function: str) -> Transcript:
    """Answers of RabbitMQ to each definition."""
    ask = (
        f'fun (D) -> case rabbit_policy:{function}(<<"/">>, <<"p">>, <<"^none$">>, D, 0,'
        ' <<"all">>, <<"me">>) of ok -> <<"ok">>;'
        " {error_string, S} -> unicode:characters_to_binary(S) end end"
    )
    texts = [*map(json.dumps, DEFINITIONS)]
    said = evaluated(rabbitmq, ask, [erlang(text) for text in texts])
    rabbitmq.ctl("clear_policy" if function == "parse_set" else "clear_operator_policy", "p")
    return {text: [without_breaks(each)] for text, each in zip(texts, said, strict=True)}


KEYS = {"parse_set": None, "parse_set_op": OPERATOR_POLICY_KEYS}
"""Allowed keys by the function of RabbitMQ that refuses others."""
REFUSALS = {
    function: asks(f"policies.{function}", refused_by_rabbitmq, said=function) for function in KEYS
}


@pytest.mark.parametrize("function", KEYS)
def test_the_same_is_refused_in_the_same_words(
    function: str, answers: Answers, oracle: Callable[[], RabbitMQ]
) -> None:
    keys = KEYS[function]
    said = answers.of(REFUSALS[function], lambda: refused_by_rabbitmq(oracle(), function))
    for definition in DEFINITIONS:
        # What only 4.3 lets operators say.
        if keys is None or "consumer-timeout" not in definition:
            theirs = said[json.dumps(definition)]
            assert [without_breaks(refusal(definition, keys))] == theirs, definition


def drawn(chance: Random, keys: list[str]) -> dict[str, Any]:
    values: dict[str, Callable[[], Any]] = {
        "delivery-limit": lambda: chance.randint(-2, 5),
        "overflow": lambda: chance.choice(["drop-head", "reject-publish"]),
        "dead-letter-exchange": lambda: chance.choice("ab"),
    }
    chosen = chance.sample(keys, chance.randint(1, len(keys)))
    return {key: values.get(key, lambda: chance.randint(1, 5))() for key in chosen}


def pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of a policy and an operator policy."""
    chance = Random(7)
    of_both = ["expires", "message-ttl", "max-length", "max-length-bytes", "delivery-limit"]
    of_both += ["overflow", "target-group-size", "max-in-memory-bytes"]
    return [
        (drawn(chance, [*of_both, "dead-letter-exchange"]), drawn(chance, of_both))
        for _ in range(60)
    ]


def merged_by_rabbitmq(rabbitmq: RabbitMQ) -> Transcript:
    ask = (
        "fun (T) -> {ok, [P, O]} = rabbit_json:try_decode(T),"
        " L = fun (M) -> [{definition, lists:sort(maps:to_list(M))}] end,"
        " rabbit_json:encode(maps:from_list(rabbit_policy:merge_operator_definitions(L(P), L(O))))"
        " end"
    )
    texts = [*map(json.dumps, pairs())]
    said = evaluated(rabbitmq, ask, [erlang(text) for text in texts])
    return {text: [ordered(each)] for text, each in zip(texts, said, strict=True)}


def ordered(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


ASKED_TO_MERGE = asks("policies.merged", merged_by_rabbitmq)


def test_policies_are_merged_the_same(answers: Answers, oracle: Callable[[], RabbitMQ]) -> None:
    theirs = answers.of(ASKED_TO_MERGE, lambda: merged_by_rabbitmq(oracle()))
    ours = {json.dumps(pair): [json.dumps(merged(*pair), sort_keys=True)] for pair in pairs()}
    assert ours == theirs, difference_of(theirs, ours)


class Operated:
    """A broker with its commands."""

    def __init__(self, port: int, run: Callable[..., str], *, is_ours: bool) -> None:
        self.port = port
        self._run = run
        self._is_ours = is_ours

    def set_policy(self, name: str, pattern: str, *more: str, **definition: Any) -> None:
        self._set("policy", name, pattern, more, definition)

    def set_operator_policy(self, name: str, pattern: str, **definition: Any) -> None:
        self._set("operator_policy", name, pattern, (), definition)

    def _set(
        self, kind: str, name: str, pattern: str, more: tuple[str, ...], definition: dict[str, Any]
    ) -> None:
        said = json.dumps({key.replace("_", "-"): value for key, value in definition.items()})
        words = ["-p", VHOST, name, pattern, said, *more]
        if self._is_ours:
            group = kind.replace("policy", "policies").replace("_", "-")
            self._run(group, "set", *words)
        else:
            self._run(f"set_{kind}", *words)

    def clear_policy(self, name: str) -> None:
        words = ("policies", "clear") if self._is_ours else ("clear_policy",)
        self._run(*words, "-p", VHOST, name)

    def rows(self, what: str, *columns: str) -> list[dict[str, Any]]:
        """Rows listed by name, without empty columns."""
        if self._is_ours:
            text = self._run(what, "list", "--json", "-p", VHOST)
        else:
            asked = () if what == "policies" else columns
            text = self._run("-q", "--formatter", "json", f"list_{what}", "-p", VHOST, *asked)
        found = [{name: row[name] for name in columns} for row in json.loads(text)]
        return sorted(map(plainly, found), key=lambda row: row["name"] or "")


def plainly(row: dict[str, Any]) -> dict[str, Any]:
    """rabbitmqctl prints definitions as pairs, or as text."""
    definition = row.get("definition")
    if isinstance(definition, str):
        row["definition"] = json.loads(definition)
    if "effective_policy_definition" in row:
        row["effective_policy_definition"] = dict(row["effective_policy_definition"] or {})
    return {name: value if value != "" else None for name, value in row.items()}


def took(channel: BlockingChannel, queue: str, count: int) -> list[str]:
    """All messages of a queue, once there are so many: dead letters may be on their way."""
    bodies: list[str] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is not None and body is not None:
            bodies.append(body.decode())
        elif len(bodies) >= count or time.monotonic() > deadline_s:
            return bodies


def declared(channel: BlockingChannel, name: str, **arguments: Any) -> None:
    table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    channel.queue_declare(name, durable=True, arguments=table)


def seen(broker: Operated) -> list[Any]:
    """A conversation in which policies come and go."""
    parameters = pika.ConnectionParameters("127.0.0.1", broker.port, VHOST)
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.confirm_delivery()
    noted: list[Any] = []
    for name, arguments in (
        ("classic", {}),
        ("quorum", {"queue_type": "quorum"}),
        ("argued", {"dead_letter_exchange": "", "dead_letter_routing_key": "grave"}),
        ("short", {"queue_type": "quorum", "max_length": 2}),
        ("grave", {}),
        ("tomb", {}),
    ):
        declared(channel, name, **arguments)
    channel.exchange_declare("plain", "fanout", durable=True)
    channel.exchange_declare(
        "argued", "fanout", durable=True, arguments={"alternate-exchange": "amq.fanout"}
    )
    channel.queue_bind("grave", "amq.fanout")
    channel.queue_bind("tomb", "amq.direct", "key")

    def reject(queue: str) -> None:
        channel.basic_publish("", queue, queue.encode(), mandatory=True)
        method, _, _ = channel.basic_get(queue)
        channel.basic_reject(method.delivery_tag, requeue=False)
        channel.queue_declare(queue, passive=True)

    to_tomb = {"dead_letter_exchange": "", "dead_letter_routing_key": "tomb"}
    broker.set_policy("dead", "^(classic|quorum|argued)$", "--apply-to", "queues", **to_tomb)
    for queue in ("classic", "quorum", "argued"):
        reject(queue)
    noted += [sorted(took(channel, "tomb", 2)), took(channel, "grave", 1)]
    broker.set_policy("limit", "^(quorum|short)$", "--priority", "5", max_length=3)
    broker.set_operator_policy("at most", "^short|^quorum", max_length=1, delivery_limit=0)
    for queue in ("quorum", "short"):
        for number in range(5):
            channel.basic_publish("", queue, str(number).encode(), mandatory=True)
        noted.append(took(channel, queue, 1))
    broker.set_policy("elsewhere", "plain|argued", "--apply-to", "exchanges",
                      alternate_exchange="amq.direct")  # fmt: skip
    for exchange in ("plain", "argued"):
        channel.basic_publish(exchange, "key", exchange.encode(), mandatory=True)
    noted += [took(channel, "tomb", 1), took(channel, "grave", 1)]
    columns = ("name", "policy", "operator_policy", "effective_policy_definition")
    noted += [broker.rows("queues", *columns), broker.rows("exchanges", "name", "policy")]
    noted.append(broker.rows("policies", "name", "pattern", "apply-to", "definition", "priority"))
    for name in ("dead", "limit", "elsewhere"):
        broker.clear_policy(name)
    for queue in ("classic", "quorum"):
        reject(queue)
    noted += [took(channel, "tomb", 0), broker.rows("queues", *columns)]
    connection.close()
    return noted


def seen_of_rabbitmq(rabbitmq: RabbitMQ) -> Transcript:
    rabbitmq.ctl("add_vhost", VHOST)
    rabbitmq.ctl("set_permissions", "-p", VHOST, "guest", ".*", ".*", ".*")
    noted = seen(Operated(rabbitmq.port, rabbitmq.ctl, is_ours=False))
    rabbitmq.ctl("delete_vhost", VHOST)
    return {"notes": [json.dumps(each, sort_keys=True) for each in noted]}


def seen_of_fluffle(fluffle: Serving) -> Transcript:
    def says(*words: str) -> str:
        return fluffle_says(fluffle, *words)

    says("vhosts", "add", VHOST)
    says("permissions", "set", "guest", ".*", ".*", ".*", "--vhost", VHOST)
    noted = seen(Operated(fluffle.port, says, is_ours=True))
    return {"notes": [json.dumps(each, sort_keys=True) for each in noted]}


ASKED_TO_APPLY = asks("policies.applied", seen_of_rabbitmq, Operated.rows)


def test_policies_take_effect_on_what_is_there(
    answers: Answers, oracle: Callable[[], RabbitMQ], tmp_path: Path
) -> None:
    with serving(tmp_path, answers) as fluffle:
        theirs, ours = answers.both(
            ASKED_TO_APPLY,
            lambda: seen_of_rabbitmq(oracle()),
            lambda: seen_of_fluffle(fluffle),
        )
    assert ours == theirs, difference_of(theirs, ours)
