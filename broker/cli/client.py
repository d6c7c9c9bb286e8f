"""A verb and its arguments in, rows out: over the control socket of a node on this machine.

`remote.py` does the same over the management API of one that is elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from select import select
from types import TracebackType
from typing import Protocol, Self

import click

from fluffle.broker.cli.output import Row, shown
from fluffle.broker.process.data_directory import (
    LOCK_FILE,
    NODE_FILE,
    SOCKET_NAME,
    control_address,
    lock,
    node_pid,
)
from fluffle.protocol.spec import ReplyCode

PING_WAIT_S_MAX = 5.0
"""Time in seconds to wait for the answer to a cheap question: a healthy node needs milliseconds."""

ANSWER_WAIT_S_MAX = 120.0
"""A node that has answered may work for so long on what it was asked."""

NOTICE_AFTER_S = 3.0
"""Time in seconds after which a message at the terminal says that the command waits for the
node."""

READ_BYTES = 1 << 16

CREDENTIALS = struct.Struct("3i")
"""Credentials of the process at the other end of a socket: pid, uid, gid.  See unix(7)."""


class RequestRefused(click.ClickException):
    """Refusal of a request by the node; `code` is that of AMQP, if it is the node's."""

    exit_code = 1

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NodeUnreachable(click.ClickException):
    """Error that no node answers the command."""

    exit_code = 69
    """EX_UNAVAILABLE of sysexits, as RabbitMQ's commands have it."""


class NodeClient(Protocol):
    """Client of a node, on this machine or elsewhere."""

    @property
    def data_dir(self) -> Path:
        """Data directory of the node.  RequestRefused for one that is not on this machine."""

    @property
    def pid(self) -> int:
        """Process of the node.  Refused for one that is not on this machine; Unreachable."""

    def call(self, verb: str, **arguments: object) -> Row:
        """Return the result of a verb that has one; arguments that are None are left out.

        Refused; Unreachable.
        """

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        """Return the rows of a verb that has many, as they come.  Refused; Unreachable."""


class LocalClient:
    """A node that keeps its data in `data_dir`; connected to when it is first asked something."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._connection: socket.socket | None = None
        self._input = bytearray()
        """Bytes of answers that were not taken yet."""
        self._request_id = 0

    def call(self, verb: str, **arguments: object) -> Row:
        """Call a verb as `NodeClient.call` does."""
        self._send(verb, arguments)
        result: Row = self._answer()["result"]
        return result

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        """Return rows as `NodeClient.rows` does."""
        self._send(verb, arguments)
        has_more = True
        while has_more:
            page = self._answer()
            yield from page["rows"]
            has_more = page["more"]

    @property
    def data_dir(self) -> Path:
        return self._data_dir

    @property
    def pid(self) -> int:
        """Process of the node, as the system knows it, and not as the answers claim."""
        pid = pid_of(self._connect())
        if not pid:
            raise RequestRefused("the process of the node cannot be seen from here")
        return pid

    def _connect(self) -> socket.socket:
        if self._connection is None:
            self._connection = self._connected()
            self._ping(self._connection)
        return self._connection

    def _send(self, verb: str, arguments: Row) -> None:
        given = {name: value for name, value in arguments.items() if value is not None}
        self._request_id += 1
        request = {"id": self._request_id, "verb": verb, "arguments": given}
        self._write(self._connect(), request)

    def _ping(self, connection: socket.socket) -> None:
        """Check that the node answers, whatever it says: it may know no ping."""
        connection.settimeout(PING_WAIT_S_MAX)
        self._write(connection, {"verb": "ping"})
        self._line(connection)
        connection.settimeout(ANSWER_WAIT_S_MAX)

    def _write(self, connection: socket.socket, request: Row) -> None:
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._unreachable(f"hung up ({error.strerror})") from error

    def _answer(self) -> Row:
        assert self._connection is not None
        if not self._input and sys.stderr.isatty():
            self._notice(self._connection)
        answer: Row = json.loads(self._line(self._connection))
        if "error" in answer:
            raise RequestRefused(shown(answer["error"]["text"]), answer["error"]["code"])
        return answer

    def _notice(self, connection: socket.socket) -> None:
        """Say so when an answer takes its time."""
        if not select([connection], [], [], NOTICE_AFTER_S)[0]:
            click.echo("the node is at work, waiting for its answer …", err=True)

    def _line(self, connection: socket.socket) -> bytes:
        """Return the next line that comes."""
        searched = 0
        while (end := self._input.find(b"\n", searched)) < 0:
            searched = len(self._input)
            try:
                data = connection.recv(READ_BYTES)
            except TimeoutError as error:
                raise self._silent() from error
            except OSError as error:
                raise self._unreachable(f"hung up ({error.strerror})") from error
            if not data:
                raise self._unreachable("hung up")
            self._input += data
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        return line

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PING_WAIT_S_MAX)
        try:
            with control_address(self.data_dir) as address:
                connection.connect(address)
        except OSError as error:
            connection.close()
            raise self._why(error) from error
        return connection

    def _why(self, error: OSError) -> NodeUnreachable:
        """Error for a connection that could not be made, with advice."""
        place = self.data_dir.absolute()
        pid = running_pid(self.data_dir) if isinstance(error, FileNotFoundError) else None
        if pid is not None:
            return NodeUnreachable(
                f"the node in {place} runs (process {pid}), but its {SOCKET_NAME} is gone; only a "
                "restart makes another"
            )
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            name_it = "name its data directory with --data-dir"
            if cluster := sorted(place.glob(f"cluster/*/{NODE_FILE}")):
                name_it += f", such as {cluster[0].parent}"
            return NodeUnreachable(f"no node runs in {place}; {name_it}")
        if isinstance(error, PermissionError):
            return NodeUnreachable(f"{place / SOCKET_NAME} is for the user that the node runs as")
        if isinstance(error, BlockingIOError | TimeoutError):  # so many wait to be accepted
            return self._silent()
        return self._unreachable(f"cannot be reached ({error.strerror or error})")

    def _silent(self) -> NodeUnreachable:
        pid = node_pid(self.data_dir / NODE_FILE)
        by_name = f" (process {pid})" if pid else ""
        return self._unreachable(f"does not answer{by_name}: it is stopped, or too busy")

    def _unreachable(self, what: str) -> NodeUnreachable:
        return NodeUnreachable(f"the node in {self.data_dir.absolute()} {what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()


def pid_of(connection: socket.socket) -> int:
    """Return the process that listens at the other end; 0 where that is in a namespace of its
    own."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(credentials)[0]
    return pid


def running_pid(data_dir: Path) -> int | None:
    """Return the process of the node that holds a data directory; None where none does."""
    pid = node_pid(data_dir / NODE_FILE)
    if pid is None:
        return None
    try:
        os.kill(pid, 0)
        lock(data_dir / LOCK_FILE).close()
    except BlockingIOError:
        return pid
    except OSError:
        return None
    return None


def rows_everywhere(client: NodeClient, verb: str, **arguments: object) -> Iterator[Row]:
    """Yield the rows of all nodes; of one that says nothing a word on stderr.  Refused;
    Unreachable."""
    for answer in answers_of_nodes(client, verb, arguments):
        if "error" in answer:
            raise refusal(answer)
        yield answer["row"]


def close_everywhere(client: NodeClient, **which: object) -> int:
    """Return how many connections were closed.  Refused if no node has what was meant, or the one
    that has it may not close it; Unreachable."""
    answer = list(answers_of_nodes(client, "connections.close", which))
    done = [each["row"]["closed"] for each in answer if "row" in each]
    if not done and answer:
        why = (each for each in answer if each["error"]["code"] != ReplyCode.NOT_FOUND)
        raise refusal(next(why, answer[0]))
    return sum(done)


def answers_of_nodes(client: NodeClient, verb: str, arguments: Row) -> Iterator[Row]:
    """Yield a `row` or an `error` of a node each."""
    given = {name: value for name, value in arguments.items() if value is not None}
    for answer in client.rows("everywhere.rows", what=verb, arguments=given):
        if "silent" in answer:
            name, reason = shown(answer["node"]), shown(answer["silent"])
            click.echo(f"node '{name}' tells nothing: {reason}", err=True)
        else:
            yield answer


def refusal(answer: Row) -> RequestRefused:
    return RequestRefused(shown(answer["error"]["text"]), answer["error"]["code"])


VOLUMES = (
    "message_bytes", "message_bytes_ready", "message_bytes_unacknowledged", "message_bytes_ram",
    "message_bytes_persistent", "messages_ram", "messages_ready_ram", "messages_unacknowledged_ram",
    "messages_persistent", "memory", "head_message_timestamp",
)  # fmt: skip
"""Measured columns that rabbitmqctl has."""

MORE_VOLUMES = (
    "messages_paged_out", "message_bytes_paged_out", "messages_ready_high",
    "messages_ready_normal", "messages_ready_returned", "messages_dlx", "message_bytes_dlx",
)  # fmt: skip
"""Measured columns that only RabbitMQ's management API has; the last five are of quorum queues."""


def with_volumes(client: NodeClient, rows: Iterable[Row], vhost: str | None) -> Iterator[Row]:
    """Queues with how much is in each, and null for what no node knows."""
    measured = client.rows("queues.volumes", vhost=vhost)
    volumes = {(row["vhost"], row["name"]): row for row in measured}
    nothing = dict.fromkeys((*VOLUMES, *MORE_VOLUMES))
    return ({**nothing, **volumes.get((row["vhost"], row["name"]), {}), **row} for row in rows)
