"""Patterns of LIKE: `%` stands for any octets, `_` for one, but neither for the end of a line.

All ways to match are tried at once, as bits of a number: what an octet costs is the same whatever
the pattern and whatever came before.  (R. Baeza-Yates, G. Gonnet: A new approach to text
searching, 1992.)
"""

ITEMS_MAX = 1024
"""Of a pattern, as with RabbitMQ 4.3."""
VALUE_BYTES_MAX = 1 << 13
"""Whoever compares longer values would hold up everybody else."""

ANY_OCTETS, ANY_OCTET, NEWLINE = b"%_\n"
NO_ESCAPE = -1


class TooLong(Exception):
    """A pattern has more than ITEMS_MAX items."""


class LikePattern:
    """Pattern of a JMS LIKE, which the whole value must match."""

    __slots__ = ("_any", "_end", "_loops", "_steps")

    def __init__(self, pattern: bytes, escape: int = NO_ESCAPE) -> None:
        """What follows on the octet `escape` stands for itself."""
        self._steps: dict[int, int] = {}
        """By octet, the bits of the places that it leads to."""
        self._any = 0
        """Those that every octet leads to."""
        self._loops = 0
        """The bits of places that any octet leaves as they are."""
        place = items = 0
        octets = iter(pattern)
        for octet in octets:
            items += 1
            literal = next(octets, None) if octet == escape else None
            if literal is None and octet == ANY_OCTETS:
                self._loops |= 1 << place
                continue
            place += 1
            if literal is None and octet == ANY_OCTET:
                self._any |= 1 << place
            else:
                wanted = octet if literal is None else literal
                self._steps[wanted] = self._steps.get(wanted, 0) | 1 << place
        if items > ITEMS_MAX:
            raise TooLong
        self._end = 1 << place

    def matches(self, value: bytes) -> bool:
        places = 1
        steps, wild, loops = self._steps, self._any, self._loops
        for octet in value:
            if octet == NEWLINE:
                places = places << 1 & steps.get(octet, 0)
            else:
                places = places << 1 & (steps.get(octet, 0) | wild) | places & loops
            if not places:
                return False
        return bool(places & self._end)
