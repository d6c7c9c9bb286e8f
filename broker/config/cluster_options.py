"""The options of a cluster, one `ClusterConfig` of them: they make sense together only."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from fluffle.broker.config.config import ClusterConfig, ListenAddress

PREFIX = "cluster_"

FOUNDERS = 3
"""Nodes with the lowest ordinals, unless options say otherwise."""


def with_cluster(fields: dict[str, Any]) -> None:
    """Put `cluster` in the place of the fields that are about it, if there is to be one.

    Reads the file of the secret.  ValueError with what to give instead.
    """
    given = {name: fields.pop(name) for name in tuple(fields) if name.startswith(PREFIX)}
    values = {name.removeprefix(PREFIX): value for name, value in given.items()}
    service, size = values.pop("discover", None), values.pop("size", FOUNDERS)
    if service is not None:
        if "peers" in values:
            raise ValueError("--peers and --discover are both given; keep one")
        own = fields.setdefault("node_name", platform.node().partition(".")[0])
        values["peers"] = discovered(service, own, size)
        values["advertise"] = ListenAddress(f"{own}.{service.host}", service.port)
    if "peers" not in values:
        if "listen" in values:
            raise ValueError("--cluster-listen: name the nodes with --peers, or use --discover")
        return  # what else was given is for a cluster alone, and does no harm
    values["secret"] = secret_of(values.pop("secret", None), values.pop("secret_file", None))
    if "tls_cert" not in values and {"tls_key", "tls_ca"} & values.keys():
        raise ValueError("--cluster-tls-key and --cluster-tls-ca need a --cluster-tls-cert")
    if "node_name" not in fields:
        raise ValueError(
            f"--peers: say with --node which of {', '.join(values['peers'])} this node is, or how "
            "one is called that is to join them"
        )
    fields["cluster"] = ClusterConfig(**values)


def discovered(service: ListenAddress, own: str, size: int) -> dict[str, ListenAddress]:
    """Return the nodes of a set of names with ordinals, `own` one of them, that DNS knows by a
    service.

    Kubernetes calls them a StatefulSet and a headless service.  Names are looked up whenever
    a link is dialled, so addresses may change.
    """
    base, dash, ordinal = own.rpartition("-")
    if not (base and dash and ordinal.isdecimal()):
        raise ValueError(
            f"--discover: the name of this node, '{own}', does not end with an ordinal, as in "
            "fluffle-0; give one that does with --node, as DNS knows it, or use --peers"
        )
    names = [f"{base}-{number}" for number in range(size)]
    return {name: ListenAddress(f"{name}.{service.host}", service.port) for name in names}


def secret_of(text: str | None, file: Path | None) -> bytes:
    """Return the secret that was given, as text or as a file."""
    if text is not None and file is not None:
        raise ValueError("--cluster-secret and --cluster-secret-file are both given; keep one")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"--cluster-secret-file: cannot read {file} ({error})") from error
        if not text:
            raise ValueError(f"--cluster-secret-file: {file} is empty; put the secret in it")
    if not text:
        raise ValueError(
            "the nodes of a cluster need a secret that they share; give each the same "
            "--cluster-secret or --cluster-secret-file"
        )
    return text.encode()
