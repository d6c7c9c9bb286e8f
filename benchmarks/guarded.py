"""Cost of rights and TLS: the same load without them, with topic permissions, and inside TLS."""

import json
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

from benchmarks import load
from benchmarks.brokers import fluffle
from benchmarks.machine import Placement
from benchmarks.measurement import Measurement

PREFIX = "guarded"
LOAD = f"-z -Q {PREFIX} -s 1024 -x topic -q 10 -b 100 -f -w 1000 -u 300 -k 1"
"""1 KiB to a topic exchange with 100 routing keys, confirms, each message acked alone."""

WHAT = "1 KiB, 100 topics"
CHURN = "connection churn"
TIMEOUT_S = 300.0
SALT = b"salt"
HASH = SALT + sha256(SALT + b"guest").digest()


def definitions(folder: Path) -> tuple[str, ...]:
    """Options for a node whose guest may write only to some topics."""
    everything = dict.fromkeys(("configure", "write", "read"), ".*")
    guest = {"user": "guest", "vhost": "/"}
    file = folder / "definitions.json"
    file.write_text(
        json.dumps(
            {
                "users": [
                    {
                        "name": "guest",
                        "password_hash": b64encode(
                            SALT + sha256(SALT + b"guest").digest()
                        ).decode(),
                        "hashing_algorithm": "rabbit_password_hashing_sha256",
                        "tags": [],
                    }
                ],
                "vhosts": [{"name": "/"}],
                "permissions": [guest | everything],
                "topic_permissions": [
                    guest | {"exchange": f"{PREFIX}.x", "write": r"^k\d+\.mid", "read": ".*"}
                ],
            }
        )
    )
    return "--definitions", str(file)


def certificate(folder: Path) -> tuple[str, ...]:
    """Options for a node that listens for TLS too."""
    file = folder / "certificate.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    return "--tls-listen", "127.0.0.1:0", "--tls-cert", str(file)


WAYS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "open": lambda _folder: (),
    "with topic permissions": definitions,
    "through TLS": certificate,
}


def measure(seconds: float, place: Placement) -> list[Measurement]:
    """The load in each way, and connections that come and go through TLS."""
    rows: list[Measurement] = []
    for way, options in WAYS.items():
        is_encrypted = options is certificate
        with (
            TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            fluffle(Path(folder), place.broker, options=options(Path(folder))) as broker,
        ):
            arguments = ["-T", str(seconds), *LOAD.split()]
            run = partial(load.run, broker, place.load, timeout_s=TIMEOUT_S, tls=is_encrypted)
            found = run(arguments)
            rows += [
                Measurement(f"{WHAT}, {way}", found["consume_rate"], "messages/s"),
                Measurement(f"{WHAT}, {way}: CPU", found["broker_cpu_s_per_M"], "µs each"),
            ]
            if is_encrypted:
                found = run(["churn", "-T", str(seconds), "-j", "4"])
                cpu_us = found["broker_cpu_ms_each"] * 1000
                rows += [
                    Measurement(f"{CHURN}, {way}", found["per_s"], "connections/s"),
                    Measurement(f"{CHURN}, {way}: CPU", cpu_us, "µs each"),
                ]
    return rows
