"""Verbs of `rabbitmqctl`: their arguments, banners, outputs and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol, TypeAlias

from fluffle.broker.cli.client import NodeClient
from fluffle.broker.cli.output import Row

USAGE = 64
DATA = 65
NO_USER = 67
UNAVAILABLE = 69
SOFTWARE = 70
"""Exit codes of sysexits, as RabbitMQ's commands have them."""

FLAG = "flag"
TEXT = "text"

NOT_FOUND = 404


class Failure(Exception):
    """Failure of a verb: its text and the exit code.  `content` is what programs get."""

    def __init__(self, text: str, code: int = UNAVAILABLE, content: Row | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.content = content


class UsageFailure(Failure):
    """Wrong usage of a verb; its usage is printed, too."""

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text, code)


@dataclass(frozen=True, slots=True)
class RowTable:
    """Rows that a verb prints, with their columns."""

    columns: Sequence[str]
    rows: Iterable[Row]
    has_header: bool = True
    has_blank_line: bool = False
    """True if an empty line stands for a table without rows."""
    is_pretty: bool = False
    """True if people see lines around the cells unless they ask for something else."""


@dataclass(frozen=True, slots=True)
class Report:
    """Sentences that a verb prints, and an object for programs."""

    lines: Sequence[str]
    content: Any = None


Output: TypeAlias = RowTable | Report | None


class CommandTime(Protocol):
    """Time of a command that may wait: the module `time` is one."""

    def sleep(self, seconds: float, /) -> None: ...

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Invocation:
    """Arguments of one call of a verb, and the client that it asks."""

    client: NodeClient
    words: Sequence[str]
    options: Mapping[str, str]
    standard_input: Callable[[], str]
    time: CommandTime

    @property
    def vhost(self) -> str:
        return self.options.get("vhost", "/")

    @property
    def node(self) -> str:
        """Name of the node that answers.  Raises `RequestRefused`,
        `NodeUnreachable`."""
        return str(self.client.call("status")["node"])

    def word(self, place: int, default: str = "") -> str:
        return self.words[place] if place < len(self.words) else default

    def named(self, names: Sequence[str], *, in_vhost: bool) -> dict[str, str]:
        """Return the words by these names of arguments, with the virtual host if it is meant."""
        given = dict(zip(names, self.words, strict=True))
        return {**given, "vhost": self.vhost} if in_vhost else given

    def has(self, option: str) -> bool:
        return option in self.options

    def timeout_s(self, default: float) -> float:
        """Return how long to wait at most; so long if nothing was said.  Raises `UsageFailure`."""
        text = self.options.get("timeout")
        if text is None:
            return default
        if text == "infinity":
            return inf
        try:
            return float(text)
        except ValueError as error:
            raise UsageFailure(f"'{text}' is no number of seconds") from error


def anything(_call: Invocation) -> object:
    """Accept whatever was typed."""
    return None


@dataclass(frozen=True, slots=True)
class Verb:
    """A row of a table of verbs."""

    act: Callable[[Invocation], Output]
    takes: str = ""
    """Words and options of the command, as its help has them."""
    banner: str | Callable[[Invocation], str] = ""
    """First line of output, unless suppressed; `{0}` is its first word, `{vhost}` and so on its
    options, `{node}` the node."""
    words: tuple[int, int | None] = (0, 0)
    """How many it takes, at least and at most."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Besides those of all: whether they are a FLAG or have a TEXT."""
    failures: Mapping[int, int] = field(default_factory=dict)
    """Exit codes for errors of the node, by their codes; UNAVAILABLE for others."""
    texts: Mapping[int, str] = field(default_factory=dict)
    """Error texts of RabbitMQ by code, where scripts may look for them."""
    check: Callable[[Invocation], object] = anything
    """Raises `Failure` for what cannot be meant, before anything is said."""
    note: str = ""
    """Difference from RabbitMQ, or empty."""
    columns: tuple[str, ...] = ()
    """Columns of a list, of which its words name some."""


def calls(control_verb: str, *names: str, in_vhost: bool = False) -> Callable[[Invocation], None]:
    """Return the action that calls a verb of the control socket: the words are the arguments
    `names`, beside the virtual host if it takes one."""

    def act(call: Invocation) -> None:
        call.client.call(control_verb, **call.named(names, in_vhost=in_vhost))

    return act


def lists(
    control_verb: str,
    columns: Sequence[str],
    *names: str,
    in_vhost: bool = False,
    has_header: bool = True,
) -> Callable[[Invocation], Output]:
    """Return the action that prints rows of a verb, with arguments as for `calls`."""

    def act(call: Invocation) -> RowTable:
        rows = call.client.rows(control_verb, **call.named(names, in_vhost=in_vhost))
        return RowTable(columns, rows, has_header=has_header)

    return act
