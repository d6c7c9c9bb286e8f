"""The helper tells a daemon that came up from one that did not."""

from pathlib import Path

import pytest

from tests.support.daemon import Daemon


def test_a_daemon_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "--no-such-option")
    with pytest.raises(RuntimeError, match=r"did not become ready:\n(?s:.*)no-such-option"):
        daemon.start()
    with pytest.raises(RuntimeError, match="not running"):
        daemon.stop()
