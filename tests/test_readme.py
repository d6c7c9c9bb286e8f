"""The README keeps its promises: the example does what it says, and links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fluffle.broker.options import resolve
from tests.support.daemon import Daemon

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.interop
def test_the_example_prints_what_it_published(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    with Daemon(tmp_path) as daemon:
        code = example[1].replace('"localhost"', f'"localhost", {daemon.port}')
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "Hello, rabbits!\n", "")


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/commands.md",
        "docs/configuration.md",
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    file = README.parent / page
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", file.read_text(encoding="utf-8"))
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        target = (file.parent / path).resolve()
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert not heading or heading in {title.lower().replace(" ", "-") for title in headings}


def test_its_options_are_taken() -> None:
    command = re.search(r"^fluffle serve (--.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert command is not None
    words = command[1].split()
    flags: dict[str, list[str]] = {}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        flags.setdefault(flag.removeprefix("--"), []).append(value)
    config = resolve(flags, {}).config
    assert set(config.users) == {"guest", "alice", "bob"}
    assert config.vhosts == ("/", "orders")
