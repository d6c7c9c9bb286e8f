"""What a message is, below the edge: where it was published, and its content as bytes.

A message is its `Origin` and its content, the header and body frames in canonical form
(`protocol/properties`).  Nothing is decoded until something asks, and a backlogged message is
one bytes object, no instance of a class: the collector never has to walk a backlog.
"""


class Origin:
    """The exchange and the routing key under which messages were published.

    A virtual host interns its origins, so that equal ones are one object and compare by `is`; not
    all of them, since its table is bounded: two objects may be equal, and only work is lost by it.
    """

    __slots__ = ("exchange", "routing_key")

    def __init__(self, exchange: str, routing_key: str) -> None:
        self.exchange = exchange
        self.routing_key = routing_key

    def __repr__(self) -> str:
        return f"Origin({self.exchange!r}, {self.routing_key!r})"


ORIGINS_MAX = 65_536
"""Origins are interned until there are so many; then afresh, and older messages keep theirs."""


class Origins:
    """The origins of one virtual host."""

    __slots__ = ("_origins",)

    def __init__(self) -> None:
        self._origins: dict[tuple[str, str], Origin] = {}

    def of(self, exchange: str, routing_key: str) -> Origin:
        """The one object that stands for this exchange and this routing key."""
        key = (exchange, routing_key)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = self._origins[key] = Origin(exchange, routing_key)
        return origin
