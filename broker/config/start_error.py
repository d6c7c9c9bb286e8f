"""Why a node cannot start."""

import errno

from fluffle.broker.config.config import ListenAddress

BIND_SUFFIX = " (while attempting to bind on address "
"""What socket.create_server adds to the reason: the address once more, as Python writes it."""


class StartFailed(Exception):
    """Error that keeps a node from starting here, as a sentence that says what to change."""


class NodeMustStop(Exception):
    """Error that ends a running node through no fault of the program; a sentence says what to
    do."""


def cannot_listen(option: str, address: ListenAddress, error: OSError) -> StartFailed:
    """Return the error for an address of `option` that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return StartFailed(
            f"cannot listen on {address}, which is in use; stop the process that uses it, or "
            f"name another address with {option}"
        )
    reason = (error.strerror or str(error)).partition(BIND_SUFFIX)[0]
    return StartFailed(f"cannot listen on {address} ({reason}); name another address with {option}")
