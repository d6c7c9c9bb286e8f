"""Packages of node that a folder's package-lock.json names."""

import fcntl
import subprocess
from pathlib import Path

from tests.support.require import require, unavailable


def installed(folder: Path) -> str:
    """The path of node, the packages of `folder` installed."""
    path = require("node")
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of a run need the same
        if not (folder / "node_modules").is_dir():
            install = [require("npm"), "ci", "--no-audit", "--no-fund"]
            npm = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
            if npm.returncode != 0:
                unavailable(f"npm cannot install what {folder} needs: {npm.stderr.strip()}")
    return path
