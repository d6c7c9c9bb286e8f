"""A Prometheus of our own: Debian's package, started by hand on a free port of loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.compat.oracle import free_port
from tests.support.process import Process
from tests.support.require import require

READY = "Server is ready to receive web requests"

CONFIG = """
global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}
scrape_configs:
  - job_name: brokers
    static_configs: [{{ targets: {targets} }}]
"""


class Value(NamedTuple):
    """Value in the result of a query, with its labels."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """Prometheus server that scrapes these ports five times a second while it is entered."""

    def __init__(self, folder: Path, ports: Collection[int]) -> None:
        self._folder = folder
        self._targets = [f"127.0.0.1:{port}" for port in ports]
        self._port = free_port()

    def __enter__(self) -> Self:
        program = require("prometheus")
        config = self._folder / "prometheus.yml"
        config.write_text(CONFIG.format(targets=json.dumps(self._targets)))
        options = {
            "config.file": config,
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": f"127.0.0.1:{self._port}",
        }
        command = [program, *(f"--{name}={value}" for name, value in options.items())]
        self._process = Process(command, READY, {"PATH": os.environ["PATH"]})
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._process.kill()

    @property
    def log(self) -> str:
        return self._process.log

    def query(self, expression: str) -> list[Value]:
        """Result of an expression now.  `RuntimeError` if it is malformed."""
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{urlencode({'query': expression})}"
        with urlopen(url, timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
        if told["status"] != "success" or told["data"]["resultType"] != "vector":
            raise RuntimeError(f"{expression}: {told}")
        return [Value(each["metric"], float(each["value"][1])) for each in told["data"]["result"]]
