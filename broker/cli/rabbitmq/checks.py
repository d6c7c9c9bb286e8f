"""Health checks: alarms, listeners, virtual hosts, quorum, whether a node runs."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from time import ctime

from fluffle.broker.base.features import PROTOCOL_ALIASES
from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.nodes import alarm_text, is_up, listener_line, listeners_of
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    TEXT,
    Failure,
    Invocation,
    Report,
    UsageFailure,
    Verb,
)

CONNECT_WAIT_S = 5.0
ANY_INTERFACE: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Address to try for each address that binds every interface."""


def check_running(call: Invocation) -> Report:
    node = call.node
    if not is_up(call):
        raise Failure(
            f"RabbitMQ on node {node} is not running or has not fully booted yet (check with "
            "is_booting)"
        )
    return Report([f"RabbitMQ on node {node} is fully booted and running"])


def is_running(call: Invocation) -> Report:
    """Report whether the node has booted; Unreachable where none answers."""
    up = is_up(call)
    state = "is fully booted and running" if up else "is not running or has not fully booted yet"
    return Report([f"RabbitMQ {state}"], {"result": up})


def is_booting(call: Invocation) -> Report:
    """Report whether the node has booted; Unreachable where none answers."""
    up = is_up(call)
    state = (
        "is fully booted (check with is_running), stopped or has not started booting yet"
        if up
        else "is booting"
    )
    return Report([f"RabbitMQ {state}"], {"result": not up})


def alarms(call: Invocation) -> Report:
    """Report all alarms that are known, whichever node has them."""
    node, found = call.node, list(call.client.rows("alarms.list"))
    content = {"result": "ok", "node": node, "alarms": found}
    if not found:
        return Report([f"Node {node} reported no alarms, local or clusterwide"], content)
    lines = [f"Node {node} reported alarms:", "", *map(alarm_text, found)]
    return Report(lines, content)


def check_alarms(call: Invocation) -> Report:
    report = alarms(call)
    if report.content["alarms"]:
        raise Failure("\n".join(report.lines), content={**report.content, "result": "error"})
    return report


def check_local_alarms(call: Invocation) -> Report:
    node = call.node
    found = [row for row in call.client.rows("alarms.list") if row["node"] == node]
    if found:
        text = "\n".join((f"Node {node} reported local alarms:", "", *map(alarm_text, found)))
        raise Failure(text, content={"result": "error", "local": found})
    return Report([f"Node {node} reported no local alarms"])


def listeners(call: Invocation) -> Report:
    row = call.client.call("status")
    found = listeners_of(row)
    content = {"result": "ok", "node": row["node"], "listeners": found}
    return Report(list(map(listener_line, found)), content)


def check_port_listener(call: Invocation) -> Report:
    if not call.words[0].isdecimal():
        raise UsageFailure(f"'{call.words[0]}' is no port")
    port = int(call.words[0])
    row = call.client.call("status")
    found = listeners_of(row)
    if any(each["port"] == port for each in found):
        return Report([f"A listener for port {port} is running on node {row['node']}."])
    others = ", ".join(str(number) for number in sorted(each["port"] for each in found))
    raise Failure(
        f"No listener for port {port} is active on node {row['node']}. Found listeners that use "
        f"the following ports: {others}",
        content={"result": "error", "missing": port, "listeners": found},
    )


def check_protocol_listener(call: Invocation) -> Report:
    wanted = PROTOCOL_ALIASES.get(call.words[0], call.words[0])
    row = call.client.call("status")
    found = listeners_of(row)
    if any(each["protocol"] == wanted for each in found):
        return Report([f"A listener for protocol {wanted} is running on node {row['node']}."])
    others = ", ".join(sorted({each["protocol"] for each in found}))
    raise Failure(
        f"No listener for protocol {wanted} is active on node {row['node']}. Found listeners for "
        f"the following protocols: {others}",
        content={"result": "error", "missing": wanted, "listeners": found},
    )


def check_port_connectivity(call: Invocation) -> Report:
    """Connect to each port, by the address that `--address` names or that is bound."""
    row = call.client.call("status")
    found = [each for each in listeners_of(row) if not each["interface"].startswith("/")]
    refused = [each for each in found if not can_connect(call, each)]
    if refused:
        ports = ", ".join(str(each["port"]) for each in refused)
        raise Failure(
            f"Connection attempts failed to ports {ports} on node {row['node']}",
            content={"result": "error", "failures": refused},
        )
    ports = ", ".join(str(number) for number in sorted(each["port"] for each in found))
    return Report([f"Successfully connected to ports {ports} on node {row['node']}."])


def can_connect(call: Invocation, listener: Row) -> bool:
    bound = listener["interface"]
    host = call.options.get("address") or ANY_INTERFACE.get(bound, bound)
    wait_s = call.timeout_s(CONNECT_WAIT_S)
    try:
        socket.create_connection((host, listener["port"]), wait_s).close()
    except OSError:
        return False
    return True


def check_virtual_hosts(call: Invocation) -> Report:
    """Check virtual hosts: all are there once a node is up, there is no other state."""
    node = call.node
    if not is_up(call):
        raise Failure(f"Node {node} has not fully booted yet")
    return Report([f"Node {node} reported all vhosts as running"])


def check_certificate_expiration(call: Invocation) -> Report:
    """Check that all certificates are valid for as long as `--within` says."""
    unit, within = call.options.get("unit", "weeks").lower(), call.options.get("within", "4")
    if unit not in UNITS_S or not within.isdecimal() or not int(within):
        raise UsageFailure(f"'{within} {unit}' is no time; units are {', '.join(UNITS_S)}", DATA)
    until = call.time.time() + int(within) * UNITS_S[unit]
    found = [row for row in call.client.rows("node.certificates") if row["ends_at"] < until]
    if found:
        lines = [f"{row['file']}: expires on {ctime(row['ends_at'])}" for row in found]
        raise Failure("\n".join(lines), content={"result": "error", "expired": found})
    one = unit.removesuffix("s") if within == "1" else unit
    return Report([f"No certificates are expiring within {within} {one}."])


UNITS_S: Mapping[str, int] = {
    "days": 86_400, "weeks": 7 * 86_400, "months": 30 * 86_400, "years": 365 * 86_400,
}  # fmt: skip

ASKING = "Asking node {node} to report"

VERBS: Mapping[str, Verb] = {
    "check_running": Verb(
        check_running, "", "Checking if RabbitMQ is running on node {node} ..."
    ),
    "is_running": Verb(is_running, "", "Asking the node for its status ..."),
    "is_booting": Verb(is_booting, "", "Asking the node for its boot status ..."),
    "alarms": Verb(alarms, "", f"{ASKING} any known resource alarms ..."),
    "check_alarms": Verb(check_alarms, "", f"{ASKING} any local resource alarms ..."),
    "check_local_alarms": Verb(check_local_alarms, "", f"{ASKING} any local resource alarms ..."),
    "listeners": Verb(listeners, "", f"{ASKING} its protocol listeners ..."),
    "check_port_listener": Verb(
        check_port_listener, "<port>",
        "Asking node {node} if there's an active listener on port {0} ...", (1, 1),
    ),
    "check_protocol_listener": Verb(
        check_protocol_listener, "<protocol>",
        "Asking node {node} if there's an active listener for protocol {0} ...", (1, 1),
    ),
    "check_port_connectivity": Verb(
        check_port_connectivity, "",
        "Testing TCP connections to all active listeners on node {node} ...",
        options={"address": TEXT},
    ),
    "check_certificate_expiration": Verb(
        check_certificate_expiration, "",
        "Checking certificate expiration on node {node} ...",
        options={"within": TEXT, "unit": TEXT},
    ),
    "check_virtual_hosts": Verb(
        check_virtual_hosts, "", "Checking if all vhosts are running on node {node} ..."
    ),
}  # fmt: skip


def check_if_node_is_quorum_critical(call: Invocation) -> Report:
    row = call.client.call("status")
    node, cluster = row["node"], row["cluster"]
    if cluster is None or cluster["nodes"] == 1:
        return Report(
            [
                f"Node {node} seems to be the only one in a single node cluster, the check does "
                "not apply"
            ]
        )
    found = list(call.client.rows("queues.critical"))
    if found:
        names = ", ".join(each["readable_name"] for each in found)
        raise Failure(
            f"Node {node} reported queues/streams with minimum online quorum: {names}",
            content={"result": "error", "queues": found},
        )
    return Report([f"Node {node} reported no queues/streams with minimum online quorum"])


BEFORE_STOP: Mapping[str, Verb] = {
    "check_if_node_is_quorum_critical": Verb(
        check_if_node_is_quorum_critical, "",
        "Checking if node {node} is critical for quorum of any queues/streams ...",
    ),
}  # fmt: skip
