"""The pages as files: which there are, what is said of them, and that there is nothing else."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from aiohttp import ClientSession

from fluffle.broker.protocols.http.files import StaticFiles, is_known, replies
from fluffle.broker.protocols.http.responses import Refusal
from tests.support.management import Api

FOLDER = Path(str(files("fluffle.broker.protocols.http"))) / "pages"
SERVED = StaticFiles()
SHORT = 320
"""Lines of a file of the pages; one that is longer does more than one thing."""

REFERENCES = {
    ".html": re.compile(r'(?:href|src)="([^"#:]+)"'),
    ".js": re.compile(r'(?:from|import)\(? ?"(\.[^"]+)"'),
    ".css": re.compile(r"url\(([^)]+)\)"),
    ".svg": re.compile(r'href="([^"]+)"'),
}


def sources() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


def test_what_is_on_disk_is_served_and_the_index_twice() -> None:
    paths = {f"/{path.relative_to(FOLDER).as_posix()}" for path in sources()}
    assert {path for path, _reply in replies(FOLDER, "/")} == paths
    assert all(SERVED.reply("GET", path, "").body for path in (*paths, "/"))


def test_what_a_file_refers_to_is_there() -> None:
    for path in sources():
        for reference in REFERENCES[path.suffix].findall(path.read_text(encoding="utf-8")):
            assert (path.parent / reference).is_file(), (path, reference)


def test_all_but_the_index_is_referred_to() -> None:
    found = {FOLDER / "index.html"}
    for path in sources():
        for reference in REFERENCES[path.suffix].findall(path.read_text(encoding="utf-8")):
            found.add((path.parent / reference).resolve())
    assert {path.resolve() for path in sources()} <= {path.resolve() for path in found}


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_file_is_short_and_makes_no_markup_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= SHORT
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "nothing is loaded elsewhere"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.js", "/lib", "/lib/", "//", "", "/../files.py", "/lib/../app.js",
        "/%2e%2e/files.py", "/lib%2fdom.js", "/app.js/", "/./app.js", "/app.js\x00",
        "/index.html?", "/__init__.py",
    ],
)  # fmt: skip
def test_other_paths_lead_nowhere(path: str) -> None:
    with pytest.raises(Refusal) as refused:
        SERVED.reply("GET", path, "")
    assert refused.value.reply.status == 404


def test_nothing_can_be_done_with_a_file() -> None:
    with pytest.raises(Refusal) as refused:
        SERVED.reply("POST", "/", "")
    assert refused.value.reply.status == 405
    assert refused.value.reply.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("known", "is_it"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("", False)],
)
def test_what_a_browser_knows(known: str, is_it: bool) -> None:
    assert is_known('"a"', known) is is_it


@pytest.mark.asyncio(loop_scope="module")
async def test_by_http(api: Api) -> None:
    async with ClientSession() as session:
        async with session.get(f"{api.base}/") as response:
            assert response.status == 200
            assert response.content_type == "text/html"
            assert await response.read() == (FOLDER / "index.html").read_bytes()
            policy = response.headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy)
            assert "unsafe" not in str(policy)
            assert response.headers.getall("cache-control") == ["no-cache"]
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "set-cookie" not in response.headers
            tag = response.headers["etag"]
        known = {"if-none-match": tag}
        async with session.get(f"{api.base}/index.html", headers=known) as response:
            assert response.status == 304
            assert response.headers["etag"] == tag
            assert await response.read() == b""
        async with session.head(f"{api.base}/app.js") as response:
            assert (response.status, response.content_type) == (200, "text/javascript")
            assert int(response.headers["content-length"]) == (FOLDER / "app.js").stat().st_size
        async with session.get(f"{api.base}/app.j") as response:
            assert response.status == 404
