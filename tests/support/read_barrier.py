"""The knowledge of a node about definitions, where a test says when it knows more."""

from collections.abc import Callable

from fluffle.broker.base.errors import BrokerError, InternalError


class ManualReadBarrier:
    """The `Knowledge` of a node that is not alone: each confirmation is made by `confirm`."""

    is_complete = False

    def __init__(self) -> None:
        self.confirmed = 0
        self._asked: list[tuple[Callable[[], None], Callable[[BrokerError], None] | None]] = []

    @property
    def mark(self) -> int:
        return self.confirmed + 1

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        self._asked.append((done, failed))

    def __len__(self) -> int:
        """How many wait."""
        return len(self._asked)

    def confirm(self) -> None:
        """All is known here that was answered anywhere until now."""
        self.confirmed += 1
        asked, self._asked = self._asked, []
        for done, _failed in asked:
            done()

    def fail(self) -> None:
        """Time all confirmations out."""
        asked, self._asked = self._asked, []
        for _done, failed in asked:
            if failed is not None:
                failed(InternalError("nobody has confirmed it"))
