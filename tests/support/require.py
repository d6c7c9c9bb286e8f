"""Requirements of tests beyond Python: skip without them, or fail where nothing may be skipped.

`FLUFFLE_REQUIRE_ALL=1`, as `.ci/run` sets it, turns every such skip into a failure.
"""

import os
import shutil
from typing import NoReturn

import pytest

SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
"""Where Debian keeps daemons, and where a user's PATH does not look."""


def require(tool: str) -> str:
    """The path of the program `tool`; without it the calling test ends here."""
    search_path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS))
    return shutil.which(tool, path=search_path) or unavailable(f"{tool} is not installed")


def unavailable(reason: str) -> NoReturn:
    """End the calling test or module: skipped for `reason`, or failed where none may be."""
    if os.environ.get("FLUFFLE_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
