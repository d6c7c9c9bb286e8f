"""Facts into the commits of this node."""

from fluffle.broker.commits import Commits
from fluffle.broker.facts import Key, Kind
from fluffle.broker.recording.encoding import encode, encode_key


class Recorder:
    """Has each fact written by the commit that collects."""

    __slots__ = ("_commits",)

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    def put(self, kind: Kind, key: Key, value: object) -> None:
        self._commits.put(kind, encode_key(key), encode(kind, value))

    def remove(self, kind: Kind, key: Key) -> None:
        self._commits.remove(kind, encode_key(key))
