"""Benchmark of the disk without a broker: append to a file and sync, by size and by batch."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement

BODY_BYTES = {"100 B": 100, "1 KiB": 1024, "16 KiB": 16384}
BATCHES = (1, 100, 1000)


def rate(file: Path, payload: bytes, seconds: float) -> float:
    """Appends of `payload` a second, each followed by fdatasync."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count, began = 0, time.perf_counter()
    try:
        while (passed := time.perf_counter() - began) < seconds:
            os.write(descriptor, payload)
            os.fdatasync(descriptor)
            count += 1
    finally:
        os.close(descriptor)
    return count / passed


def measure(seconds: float) -> list[Measurement]:
    rows: list[Measurement] = []
    with TemporaryDirectory() as folder:
        for size, body_bytes in BODY_BYTES.items():
            for batch in BATCHES:
                found = rate(Path(folder) / "file", bytes(body_bytes * batch), seconds)
                what = f"append and sync {batch:,} × {size}"
                rows.append(Measurement(what, found * batch, "messages/s"))
    return rows
