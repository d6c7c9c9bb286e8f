"""A node in a thread, for commands that block."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from click.testing import CliRunner, Result

from fluffle.broker.__main__ import main
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.node import Node
from tests.support.deadlines import DEADLINE_S


class RunningNode:
    """A node that serves while this is entered, and the commands that are run against it."""

    def __init__(self, data_dir: Path, *, has_mqtt: bool = False) -> None:
        anywhere = ListenAddress("127.0.0.1", 0)
        mqtt = MqttConfig(listen=(anywhere,) if has_mqtt else ())
        self.config = Config(node_name="a", data_dir=data_dir, listen=anywhere, mqtt=mqtt)
        self.port = self.mqtt_port = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        node = Node(self.config)
        try:
            await node.start()
            if self.config.mqtt.listen:
                self.mqtt_port = node.addresses["mqtt"][1]
            self.port = node.addresses["amqp"][1]
        finally:
            self._started.set()
        await self._stop.wait()
        await node.stop("test")

    def __enter__(self) -> Self:
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        assert self._started.wait(DEADLINE_S)
        assert self.port, "the node did not start"
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_S)

    def run(self, *words: str, **more: Any) -> Result:
        """Run a command; returns its result."""
        return run(*words, "--data-dir", str(self.config.data_dir), **more)

    def output(self, *words: str, **more: Any) -> str:
        """Output of a command, which must succeed."""
        result = self.run(*words, **more)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refusal(self, *words: str, **more: Any) -> str:
        """The sentence of a command that must have been refused."""
        result = self.run(*words, **more)
        assert result.exit_code == 1, result.output
        return result.stderr.removeprefix("Error: ").rstrip()


def run(*words: str, **more: Any) -> Result:
    """A command as a shell would run it."""
    return CliRunner().invoke(main, words, **more)
