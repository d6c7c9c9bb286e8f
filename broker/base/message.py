"""Messages below the protocols: where each was published, and its content as bytes.

A message is its `Origin` and its content, the header and body frames in canonical form
(`protocol/properties`).  Nothing is decoded until something asks, and a backlogged message is
one bytes object, no instance of a class: the collector never has to walk a backlog.
"""

from enum import IntEnum


class MessageAnnotations(IntEnum):
    """Facts about a message that the broker knows and its bytes do not contain.  On disk as it is
    here."""

    NONE = 0
    """A client has published it; whatever its headers say of deaths is not to be believed."""
    DIED = 1
    """It has died in a queue, and its headers say of that what the broker has written there."""
    REDIRECTED = 2
    """The same, and the queue has given it a routing key: those of its headers lead nowhere."""


class Origin:
    """The exchange and the routing key under which messages were published.

    A virtual host interns its origins, so that equal ones are one object and compare by `is`; not
    all of them, since its table is bounded, and has none with blind keys, which may be long: two
    objects may be equal, and only work is lost by it.
    """

    __slots__ = ("blind_keys", "exchange", "past", "routing_key")

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        past: MessageAnnotations = MessageAnnotations.NONE,
        blind_keys: tuple[str, ...] = (),
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.past = past
        self.blind_keys = blind_keys
        """Those of the header BCC, which no consumer may see: they count again when a message
        dies."""

    def __repr__(self) -> str:
        return f"Origin({self.exchange!r}, {self.routing_key!r}, {self.past!r})"


ORIGINS_MAX = 65_536
"""Origins are interned until there are so many; then afresh, and older messages keep theirs."""


class Origins:
    """The origins of one virtual host."""

    __slots__ = ("_origins",)

    def __init__(self) -> None:
        self._origins: dict[tuple[str, str, MessageAnnotations], Origin] = {}

    def of(
        self,
        exchange: str,
        routing_key: str,
        past: MessageAnnotations = MessageAnnotations.NONE,
        blind_keys: tuple[str, ...] = (),
    ) -> Origin:
        """Return the one object for this exchange, routing key and past; a new one if there are
        blind keys."""
        if blind_keys:
            return Origin(exchange, routing_key, past, blind_keys)
        key = (exchange, routing_key, past)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = self._origins[key] = Origin(*key)
        return origin
