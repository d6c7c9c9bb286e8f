"""Log lines: one an event, whatever the values hold, and no password."""

import errno
import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.logs import (
    VALUE_LENGTH_MAX,
    configure,
    event,
    json_line,
    reason_of,
    set_level,
    text_line,
)
from tests.support.call_count import calls_of

logger = logging.getLogger("tests.logs")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(format_name: str, level: str = "info", name: str = "ready", **fields: object) -> str:
    stream = io.StringIO()
    configure(format_name, level, stream)
    event(logger, logging.INFO, name, **fields)
    return stream.getvalue()


def test_a_text_line() -> None:
    line = logged("text", node="a@b", port=5672, client=None, path="a b", empty="")
    assert re.fullmatch(TIME + ' info ready node=a@b port=5672 path="a b" empty=""\n', line)


def test_a_json_line() -> None:
    line = logged("json", node="ö", port=5672, client=None, on=True, raw=b"\xff")
    values = json.loads(line)
    assert re.fullmatch(TIME, values.pop("time"))
    assert values == {
        "level": "info",
        "event": "ready",
        "node": "ö",
        "port": 5672,
        "on": True,
        "raw": "\\xff",
    }
    assert line.count("\n") == 1


@pytest.mark.parametrize("value", ["x" * 60_000, b"x" * 60_000])
def test_a_long_value_is_cut(value: str | bytes) -> None:
    line = logged("text", client_id=value, next=1)
    assert line.endswith(f'client_id="{"x" * VALUE_LENGTH_MAX}... (60000 in all)" next=1\n')


def test_a_value_of_the_greatest_length_is_whole() -> None:
    value = "x" * VALUE_LENGTH_MAX
    assert logged("text", client_id=value).endswith(f"client_id={value}\n")


def test_the_level_decides() -> None:
    assert logged("text", level="warning") == ""
    assert logged("text", level="debug") != ""


@pytest.mark.parametrize("format_name", ["text", "json"])
def test_no_password_is_written(format_name: str) -> None:
    line = logged(format_name, user="guest", password="hunter2", cluster_secret="s3cret")
    assert "hunter2" not in line
    assert "s3cret" not in line
    assert "guest" in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain/ö:1", "plain/ö:1"),
        ("two words", '"two words"'),
        ('say "hi"', r'"say \"hi\""'),
        ("a=b", '"a=b"'),
        ("line\nbreak", r'"line\nbreak"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("\u2028", r'"\u2028"'),
        ("\udcff", r'"\udcff"'),
    ],
)
def test_values_cannot_break_out_of_a_text_line(value: str, shown: str) -> None:
    values = {"time": "t", "level": "info", "event": "e", "key": value}
    assert text_line(values) == f"t info e key={shown}"


@given(st.text(), st.text())
def test_any_text_stays_on_its_line(name: str, value: str) -> None:
    values = {"time": "t", "level": "info", "event": name, "key": value}
    assert len(text_line(values).splitlines()) == 1
    assert text_line(values).isprintable()
    assert json.loads(json_line(values))["key"] == value


@pytest.mark.parametrize("format_name", ["text", "json"])
def test_a_traceback_is_a_field(format_name: str) -> None:
    stream = io.StringIO()
    configure(format_name, "info", stream)
    try:
        raise ValueError("broken\nthing")
    except ValueError:
        logger.exception("a handler failed on %s", "channel 1")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "a handler failed on channel 1" in line
    assert "ValueError: broken" in line


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionResetError(), "ConnectionResetError"),
        (OSError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (ValueError("no header"), "no header"),
    ],
)
def test_a_reason_is_never_empty(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_what_is_logged_for_somebody_else_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log exchange has a level of its own."""
    stream = io.StringIO()
    configure("text", "info", stream)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    event(logger, logging.DEBUG, "unwritten")
    set_level(logging.DEBUG)
    event(logger, logging.DEBUG, "written")
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == ["written"]


def test_a_filter_of_the_handler_is_asked() -> None:
    stream = io.StringIO()
    configure("text", "info", stream)
    (handler,) = logging.getLogger().handlers
    handler.addFilter(lambda record: record.msg != "unwanted")
    event(logger, logging.INFO, "unwanted")
    event(logger, logging.INFO, "wanted", client="a b")
    assert re.fullmatch(rf'{TIME} info wanted client="a b"\n', stream.getvalue())


LINE_CALLS_MAX = 40
"""Most calls, of Python's functions and of C's, of an event that is logged; in a new second it is
two more."""


def test_a_line_costs_few_calls() -> None:
    configure("text", "info", io.StringIO())

    def log() -> None:
        event(logger, logging.INFO, "connection_opened", connection="a -> b", user="guest")

    log()
    assert calls_of(log) <= LINE_CALLS_MAX
