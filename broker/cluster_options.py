"""The options of a cluster, one `ClusterConfig` of them: they make sense together only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluffle.broker.config import ClusterConfig

PREFIX = "cluster_"


def with_cluster(fields: dict[str, Any]) -> None:
    """Put `cluster` in the place of the fields that are about it, if there is to be one.

    Reads the file of the secret.  ValueError with what to give instead.
    """
    given = {name: fields.pop(name) for name in tuple(fields) if name.startswith(PREFIX)}
    values = {name.removeprefix(PREFIX): value for name, value in given.items()}
    peers = values.get("peers")
    if peers is None:
        if "listen" in values:
            raise ValueError("--cluster-listen: name the nodes of the cluster with --peers")
        return  # what else was given is for a cluster alone, and hurts nobody
    values["secret"] = secret_of(values.pop("secret", None), values.pop("secret_file", None))
    if "tls_cert" not in values and {"tls_key", "tls_ca"} & values.keys():
        raise ValueError("--cluster-tls-key and --cluster-tls-ca need a --cluster-tls-cert")
    fields["cluster"] = ClusterConfig(**values)


def secret_of(text: str | None, file: Path | None) -> bytes:
    """What was given, in one way or the other."""
    if text is not None and file is not None:
        raise ValueError("--cluster-secret and --cluster-secret-file are both given; keep one")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"--cluster-secret-file: cannot read {file} ({error})") from error
    if not text:
        raise ValueError(
            "the nodes of a cluster need a secret that they share; give each the same "
            "--cluster-secret or --cluster-secret-file"
        )
    return text.encode()
