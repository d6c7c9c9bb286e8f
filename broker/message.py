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
