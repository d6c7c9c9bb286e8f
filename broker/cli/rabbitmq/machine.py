"""Diagnostics of the process of a node: memory, log, environment, ciphers."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fluffle.broker.cli.rabbitmq.verb import (
    FLAG,
    TEXT,
    Failure,
    Invocation,
    Report,
    UsageFailure,
    Verb,
)

UNITS: Mapping[str, int] = {
    "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
PREFIXES = ("FLUFFLE_", "RABBITMQ_")
SECRETS = ("PASS", "SECRET", "COOKIE", "URL", "_USER")
"""What the value of a variable with one of these in its name is hidden for."""


def memory_breakdown(call: Invocation) -> Report:
    """Resident memory as one: Python does not tell whose it is."""
    unit = call.options.get("unit", "gb").lower()
    if unit not in UNITS:
        raise UsageFailure(f"unit '{unit}' is not supported; there are {', '.join(UNITS)}")
    used = call.client.call("status")["memory_bytes"] or 0
    text = f"{used}" if unit == "bytes" else f"{used / UNITS[unit]:.4f}"
    content = {"resident": {"bytes": used, "percentage": 100.0}}
    return Report([f"resident: {text} {unit} (100.0%)"], content)


def os_env(_call: Invocation) -> Report:
    """Report the environment of this command, which is mostly that of the node."""
    found = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    shown = {
        name: "***" if any(secret in name for secret in SECRETS) else value
        for name, value in sorted(found.items())
    }
    return Report([f"{name}={value}" for name, value in shown.items()], shown)


def cipher_suites(call: Invocation) -> Report:
    names = [row["name"] for row in call.client.rows("node.ciphers")]
    return Report(names, names)


def tls_versions(_call: Invocation) -> Report:
    return Report(["tlsv1.3", "tlsv1.2"], {"versions": ["tlsv1.3", "tlsv1.2"]})


def log_location(_call: Invocation) -> Report:
    return Report(["<stderr>"], {"log_files": ["<stderr>"]})


def log_tail(_call: Invocation) -> Report:
    raise Failure(
        "the node logs to its standard error, which whoever has started it keeps: journalctl -u "
        "fluffle, docker logs, kubectl logs"
    )


VERBS: Mapping[str, Verb] = {
    "memory_breakdown": Verb(
        memory_breakdown, "", "Reporting memory breakdown on node {node}...",
        options={"unit": TEXT}, note="one number: resident memory",
    ),
    "os_env": Verb(
        os_env, "", "Listing RabbitMQ-specific environment variables defined on node {node}...",
        note="variables of the command, FLUFFLE_* and RABBITMQ_*; those with secrets are hidden",
    ),
    "cipher_suites": Verb(
        cipher_suites, "", "Listing available cipher suites in OpenSSL format",
        options={"format": TEXT, "all": FLAG}, note="of OpenSSL, whatever --format says",
    ),
    "tls_versions": Verb(tls_versions, "", "Listing all TLS versions supported by the runtime..."),
    "log_location": Verb(
        log_location, "", "Log file location(s) on node {node} ...", options={"all": FLAG},
        note="a node logs to its standard error",
    ),
    "log_tail": Verb(
        log_tail, "", options={"number": TEXT},
        note="refused: a node logs to its standard error, and has no file",
    ),
}  # fmt: skip
