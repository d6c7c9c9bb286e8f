"""What the broker does not do yet.  Remove this file with the issue that brings it."""

import os

import pytest

LATER = pytest.mark.xfail(
    "FLUFFLE_INTEROP_URL" not in os.environ,
    reason="TTL, priorities and limits of classic queues are accepted and not yet in effect",
    strict=True,
)
