"""Resource alarms of a node: while one is raised, connections that publish are not read."""

from collections.abc import Callable


class Alarms:
    """Which resources are low, and who must hear of it."""

    __slots__ = ("_listeners", "_raised")

    def __init__(self) -> None:
        self._raised: dict[str, None] = {}
        self._listeners: dict[Callable[[], None], None] = {}

    @property
    def reason(self) -> str:
        """What RabbitMQ tells blocked clients: `low on disk & memory`; empty without an alarm."""
        return f"low on {' & '.join(sorted(self._raised))}" if self._raised else ""

    @property
    def raised(self) -> tuple[str, ...]:
        """The resources that are low."""
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
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever an alarm is raised or cleared."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.pop(listener, None)
