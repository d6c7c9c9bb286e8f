"""Resource alarms: while one is raised, here or on another node, publishers are not read."""

from collections.abc import Callable, Collection

RESOURCES = ("memory", "disk")


class Alarms:
    """Which resources are low, and who must hear of it."""

    __slots__ = ("_elsewhere", "_listeners", "_raised")

    def __init__(self) -> None:
        self._raised: dict[str, None] = {}
        self._elsewhere: dict[str, Collection[str]] = {}
        """By node: what others are low on."""
        self._listeners: dict[Callable[[], None], None] = {}

    @property
    def reason(self) -> str:
        """What RabbitMQ tells blocked clients: `low on disk & memory`; empty without an alarm."""
        if not (self._raised or self._elsewhere):
            return ""
        return f"low on {' & '.join(sorted({*self._raised}.union(*self._elsewhere.values())))}"

    @property
    def raised(self) -> tuple[str, ...]:
        """The resources that are low here."""
        return tuple(self._raised)

    def is_raised(self, resource: str) -> bool:
        return resource in self._raised

    def set(self, resource: str, *, low: bool) -> None:
        """Raise or clear the alarm of a resource (`memory`, `disk`)."""
        if low == (resource in self._raised):
            return
        if low:
            self._raised[resource] = None
        else:
            del self._raised[resource]
        self._tell()

    def set_elsewhere(self, node: str, resources: Collection[str]) -> None:
        """What another node is low on by now."""
        before = self.reason
        if resources:
            self._elsewhere[node] = resources
        else:
            self._elsewhere.pop(node, None)
        if self.reason != before:
            self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever an alarm is raised or cleared."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.pop(listener, None)
