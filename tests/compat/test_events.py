"""amq.rabbitmq.event says of what happens what RabbitMQ's plugin says."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluffle.protocol.properties import Properties
from tests.compat.comparison import difference_of
from tests.compat.embedded import serving
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Peer, Transcript
from tests.compat.test_commands import fluffle_says
from tests.compat.verbs import Speaker, speaker
from tests.support.client import show

OWN = re.compile(
    r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+|<[\w.@-]+\.\d+\.\d+\.\d+>"
    r"|oracle@localhost|fluffle@[\w.-]+"
)
"""Parts of lines that differ from broker to broker and from connection to connection."""
TIMES_AND_PORTS = {"timestamp_in_ms", "connected_at", "port", "peer_port"}
"""Headers of which only the type is compared."""
NOT_SAID = {"metadata", "error"}
"""Headers that fluffle says otherwise, or not."""


class Act(NamedTuple):
    """Something that an operator does, in the words of both command lines."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    stdin: str = ""


COMMANDS = (
    Act(("add_vhost", "v"), ("vhosts", "add", "v")),
    Act(("add_user", "u", "pw"), ("users", "add", "u", "--password-stdin"), "pw"),
    Act(("set_user_tags", "u", "a", "b"), ("users", "tags", "u", "a", "b")),
    Act(("change_password", "u", "other"), ("users", "password", "u", "--password-stdin"), "other"),
    Act(
        ("set_permissions", "-p", "v", "u", "c", "w", "r"),
        ("permissions", "set", "-p", "v", "u", "c", "w", "r"),
    ),
    Act(
        ("set_topic_permissions", "-p", "v", "u", "amq.topic", "w", "r"),
        ("permissions", "topic-set", "-p", "v", "u", "amq.topic", "w", "r"),
    ),
    Act(
        ("set_user_limits", "u", '{"max-connections":5}'),
        ("users", "limits", "u", "--max-connections", "5"),
    ),
    Act(("clear_user_limits", "u", "all"), ("users", "limits", "u", "--max-connections", "none")),
    Act(
        ("set_vhost_limits", "-p", "v", '{"max-queues":5}'),
        ("vhosts", "limits", "v", "--max-queues", "5"),
    ),
    Act(("clear_vhost_limits", "-p", "v"), ("vhosts", "limits", "v", "--max-queues", "none")),
    Act(
        ("clear_topic_permissions", "-p", "v", "u", "amq.topic"),
        ("permissions", "topic-clear", "-p", "v", "u", "amq.topic"),
    ),
    Act(("clear_permissions", "-p", "v", "u"), ("permissions", "clear", "-p", "v", "u")),
    Act(
        ("set_policy", "-p", "v", "p", "^a", '{"max-length":5}', "--apply-to", "queues"),
        ("policies", "set", "-p", "v", "p", "^a", '{"max-length":5}', "--apply-to", "queues"),
    ),
    Act(("clear_policy", "-p", "v", "p"), ("policies", "clear", "-p", "v", "p")),
    Act(
        ("set_operator_policy", "-p", "v", "o", "^a", '{"max-length":5}', "--priority", "2"),
        ("operator-policies", "set", "-p", "v", "o", "^a", '{"max-length":5}', "--priority", "2"),
    ),
    Act(
        ("clear_operator_policy", "-p", "v", "o"),
        ("operator-policies", "clear", "-p", "v", "o"),
    ),
    Act(("set_global_parameter", "g", '{"a":[1]}'), ("global-parameters", "set", "g", '{"a":[1]}')),
    Act(("clear_global_parameter", "g"), ("global-parameters", "clear", "g")),
    Act(("delete_user", "u"), ("users", "delete", "u")),
    Act(
        ("set_vhost_limits", "-p", "v", '{"max-queues":5}'),
        ("vhosts", "limits", "v", "--max-queues", "5"),
    ),
    Act(
        ("set_policy", "-p", "v", "q", "^b", '{"max-length":5}', "--apply-to", "queues"),
        ("policies", "set", "-p", "v", "q", "^b", '{"max-length":5}', "--apply-to", "queues"),
    ),
    Act(("delete_vhost", "v"), ("vhosts", "delete", "v")),
)


def clients(peer: Peer) -> Iterator[str | None]:
    """Actions of clients; yields where all events have come, or names the last one."""
    main = speaker(peer, "main")
    yield None
    classic = {"x-queue-type": "classic"}
    main.declare_exchange("x", "topic", {"alternate-exchange": "y", "x-n": 5}, durable=True)
    main.declare_exchange("x", "topic", {"alternate-exchange": "y"}, durable=True)
    main.declare("q", {**classic, "x-max-length": 5}, durable=True)
    main.declare("own", classic, exclusive=True)
    main.declare("quorum", {"x-queue-type": "quorum"}, durable=True)
    yield None
    main.bind("q", "x", "a.b", {"z": 1})
    main.bind_exchange("amq.fanout", "x", "#")
    yield None
    main.qos(7)
    main.consume("q", "tag", {"x-priority": 3})
    main.cancel("tag")
    main.unbind("q", "x", "a.b", {"z": 1})
    main.bind("q", "x", "k")
    yield None
    main.delete("q")
    main.delete("quorum")
    yield None
    main.delete_exchange("x")
    yield None
    other = main.another()
    other.consume("own", "tag 2", no_ack=True, exclusive=True)
    yield None
    other.cancel("tag 2")
    other.close()
    yield None
    main.declare_exchange("auto", "fanout", auto_delete=True)
    main.bind("own", "auto")
    main.unbind("own", "auto")
    yield None
    main.declare_exchange("auto", "fanout", auto_delete=True)
    main.declare("last", classic)
    main.bind("last", "auto")
    main.delete("last")
    yield None
    main.hang_up()
    main.client.close()  # RabbitMQ waits for that
    yield "connection.closed"


def told(watch: Speaker, last: str | None = None) -> list[str]:
    """Events since the last call that are to be compared; `last` is awaited."""
    found: list[str] = []
    while not found or (last is not None and not any(line.startswith(last) for line in found)):
        watch.declare_exchange("marker", "fanout")
        watch.delete_exchange("marker")
        found += ["", *until_marked(watch)]
    return list(filter(None, found))


def until_marked(watch: Speaker) -> Iterator[str]:
    """Events before the marker was deleted."""
    while True:
        heard = watch.get("events")
        if heard.properties is None:
            continue
        key = heard.method.routing_key  # type: ignore[attr-defined]
        headers = dict(heard.properties.headers or {})
        if headers.get("name") == ("S", b"marker"):
            if key == "exchange.deleted":
                return
        elif is_compared(key, headers):
            yield shown(key, heard.properties, headers)


def is_compared(key: str, headers: Mapping[str, Any]) -> bool:
    """Not RabbitMQ's own affairs, nor what it tells twice."""
    is_twice = key == "consumer.deleted" and "user_who_performed_action" not in headers
    is_own = headers.get("component") == ("S", b"exchange-delete-in-progress")
    return not (is_twice or is_own or key == "vhost.down")


def shown(key: str, properties: Properties, headers: Mapping[str, Any]) -> str:
    said = {
        name: (field[0], "…") if name in TIMES_AND_PORTS else field
        for name, field in headers.items()
        if name not in NOT_SAID
    }
    time = properties.timestamp is not None
    return OWN.sub("…", f"{key} {properties.delivery_mode} {time} {show(said)}")


def history(port: int, operate: Callable[[Act], None]) -> list[str]:
    """All of it, act by act; what one brings about is sorted, for the order may be chance."""
    peer = Peer("127.0.0.1", port)
    watch = speaker(peer, "watch")
    watch.declare("events", exclusive=True)
    watch.bind("events", "amq.rabbitmq.event", "#")
    lines = told(watch)
    try:
        for number, last in enumerate(clients(peer)):
            lines += [f"-- {number}", *sorted(told(watch, last))]
        for act in COMMANDS:
            operate(act)
            lines += [f"-- {act.theirs[0]}", *sorted(told(watch))]
    finally:
        peer.hang_up()
    return lines


def told_by_rabbitmq(folder: Path) -> Transcript:
    with RabbitMQ(folder, plugins="rabbitmq_event_exchange") as rabbitmq:
        lines = history(rabbitmq.port, lambda act: ignore(rabbitmq.ctl(*act.theirs)))
        return {"watch": lines}


def told_by_fluffle(data_dir: Path, answers: Answers) -> Transcript:
    with serving(data_dir, answers, "--event-exchange") as fluffle:

        def operate(act: Act) -> None:
            fluffle_says(fluffle, *act.ours, stdin=act.stdin)

        return {"watch": history(fluffle.port, operate)}


ASKED = asks("events.history", told_by_rabbitmq, Peer.hang_up)


def test_events_are_those_of_rabbitmq(answers: Answers, tmp_path: Path) -> None:
    theirs, ours = answers.both(
        ASKED,
        lambda: told_by_rabbitmq(tmp_path / "rabbitmq"),
        lambda: told_by_fluffle(tmp_path / "fluffle", answers),
    )
    assert len(theirs["watch"]) > 50
    assert ours == theirs, difference_of(theirs, ours)


def ignore(_said: str) -> None:
    """Ignore the output of a command line."""
