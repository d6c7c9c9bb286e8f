"""The README keeps its promises: the example does what it says, and links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from fluffle.broker.config.options import resolve
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S

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


ROOT = README.parent
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").glob("*.md"))
    if "node_modules" not in page.parts
)
OUTSIDE = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors that links may name behind `#`: headings without what is neither letter, digit nor
    dash."""
    headings = re.findall(
        r"^#+ (.*)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.interop
def test_messages_move_from_one_broker_to_another(tmp_path: Path) -> None:
    """The program of docs/migration.md."""
    text = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    with Daemon(tmp_path / "old") as old, Daemon(tmp_path / "new") as new:
        code = example[1].replace("inactivity_timeout=5", "inactivity_timeout=1")
        for host, daemon in (("old-host:5672", old), ("new-host:5672", new)):
            code = code.replace(host, f"127.0.0.1:{daemon.port}")
        channels = [pika.BlockingConnection(pika.URLParameters(each.url)) for each in (old, new)]
        there, here = (connection.channel() for connection in channels)
        for channel in (there, here):
            channel.queue_declare("orders", durable=True)
        there.confirm_delivery()
        for number in range(5):
            there.basic_publish("", "orders", f"order {number}".encode())
        command = [sys.executable, "-c", code]
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=DEADLINE_S
        )
        assert result.returncode == 0, result.stderr
        bodies = [here.basic_get("orders", auto_ack=True)[2] for _ in range(6)]
        assert bodies == [*(f"order {number}".encode() for number in range(5)), None]
        assert there.basic_get("orders") == (None, None, None)
        for connection in channels:
            connection.close()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for link in OUTSIDE.findall(CODE.sub("", file.read_text(encoding="utf-8"))):
        path, _, heading = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def test_every_page_is_found_from_the_index() -> None:
    found, pages = {ROOT / "docs" / "index.md"}, [ROOT / "docs" / "index.md"]
    while pages:
        page = pages.pop()
        for link in OUTSIDE.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target not in found:
                found.add(target)
                pages.append(target)
    assert {ROOT / page for page in PAGES if page.startswith("docs/")} <= found


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
