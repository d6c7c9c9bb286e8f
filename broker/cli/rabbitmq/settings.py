"""Settings that change while a node runs."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cli.rabbitmq.verb import DATA, Failure, Invocation, Report, UsageFailure, Verb
from fluffle.broker.cli.sizes import ShareOrSize, size_of

LEVELS = ("debug", "info", "warning", "error", "critical", "none")
NAMED: Mapping[str, str] = {
    "emergency": "critical", "alert": "critical", "notice": "warning",
}  # fmt: skip
"""Levels of RabbitMQ that we have not."""


def share_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def watermark(call: Invocation) -> ShareOrSize:
    """`0.4`, or `absolute 2GB`.  Misused."""
    if call.words[0] == "absolute":
        try:
            return ShareOrSize(size_bytes=size_of(call.word(1)))
        except ValueError as error:
            raise UsageFailure(f"Invalid format, {error}", DATA) from error
    share = share_of(call.words[0])
    if share is None or not 0 <= share <= 1:
        raise UsageFailure(
            "Bad argument: The threshold should be a fraction between 0.0 and 1.0", DATA
        )
    return ShareOrSize(share=share)


def free_limit(call: Invocation) -> ShareOrSize:
    """`50MB`, or `mem_relative 1.5`.  Misused."""
    if call.words[0] == "mem_relative":
        share = share_of(call.word(1))
        if share is None or share < 0:
            raise UsageFailure("Bad argument: the ratio should be a number", DATA)
        return ShareOrSize(share=share)
    try:
        return ShareOrSize(size_bytes=size_of(call.words[0]))
    except ValueError as error:
        raise UsageFailure(str(error), DATA) from error


def set_memory_watermark(call: Invocation) -> None:
    call.client.call("node.memory_watermark", **watermark(call).argument())


def set_disk_free_limit(call: Invocation) -> None:
    call.client.call("node.disk_free_limit", **free_limit(call).argument())


def level_of(call: Invocation) -> str:
    """Return a level of logging.  Failure."""
    level = NAMED.get(call.words[-1], call.words[-1])
    if level not in LEVELS:
        raise Failure(f"level {level} is not supported. Try one of {', '.join(LEVELS)}")
    return level


def set_log_level(call: Invocation) -> None:
    call.client.call("node.log_level", level=level_of(call))


def rotate_logs(_call: Invocation) -> None:
    raise Failure("This command does not rotate logs anymore [deprecated]")


def set_cluster_name(call: Invocation) -> None:
    """Set the cluster's name as RabbitMQ keeps it, for those who read it there."""
    call.client.call("global_parameters.set", name="cluster_name", value=f'"{call.words[0]}"')


def suspend_listeners(_call: Invocation) -> Report:
    raise Failure("listeners are not closed alone; use rabbitmq-upgrade drain")


def watermark_banner(call: Invocation) -> str:
    absolute = call.word(0) == "absolute"
    threshold = f"{call.word(1)} bytes" if absolute else call.word(0)
    return f"Setting memory threshold on {call.node} to {threshold} ..."


def disk_banner(call: Invocation) -> str:
    is_share = call.word(0) == "mem_relative"
    limit = f"{call.word(1)} times the total RAM" if is_share else f"{call.word(0)} bytes"
    return f"Setting disk free limit on {call.node} to {limit} ..."


VERBS: Mapping[str, Verb] = {
    "set_vm_memory_high_watermark": Verb(
        set_memory_watermark, "<fraction> | absolute <value>", watermark_banner, (1, 2),
        check=watermark,
    ),
    "set_disk_free_limit": Verb(
        set_disk_free_limit, "<limit> | mem_relative <ratio>", disk_banner, (1, 2),
        check=free_limit,
    ),
    "set_log_level": Verb(
        set_log_level, "[<category>] <level>",
        lambda call: f'Setting log level to "{call.words[-1]}" ...', (1, 2),
        check=level_of,
        note="of everything: a category is accepted",
    ),
    "rotate_logs": Verb(rotate_logs),
    "set_cluster_name": Verb(
        set_cluster_name, "<name>", "Setting cluster name to {0} ...", (1, 1),
        note="kept as the global parameter cluster_name; nodes know each other by --cluster-name",
    ),
    "suspend_listeners": Verb(suspend_listeners, note="refused: drain closes them, and all else"),
}  # fmt: skip
