"""The client's end of the control socket: a verb and its arguments in, rows out."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import click

from fluffle.broker.control_address import SOCKET_NAME, control_address

Row: TypeAlias = dict[str, Any]

ANSWER_WAIT_S_MAX = 120.0
"""A node that says nothing for so long is not going to."""


class Refused(click.ClickException):
    """The node does not do it, and says why."""

    exit_code = 1


class Unreachable(click.ClickException):
    """There is no node that could do it."""

    exit_code = 69
    """EX_UNAVAILABLE of sysexits, as RabbitMQ's commands have it."""


class Client:
    """A node that keeps its data in `data_dir`; connected to when it is first asked something."""

    __slots__ = ("_connection", "_data_dir", "_lines", "_request_id")

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._connection: socket.socket | None = None
        self._lines: BufferedReader | None = None
        """What comes from the connection.  Invariant: None while that is."""
        self._request_id = 0

    def call(self, verb: str, **arguments: object) -> Row:
        """The result of a verb that has one; arguments that are None are left out.

        Refused; Unreachable.
        """
        self._send(verb, arguments)
        result: Row = self._answer()["result"]
        return result

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        """The rows of a verb that has many, as they come.  Refused; Unreachable."""
        self._send(verb, arguments)
        has_more = True
        while has_more:
            page = self._answer()
            yield from page["rows"]
            has_more = page["more"]

    def _send(self, verb: str, arguments: Row) -> None:
        given = {name: value for name, value in arguments.items() if value is not None}
        self._request_id += 1
        request = {"id": self._request_id, "verb": verb, "arguments": given}
        if self._connection is None:
            self._connection = self._connected()
            self._lines = self._connection.makefile("rb")
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._unreachable(f"hung up ({error.strerror})") from error

    def _answer(self) -> Row:
        assert self._lines is not None
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise self._unreachable("does not answer") from error
        except OSError as error:
            raise self._unreachable(f"hung up ({error.strerror})") from error
        if not line:
            raise self._unreachable("hung up")
        answer: Row = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"]["text"])
        return answer

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_WAIT_S_MAX)
        try:
            with control_address(self._data_dir) as address:
                connection.connect(address)
        except OSError as error:
            connection.close()
            raise self._why(error) from error
        return connection

    def _why(self, error: OSError) -> Unreachable:
        """What to tell about a connection that could not be made."""
        place = self._data_dir.absolute()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            return Unreachable(f"no node runs in {place}; name its data directory with --data-dir")
        if isinstance(error, PermissionError):
            return Unreachable(f"{place / SOCKET_NAME} is for the user that the node runs as")
        return self._unreachable(f"cannot be reached ({error.strerror or error})")

    def _unreachable(self, what: str) -> Unreachable:
        return Unreachable(f"the node in {self._data_dir.absolute()} {what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._connection is not None and self._lines is not None:
            self._lines.close()
            self._connection.close()
