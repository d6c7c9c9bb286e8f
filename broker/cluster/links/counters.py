"""Counters of a node's links since it started: plain integers."""

from fluffle.broker.cluster.links.identity import Reason


class LinkCounters:
    """Counters of all links together."""

    __slots__ = (
        "accepted",
        "bytes_in",
        "bytes_out",
        "frames_dropped",
        "frames_in",
        "frames_out",
        "frames_without_room",
        "opened",
        "refused",
        "resets",
    )

    def __init__(self) -> None:
        self.bytes_in = 0
        """Handshakes and beats included; without what TLS adds."""
        self.bytes_out = 0
        self.frames_in = 0
        self.frames_out = 0
        """Put into an outbox; those that were in it when their link was lost are among them."""
        self.frames_dropped = 0
        """For nodes whose link was down."""
        self.frames_without_room = 0
        """Not taken, because too much waits in their lane already."""
        self.opened = 0
        """Links that we dialled, once both ends were proved."""
        self.accepted = 0
        """Links that others dialled, likewise."""
        self.resets = 0
        """Links of either direction that were open and ended."""
        self.refused = dict.fromkeys(Reason, 0)
        """Hellos that led to no link, whichever end refused, and certificates."""
