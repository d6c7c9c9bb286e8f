"""Requests of the management API as clients: what they are to events and limits, and what is said
of a refusal that is long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.compat.comparison import difference_of
from tests.compat.embedded import serving
from tests.compat.http import Http, HttpAnswer
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Peer, Transcript
from tests.compat.test_events import told
from tests.compat.verbs import Speaker, speaker

CONFIG = """
    management.tcp.ip = 127.0.0.1
    management.tcp.port = {}
"""
PLUGINS = "rabbitmq_management,rabbitmq_event_exchange"
MESSAGE = {"payload": "x", "payload_encoding": "string", "properties": {}, "routing_key": "q"}
GET = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
CLASSIC = {"durable": True, "arguments": {"x-queue-type": "classic"}}

REQUESTS: tuple[tuple[str, str, object], ...] = (
    ("PUT", "queues/%2F/q", CLASSIC),
    ("PUT", "exchanges/%2F/x", {"type": "topic"}),
    ("POST", "bindings/%2F/e/x/q/q", {"routing_key": "k"}),
    ("DELETE", "bindings/%2F/e/x/q/q/k", None),
    ("DELETE", "queues/%2F/q/contents", None),
    ("POST", "exchanges/%2F/amq.default/publish", MESSAGE),
    ("POST", "queues/%2F/q/get", GET),
    ("POST", "exchanges/%2F/no/publish", MESSAGE),
    ("POST", "queues/%2F/no/get", GET),
    ("DELETE", "exchanges/%2F/x", None),
    ("DELETE", "queues/%2F/q", None),
)

LIMITS = ("user-limits/guest/max-connections", "vhost-limits/%2F/max-connections")
"""A limit of channels is not asked about: RabbitMQ 4.0.5 fails there with 500 and no content."""

LONG = "x" * 250
THERE: tuple[tuple[str, object], ...] = (
    (f"queues/%2F/{LONG}", {"durable": True, "arguments": {"x-max-length": 5}}),
    (f"exchanges/%2F/{LONG}", {"type": "topic"}),
    ("users/poor", {"password": "poor", "tags": "management"}),
    ("permissions/%2F/poor", {"configure": "^$", "write": "^$", "read": "^$"}),
)
POOR = "poor:poor"
REFUSED: tuple[tuple[str, str, object, str], ...] = (
    ("PUT", f"queues/%2F/{LONG}", {"durable": True, "arguments": {"x-max-length": 6}}, ""),
    ("PUT", f"exchanges/%2F/{LONG}", {"type": "fanout"}, ""),
    ("POST", f"bindings/%2F/e/{LONG}/q/n{LONG}", {"routing_key": LONG}, ""),
    ("POST", f"bindings/%2F/e/n{LONG}/q/{LONG}", {"routing_key": LONG}, ""),
    ("PUT", "exchanges/%2F/b", {"type": "n" * 300}, ""),
    ("PUT", f"queues/%2F/p{LONG}", {}, POOR),
    ("POST", f"exchanges/%2F/{LONG}/publish", MESSAGE, POOR),
    ("POST", f"queues/%2F/{LONG}/get", GET, POOR),
    ("DELETE", f"queues/%2F/{LONG}/contents", None, POOR),
    ("POST", "exchanges/%2F/amq.default/publish", {**MESSAGE, "properties": {"user_id": LONG}}, ""),
)
"""Definitions are refused with the whole text, messages with what a client would be told."""


def shown(method: str, path: str, answer: HttpAnswer) -> str:
    """Line about an answer, without messages: of those without properties fluffle says
    otherwise."""
    return f"{method} {path} {answer.status} {answer.content if answer.status >= 400 else ''}"


def told_of_requests(http: Http, watch: Speaker) -> Iterator[str]:
    """Events of each request, sorted: those of a channel and its connection cross."""
    for method, path, body in REQUESTS:
        yield f"-- {shown(method, path, http.ask(method, path, body))}"
        is_client = path.endswith(("amq.default/publish", "/q/get"))
        yield from sorted(told(watch, "connection.closed" if is_client else None))


def answers_under_limits(http: Http) -> Iterator[str]:
    """Each request where its user, or the virtual host, may have no connection."""
    for path in LIMITS:
        yield f"-- {path}"
        assert http.ask("PUT", path, {"value": 0}).status == 204
        for request in REQUESTS:
            yield shown(*request[:2], http.ask(*request))
        assert http.ask("DELETE", path).status == 204


def long_refusals(http: Http) -> Iterator[str]:
    for there, content in THERE:
        assert http.ask("PUT", there, content).status == 201
    for method, path, body, user in REFUSED:
        answer = http.ask(method, path, body, user) if user else http.ask(method, path, body)
        yield shown(method, path, answer)


def heard(port: int, http: Http) -> Transcript:
    peer = Peer("127.0.0.1", port)
    watch = speaker(peer, "watch")
    watch.declare("events", exclusive=True)
    watch.bind("events", "amq.rabbitmq.event", "#")
    told(watch)
    try:
        events = [ADDRESSES.sub("…", line) for line in told_of_requests(http, watch)]
    finally:
        peer.hang_up()
    return {
        "events": events,
        "limits": list(answers_under_limits(http)),
        "long": list(long_refusals(http)),
    }


ADDRESSES = re.compile(r"… \(1\)")
"""Names of channels; those of connections are replaced already."""


def heard_of_rabbitmq(folder: Path) -> Transcript:
    port = free_port()
    with RabbitMQ(folder, CONFIG.format(port), PLUGINS) as rabbitmq:
        return heard(rabbitmq.port, Http(port))


def heard_of_fluffle(folder: Path, answers: Answers) -> Transcript:
    with serving(folder, answers, "--event-exchange", "--management=127.0.0.1:0") as fluffle:
        return heard(fluffle.port, Http(fluffle.addresses["management"][1]))


ASKED = asks("management_clients.heard", heard_of_rabbitmq, Peer.hang_up, Http.ask)


def test_requests_are_clients_as_with_rabbitmq(answers: Answers, tmp_path: Path) -> None:
    theirs, ours = answers.both(
        ASKED,
        lambda: heard_of_rabbitmq(tmp_path / "rabbitmq"),
        lambda: heard_of_fluffle(tmp_path / "fluffle", answers),
    )
    assert ours == theirs, difference_of(theirs, ours)
