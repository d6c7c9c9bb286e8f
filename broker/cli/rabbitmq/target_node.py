"""The node that `-n` names: another one that answers is asked nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fluffle.broker.cli.client import Client, Row
from fluffle.broker.cli.rabbitmq.verb import Failure


class TargetNodeClient:
    """A client that looks who answers before it asks for anything."""

    __slots__ = ("_client", "_is_checked", "_name")

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._is_checked = False

    @property
    def data_dir(self) -> Path:
        return self._client.data_dir

    @property
    def pid(self) -> int:
        """As `Client.pid`; Failure."""
        self._check()
        return self._client.pid

    def call(self, verb: str, **arguments: object) -> Row:
        """As `Client.call`; Failure."""
        self._check()
        return self._client.call(verb, **arguments)

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        """As `Client.rows`; Failure."""
        self._check()
        return self._client.rows(verb, **arguments)

    def _check(self) -> None:
        if self._is_checked:
            return
        found = str(self._client.call("status")["node"])
        if not is_meant(self._name, found):
            raise Failure(
                f"unable to perform an operation on node '{self._name}': it is '{found}' that "
                "answers; name the data directory of the other with --data-dir"
            )
        self._is_checked = True


def is_meant(name: str, node: str) -> bool:
    """Whether a name is a node's: the host may be left out."""
    return name in (node, node.partition("@")[0])
