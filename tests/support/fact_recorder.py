"""Facts that are kept as they are reported, for tests of what reports them."""

from contextlib import AbstractContextManager, nullcontext

from fluffle.broker.metadata.change import FactGroup, Key, Kind


class FactRecorder:
    """Facts that are so, by kind and name, and how often something was reported."""

    def __init__(self) -> None:
        self.known: dict[tuple[Kind, Key], object] = {}
        self.reported = 0

    def put(self, kind: Kind, key: Key, value: object) -> None:
        self.reported += 1
        self.known[kind, key] = value

    def remove(self, kind: Kind, key: Key) -> None:
        self.reported += 1
        del self.known[kind, key]

    def remove_group(self, group: FactGroup) -> None:
        for fact in group:
            self.remove(fact.kind, fact.key)

    def names(self, kind: Kind) -> list[Key]:
        return sorted(key for known, key in self.known if known is kind)

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()
