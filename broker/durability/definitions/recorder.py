"""Facts into the commits of this node."""

from fluffle.broker.durability.definitions.fact_encoding import encode, encode_key
from fluffle.broker.metadata.facts import Key, Kind
from fluffle.broker.runtime.commits import Commits


class Recorder:
    """Has each fact written by the commit that collects."""

    __slots__ = ("_commits",)

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    def put(self, kind: Kind, key: Key, value: object) -> None:
        self._commits.put(kind, encode_key(key), encode(kind, value))

    def remove(self, kind: Kind, key: Key) -> None:
        self._commits.remove(kind, encode_key(key))
