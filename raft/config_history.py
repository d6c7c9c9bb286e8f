"""The configurations of one group that can still matter: committed, and not yet."""

from fluffle.raft.config import Config


class ConfigHistory:
    """Configurations by the index of their entries.  The first is at or below the floor of the
    log."""

    __slots__ = ("_history", "active")

    def __init__(self, index: int, config: Config) -> None:
        self._history = [(index, config)]
        self.active = config
        """The latest, committed or not."""

    @property
    def last_index(self) -> int:
        """Index of the active configuration."""
        return self._history[-1][0]

    def append(self, index: int, config: Config) -> None:
        """Make a configuration active from now on."""
        self._history.append((index, config))
        self.active = config

    def roll_back(self, first: int) -> None:
        """Drop configurations in entries from `first` on, which are gone: none of them was ever
        active."""
        while len(self._history) > 1 and self._history[-1][0] >= first:  # mutant: M19
            self._history.pop()
        self.active = self._history[-1][1]

    def prune(self, floor: int) -> None:
        """Forget configurations that were replaced at or below the floor."""
        while len(self._history) > 1 and self._history[1][0] <= floor:
            self._history.pop(0)

    def at(self, index: int) -> Config:
        """Return the configuration that is active at `index`, which is not below the floor."""
        return next(config for at, config in reversed(self._history) if at <= index)

    def in_use(self, commit: int) -> list[Config]:
        """Return the last committed configuration, and those behind it."""
        committed = sum(at <= commit for at, _ in self._history)
        return [config for _, config in self._history[max(0, committed - 1) :]]

    def between(self, after: int, through: int) -> list[tuple[int, Config]]:
        """Return the configurations behind one index, up to another, with their indexes."""
        if self._history[-1][0] <= after:
            return []
        return [(at, config) for at, config in self._history if after < at <= through]
