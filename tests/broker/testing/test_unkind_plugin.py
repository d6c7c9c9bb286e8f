"""The option and the mark, as tests of others use them."""

from __future__ import annotations

import pytest

from tests.support.inner_pytest import run_pytest

pytest_plugins = ("pytester",)

TESTS = """
import pytest

def test_plain(amqp):
    raise AssertionError(amqp.faults.in_effect)

@pytest.mark.amqp_unkind(5)
def test_marked(amqp):
    raise AssertionError(amqp.faults.in_effect)

@pytest.mark.amqp_unkind
def test_from_any_seed(amqp):
    assert amqp.faults.in_effect[0].startswith("the broker is unkind, with seed ")
"""


def test_a_mark_makes_the_broker_unkind(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: []",
            "*AssertionError: ?'the broker is unkind, with seed 5'?",
            "*the broker was unkind, and is the same way again with --amqp-unkind=5",
        ]
    )


def test_the_option_makes_it_so_for_all(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = run_pytest(pytester, "--amqp-unkind=9", "-k", "plain or seed")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["--amqp-unkind=9", "*with seed 9*", "*again with --amqp-unkind=9"])
    result = run_pytest(pytester, "-k", "plain", "--amqp-unkind")
    result.stdout.re_match_lines([r"--amqp-unkind=\d+", r".*again with --amqp-unkind=\d+"])


def test_a_file_is_no_seed(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(TESTS)
    result = run_pytest(pytester, "--amqp-unkind", str(path))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*invalid seed value*"])
