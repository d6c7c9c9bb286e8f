"""Telling the service manager how we are: sd_notify(3) without libsystemd."""

import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str, environment: Mapping[str, str]) -> bool:
    """Send `state` to the manager that started us; whether there is one.

    The socket is named by NOTIFY_SOCKET; `@` at its start stands for the zero byte of an abstract
    name.  OSError when it cannot be reached.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)
    return True
