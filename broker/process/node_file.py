"""`node.json`: who runs in a data directory and where it listens, for scripts and for messages."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

NODE_FILE = "node.json"


def write_node_file(
    file: Path, node_name: str, version: str, addresses: Mapping[str, tuple[str, int]]
) -> None:
    """Say it of this process, at once or not at all, to the owner alone.  OSError."""
    content = {"node": node_name, "pid": os.getpid(), "addresses": addresses, "version": version}
    draft = file.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    draft.touch(0o600)
    draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draft.replace(file)


def node_pid(file: Path) -> int | None:
    """The process that wrote a node file; None where nobody did, or not for us to read."""
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
