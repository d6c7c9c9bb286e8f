"""The command line tools of rabbitmq-c (Debian: amqp-tools): C, blocking, minimal."""

import subprocess
from collections.abc import Callable

import pytest

from tests.support.deadlines import DEADLINE_S
from tests.support.require import require

Name = Callable[[str], str]
Tool = Callable[..., str]


@pytest.fixture(scope="module")
def tool(url: str) -> Tool:
    """Run an amqp-* program against the broker and return what it printed."""

    def run(program: str, *arguments: str, stdin: str = "") -> str:
        result = subprocess.run(
            [require(program), "--url", url, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        if result.returncode != 0:
            raise ToolFailure(result.stderr.strip())
        return result.stdout

    return run


class ToolFailure(Exception):
    """Failure of the tool, with its output to standard error."""


def test_publish_and_get(tool: Tool, name: Name) -> None:
    queue = name("c")
    assert tool("amqp-declare-queue", "--durable", "--queue", queue).strip() == queue
    options = ("--persistent", "--content-type", "text/plain", "--header", "colour: red")
    tool("amqp-publish", "--routing-key", queue, *options, "--body", "hello")
    assert tool("amqp-get", "--queue", queue) == "hello"
    with pytest.raises(ToolFailure):
        tool("amqp-get", "--queue", queue)
    tool("amqp-delete-queue", "--queue", queue)


def test_publish_lines_and_consume_them(tool: Tool, name: Name) -> None:
    queue = name("lines")
    lines = [f"line {number}" for number in range(50)]
    tool("amqp-declare-queue", "--durable", "--queue", queue)
    tool("amqp-publish", "-l", "--routing-key", queue, stdin="".join(f"{line}\n" for line in lines))
    got = tool("amqp-consume", "--queue", queue, "--count", "50", "--prefetch-count", "7", "cat")
    assert "".join(got.split()) == "".join(lines).replace(" ", "")
    assert tool("amqp-delete-queue", "--if-empty", "--queue", queue).strip() == "0"


def test_a_message_is_requeued_when_its_command_fails(tool: Tool, name: Name) -> None:
    queue = name("retry")
    tool("amqp-declare-queue", "--durable", "--queue", queue)
    tool("amqp-publish", "--routing-key", queue, "--body", "try again")
    # It reads the message first: the tool dies of SIGPIPE when a command leaves too early.
    failing = ("--", "sh", "-c", "cat >&2; exit 1")
    tool("amqp-consume", "--queue", queue, "--count", "1", *failing)
    assert tool("amqp-get", "--queue", queue) == "try again"
    tool("amqp-delete-queue", "--queue", queue)


def test_a_large_body(tool: Tool, name: Name) -> None:
    queue, body = name("large"), "0123456789abcdef" * (1 << 16)
    tool("amqp-declare-queue", "--durable", "--queue", queue)
    tool("amqp-publish", "--routing-key", queue, stdin=body)
    assert tool("amqp-consume", "--queue", queue, "--count", "1", "cat") == body
    tool("amqp-delete-queue", "--queue", queue)


def test_errors_reach_the_user(tool: Tool, name: Name) -> None:
    queue = name("missing")
    with pytest.raises(ToolFailure, match=r"404|NOT_FOUND"):
        tool("amqp-get", "--queue", queue)
