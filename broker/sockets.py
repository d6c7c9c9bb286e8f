"""Sockets to accept on."""

import socket


def listening_socket(host: str, port: int) -> socket.socket:
    """One socket; an empty host is every interface, of both families where the system can."""
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
