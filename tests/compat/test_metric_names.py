"""Names, types and labels of all that both brokers tell Prometheus, endpoint by endpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import pika
import pytest

from tests.compat.embedded import serving
from tests.compat.metric_names import (
    ENDPOINTS,
    KINDS,
    LABELS,
    OURS,
    THEIRS,
    Named,
    excused,
    names_at,
)
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript

DEADLINE_S = 60.0

Names: TypeAlias = Mapping[str, Mapping[str, Named]]
"""Metrics by endpoint."""

LAST_TOLD = "rabbitmq_channel_messages_acked_total"
"""Once RabbitMQ has labels for this, it has told all that happened: it does so now and then."""


CONFIG = (
    "prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {}\ncollect_statistics_interval = 100"
)


def told_by_rabbitmq(folder: Path) -> Transcript:
    port = free_port()
    with RabbitMQ(folder, CONFIG.format(port), "rabbitmq_prometheus") as node:
        names = names_while_used(node.port, port)
    return {
        path: [
            " ".join((name, named.kind, *sorted(named.labels)))
            for name, named in sorted(of.items())
        ]
        for path, of in names.items()
    }


def read_names(transcript: Transcript) -> Names:
    return {
        path: {
            name: Named(kind, frozenset(labels))
            for name, kind, *labels in (line.split() for line in lines)
        }
        for path, lines in transcript.items()
    }


ASKED = asks("metrics.names", told_by_rabbitmq)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, answers: Answers) -> Names:
    folder = tmp_path_factory.mktemp("rabbitmq")
    return read_names(answers.of(ASKED, lambda: told_by_rabbitmq(folder)))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, answers: Answers) -> Names:
    folder = tmp_path_factory.mktemp("fluffle")
    with serving(folder, answers, "--metrics=127.0.0.1:0") as node:
        return names_while_used(node.port, node.addresses["metrics"][1])


def names_while_used(port: int, metrics_port: int) -> Names:
    """There is one of all that has labels, and a message has gone all ways."""
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("exchange", durable=True)
        for kind in ("classic", "quorum"):
            channel.queue_declare(kind, durable=True, arguments={"x-queue-type": kind})
            channel.queue_bind(kind, "exchange", "key")
        channel.basic_publish("exchange", "key", b"m")
        for kind in ("classic", "quorum"):
            method, _, _ = next(channel.consume(kind))
            assert method is not None
            channel.basic_ack(method.delivery_tag)
            channel.cancel()
        deadline = time.monotonic() + DEADLINE_S
        while not is_told(metrics_port):
            assert time.monotonic() < deadline, "it has not told all"
            connection.process_data_events(0.05)
        return {path: names_at(metrics_port, path) for path in ENDPOINTS}


def is_told(metrics_port: int) -> bool:
    """Or there is no such metric at all."""
    told = names_at(metrics_port, "/metrics/per-object").get(LAST_TOLD)
    return told is None or bool(told.labels)


@pytest.fixture(params=ENDPOINTS, ids=lambda path: path.partition("?")[0])
def endpoint(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_one_of_them_does_not_tell_has_a_reason(
    ours: Names, theirs: Names, endpoint: str
) -> None:
    missing = {name: None for name in theirs[endpoint] if name not in ours[endpoint]}
    more = {name: None for name in ours[endpoint] if name not in theirs[endpoint]}
    assert excused(missing, THEIRS)[0] == set()
    assert excused(more, OURS)[0] == set()


def test_types_and_labels_are_the_same_or_have_a_reason(
    ours: Names, theirs: Names, endpoint: str
) -> None:
    both = {
        name: (named, theirs[endpoint][name])
        for name, named in ours[endpoint].items()
        if name in theirs[endpoint]
    }
    kinds = {
        name: (mine.kind, yours.kind)
        for name, (mine, yours) in both.items()
        if yours.kind not in (mine.kind, "unknown")
    }
    labels = {
        name: (mine.labels, yours.labels)
        for name, (mine, yours) in both.items()
        if mine.labels != yours.labels
    }
    assert {name: kinds[name] for name in excused(kinds, KINDS)[0]} == {}
    assert {name: labels[name] for name in excused(labels, LABELS)[0]} == {}


def test_every_reason_is_needed(ours: Names, theirs: Names) -> None:
    missing = {name: 0 for path in ENDPOINTS for name in theirs[path] if name not in ours[path]}
    more = {name: 0 for path in ENDPOINTS for name in ours[path] if name not in theirs[path]}
    assert excused(missing, THEIRS)[1] == set()
    assert excused(more, OURS)[1] == set()
