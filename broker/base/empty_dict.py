"""A shared dict for objects that have nothing to put into one yet: each takes 64 bytes, and an idle
queue would have dozens of them.

It is shared by all, so an owner that has something makes a dict of its own first:

    if self.consumers is UNUSED:
        self.consumers = {}
    self.consumers[key] = consumer
"""

from __future__ import annotations

from typing import Any, NoReturn, Self


class EmptyDict(dict[Any, Any]):
    """Always empty.  Whatever takes out of an empty dict, or clears it, may be asked of it."""

    __slots__ = ()

    def _refuse(self, *_arguments: object, **_more: object) -> NoReturn:
        raise AssertionError("this one is shared: make a dict of your own")

    __setitem__ = setdefault = update = __ior__ = _refuse

    def __deepcopy__(self, _memo: object) -> Self:
        return self


EMPTY_DICT: dict[Any, Any] = EmptyDict()
