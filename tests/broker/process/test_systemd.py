"""sd_notify over real sockets of both kinds."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fluffle.broker.process.systemd import READY, STOPPING, notify
from tests.support.deadlines import DEADLINE_S


def path_name(folder: Path) -> str:
    return str(folder / "notify")


def abstract_name(_folder: Path) -> str:
    if not sys.platform.startswith("linux"):
        pytest.skip("abstract socket names are Linux's")
    return f"@fluffle-test-{os.getpid()}"


@pytest.mark.parametrize("make_name", [path_name, abstract_name])
def test_the_manager_is_told(make_name: Callable[[Path], str], tmp_path: Path) -> None:
    name = make_name(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(DEADLINE_S)
        for state in (READY, STOPPING):
            assert notify(state, {"NOTIFY_SOCKET": name})
            assert manager.recv(64) == state.encode()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_manager_nobody_is_told(environment: dict[str, str]) -> None:
    assert not notify(READY, environment)


def test_a_manager_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "gone")})
