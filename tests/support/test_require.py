"""A missing tool is a reason to skip on a desk and a failure in CI."""

import pytest

from tests.support.require import require, unavailable


def test_a_tool_that_is_there_is_a_path() -> None:
    assert require("sh").endswith("/sh")


def test_a_missing_tool_skips_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUFFLE_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-tool is not installed"):
        require("no-such-tool")


def test_a_missing_tool_fails_where_nothing_may_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUFFLE_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="node packages are not installed"):
        unavailable("node packages are not installed")
