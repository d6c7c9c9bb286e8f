"""The configurations of one group that can still matter: committed, and not yet."""

from fluffle.raft.config import Config


class ConfigHistory:
    """By the index of the entry each is in.  The first is at or below the floor of the log."""

    __slots__ = ("_history", "active")

    def __init__(self, index: int, config: Config) -> None:
        self._history = [(index, config)]
        self.active = config
        """The latest, committed or not."""

    @property
    def last_index(self) -> int:
        """Where the active one is."""
        return self._history[-1][0]

    def append(self, index: int, config: Config) -> None:
        """Active from now on."""
        self._history.append((index, config))
        self.active = config

    def roll_back(self, first: int) -> None:
        """Entries from `first` on are gone; a configuration in one was never active."""
        while len(self._history) > 1 and self._history[-1][0] >= first:  # mutant: M19
            self._history.pop()
        self.active = self._history[-1][1]

    def prune(self, floor: int) -> None:
        """Forget those that were replaced at or below the floor."""
        while len(self._history) > 1 and self._history[1][0] <= floor:
            self._history.pop(0)

    def at(self, index: int) -> Config:
        """That which is active at `index`, which is not below the floor."""
        return next(config for at, config in reversed(self._history) if at <= index)

    def in_use(self, commit: int) -> list[Config]:
        """The last one that is committed, and those behind it."""
        committed = sum(at <= commit for at, _ in self._history)
        return [config for _, config in self._history[max(0, committed - 1) :]]

    def between(self, after: int, through: int) -> list[tuple[int, Config]]:
        """Those behind one index, up to another."""
        if self._history[-1][0] <= after:
            return []
        return [(at, config) for at, config in self._history if after < at <= through]
