"""Content of an installed fluffle: one import package, whole, typed, and a command."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
"""Installed name -> folder in the repository."""

IMPORT_ALL = """
import importlib, sys
installed, *names = sys.argv[1:]
sys.path.insert(0, installed)
for name in names:
    module = importlib.import_module(name)
    assert module.__file__.startswith(installed), module.__file__
"""


def modules_on_disk() -> Iterator[str]:
    """Installed names of all modules; a package counts as its `__init__`."""
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *parts))


def pages_on_disk() -> Iterator[str]:
    """Files that the management port serves, by their installed paths."""
    folder = ROOT / "broker" / "protocols" / "http"
    for path in (folder / "pages").rglob("*.*"):
        yield f"fluffle/broker/protocols/http/{path.relative_to(folder).as_posix()}"


def test_every_folder_with_modules_is_listed() -> None:
    folders = {name.rpartition(".")[0] for name in modules_on_disk()}
    assert folders == set(SETUPTOOLS["packages"])


def test_every_listed_folder_is_a_package() -> None:
    inits = {f"{package}.__init__" for package in SETUPTOOLS["packages"]}
    assert inits - set(modules_on_disk()) == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a source distribution built from a clean copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS.values():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    out = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", str(out), str(source))
    return next(out.glob("*.whl"))


def run(*arguments: str) -> None:
    """Run this interpreter; -I keeps the checkout off its path."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-I", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow("a wheel is built and installed")
def test_the_wheel_holds_fluffle_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {name.removesuffix(".py").replace("/", ".") for name in packed if name[-3:] == ".py"}
    assert modules == set(modules_on_disk())
    assert {name.partition("/")[0] for name in packed} == {"fluffle"}
    typed = {f"{package.replace('.', '/')}/py.typed" for package in FOLDERS}
    assert {name for name in packed if name[-3:] != ".py"} == typed | set(pages_on_disk())


@pytest.mark.slow("a wheel is built and installed")
def test_the_installed_wheel_imports_whole_and_brings_the_command(
    wheel: Path, tmp_path: Path
) -> None:
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(wheel))
    names = sorted(name.removesuffix(".__init__") for name in modules_on_disk())
    run("-c", IMPORT_ALL, str(tmp_path), *names)
    assert (tmp_path / "bin" / "fluffle").is_file()
