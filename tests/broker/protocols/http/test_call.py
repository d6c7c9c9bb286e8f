"""JSON as it comes in bodies: what is none, and what is too much to be read in one turn."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.broker.admin import local_client as module
from fluffle.broker.admin.dispatch import RequestOutcome
from fluffle.broker.protocols.http.call import (
    NESTED_MAX,
    STRETCH_BYTES_MAX,
    VALUES_MAX,
    InvalidJson,
    TooManyValues,
    VerbClient,
    check_stretches,
    check_values,
    parsed,
    release_gil,
)
from fluffle.broker.queues.queue_api import Deferred

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(VALUES, st.booleans())
def test_what_is_json_is_read(value: object, is_ascii: bool) -> None:
    with suppress(UnicodeEncodeError):
        assert parsed(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"NaN", b"[Infinity]", b"-1e999", b"9" * 5000, b"\xff", b'"\xed\xa0\x80"',
        b'"\\ud800"', b'"\\uD83D"', b"[" * 203 + b"]" * 203, b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_none_is_not(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parsed(body)


ESCAPES = (
    "\\ud83d", "\\uDE00", "\\uD800", "\\udfff", "\\ud7ff", "\\ue000", "\\\\", "\\n", "ud83d",
)  # fmt: skip


@given(st.lists(st.sampled_from(ESCAPES)))
@example(["\\\\", "ud83d", "\\uDE00"])
def test_half_a_character_is_found_among_whole_ones(pieces: list[str]) -> None:
    body = f'"{"".join(pieces)}"'
    try:
        value = json.loads(body)
        value.encode()
    except ValueError:
        with pytest.raises(InvalidJson):
            parsed(body.encode())
    else:
        assert parsed(body.encode()) == value


def test_other_threads_may_run_between_two_objects_that_are_read() -> None:
    """The interpreter lets another thread run where a function of Python is called, which the
    scanner, in C, does for each object."""
    count = NESTED_MAX - 1
    body = json.dumps([{str(number): number for number in range(500)}] * count).encode()
    called = 0

    def on_event(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal called
        called += event == "call" and frame.f_code is release_gil.__code__

    usual = sys.getprofile()
    sys.setprofile(on_event)
    try:
        parsed(body)
    finally:
        sys.setprofile(usual)
    assert called == count


def test_both_halves_of_a_character_are_one() -> None:
    assert parsed(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    "value",
    [
        [1] * (VALUES_MAX + 1),
        ["a"] * (VALUES_MAX + 1),
        {str(number): "x" for number in range(VALUES_MAX + 1)},
        {"a": "\\", "b": [1] * VALUES_MAX},
        [[[[[[[[[[]]]]]]]]]] * (VALUES_MAX // 10),
        {"a": [{"": {"": {}}}] * (VALUES_MAX // 3)},
    ],
)
def test_there_is_an_end_to_values(value: object) -> None:
    with pytest.raises(TooManyValues):
        check_values(json.dumps(value).encode() + b" ")


@pytest.mark.parametrize(
    "text", ["," * VALUES_MAX, '"' * VALUES_MAX * 5, '\\",' * VALUES_MAX, "é\n" * VALUES_MAX]
)
def test_there_is_none_to_what_is_in_a_text(text: str) -> None:
    check_values(json.dumps({"a": text, "b": [text]}).encode())
    check_values(json.dumps(text, ensure_ascii=False).encode())


@pytest.mark.parametrize("before", [0, 1, STRETCH_BYTES_MAX, 3 * STRETCH_BYTES_MAX])
@pytest.mark.parametrize("behind", [0, 1, STRETCH_BYTES_MAX])
def test_no_stretch_without_objects_is_longer_than_may_be(before: int, behind: int) -> None:
    front, back = b'[{"a":1},' * (before // 9), b"{}" * (behind // 2)
    check_stretches(front + b"1" * (STRETCH_BYTES_MAX - 10) + b"}" + back)
    for stretch in (b"1" * (STRETCH_BYTES_MAX + 1), b"1" * (STRETCH_BYTES_MAX + 1) + b"}"):
        with pytest.raises(TooManyValues):
            check_stretches(front + stretch + back.replace(b"}", b"{"))


async def test_what_does_not_become_safe_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.0)
    runtime = SimpleNamespace(
        turn=SimpleNamespace(begin=lambda: False),
        commits=SimpleNamespace(ticket=2, durable=1, wait=lambda _waiting, _ticket: None),
    )
    services: Any = SimpleNamespace(runtime=runtime)
    context: Any = None
    dispatcher: Any = SimpleNamespace(ask=lambda _verb, _: RequestOutcome(None, {}, is_change=True))
    with pytest.raises(TimeoutError, match="has not done 'vhosts"):
        await VerbClient(context, services, dispatcher).result("vhosts.add")


class SlowSteps:
    """A verb that takes most of the time of a request for each of its steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_s = self._loop.time()
        monkeypatch.setattr(self._loop, "time", lambda: self._now_s)

    def rows(self) -> Iterator[dict[str, int] | Deferred[None]]:
        for number in range(4):
            self._now_s += module.ANSWER_TIMEOUT_S * 0.75
            step = Deferred[None]()
            self._loop.call_soon(step.answer, None)
            yield step
            yield {"number": number}

    @property
    def asking(self) -> VerbClient:
        runtime = SimpleNamespace(
            turn=SimpleNamespace(begin=lambda: False),
            commits=SimpleNamespace(ticket=1, durable=1),
        )
        services: Any = SimpleNamespace(runtime=runtime)
        dispatcher: Any = SimpleNamespace(
            ask=lambda _verb, _: RequestOutcome(None, self.rows(), is_change=True),
            guarded=lambda make: make(),
        )
        context: Any = None
        return VerbClient(context, services, dispatcher)


async def test_what_changes_many_things_has_its_time_for_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = SlowSteps(monkeypatch)
    assert len(await steps.asking.rows_of_many("queues.grow")) == 4
    with pytest.raises(TimeoutError, match=r"has not done 'queues\.list'"):
        await steps.asking.rows("queues.list")
