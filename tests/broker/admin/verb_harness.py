"""The verbs of a node without a socket: what is asked, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluffle.broker.admin.context import DeferredRow, NodeContext, Row
from fluffle.broker.admin.dispatch import VERBS, Dispatcher, answer_line
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.config.config import Config
from fluffle.broker.runtime.turn import raise_it
from tests.support.call_count import calls_of
from tests.support.edge import Edge
from tests.support.manual_clock import ManualClock
from tests.support.no_cluster import NoCluster


class VerbHarness:
    """A node's edge, its parts, and somebody who asks."""

    def __init__(self, data_dir: Path = Path("data"), *, edge: Edge | None = None) -> None:
        self.edge = edge or Edge()
        self.clock = ManualClock(now_ms=5_000)
        services = self.edge.services
        runtime = replace(services.runtime, clock=self.clock)
        self.context = NodeContext(
            runtime=runtime,
            config=Config(node_name="a", data_dir=data_dir),
            catalogue=self.edge.catalogue,
            metadata=services.metadata,
            connections=services.connections,
            alarms=services.alarms,
            addresses={"amqp": ("127.0.0.1", 5672)},
            started_ms=1_000,
            cluster_view=NoCluster(),
        )
        self.dispatcher = Dispatcher(self.context, VERBS, raise_it)

    def ask(self, verb: str, **arguments: Any) -> Row:
        """The result of a verb that gives one."""
        answer = self._result(verb, arguments)
        assert isinstance(answer, dict), answer
        return answer

    def rows(self, verb: str, **arguments: Any) -> list[Row]:
        """All rows of a verb that gives many, as they are on the wire."""
        answer = self._result(verb, arguments)
        assert not isinstance(answer, dict | BrokerError), answer
        rows: list[Row] = json.loads(json.dumps(list(answer)))
        return rows

    def refusal(self, verb: str, **arguments: Any) -> str:
        """The error of a verb that gives one: `NAME: text`."""
        answer = self._result(verb, arguments)
        if not isinstance(answer, dict | BrokerError):
            answer = self.dispatcher.page(answer)
        assert isinstance(answer, BrokerError), answer
        error = json.loads(answer_line(None, answer))["error"]
        return f"{error['name']}: {error['text']}"

    def most_calls_of_a_turn(
        self, verb: str, *, commit: Callable[[], bool] = bool, **arguments: Any
    ) -> int:
        """How much work the longest turn is until all has been done.

        `commit` says whether it had something to do; it is not counted.
        """
        answers: list[object] = []
        counts: list[int] = []

        def ask() -> None:
            outcome = self.dispatcher.act(
                json.dumps({"verb": verb, "arguments": arguments}).encode()
            )
            if isinstance(outcome.result, DeferredRow):
                outcome.result.begin(answers.append)
            else:
                answers.append(outcome.result)

        counts.append(calls_of(ask))
        while commit() or self.edge.scheduler.is_busy:
            counts.append(calls_of(self.edge.scheduler.turn))
        assert isinstance(answers[0], dict), answers
        return max(counts)

    def _result(self, verb: str, arguments: Row) -> Any:
        request = {"id": 1, "verb": verb, "arguments": arguments}
        outcome = self.dispatcher.act(json.dumps(request).encode())
        assert outcome.request_id == 1
        self.edge.run()
        if not isinstance(outcome.result, DeferredRow):
            return outcome.result
        answers: list[Row | BrokerError] = []
        outcome.result.begin(answers.append)
        self.edge.run()
        (answer,) = answers
        return answer
