"""`UnsupportedFeature`: what only fluffle has, where the tests run against another broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeAlias

Lacks: TypeAlias = Callable[[str], NoReturn]
"""Told what a test needs, by name; it ends the test."""


class UnsupportedFeature:
    """Placeholder for a feature that an external broker lacks; any use of it ends the test."""

    def __init__(self, name: str, lacks: Lacks) -> None:
        self.__name__ = name
        self._lacks = lacks

    def __call__(self, *_positional: object, **_named: object) -> NoReturn:
        self._lacks(self.__name__)

    def __getattr__(self, name: str) -> UnsupportedFeature:
        if name.startswith("_"):
            raise AttributeError(name)
        return UnsupportedFeature(f"{self.__name__}.{name}", self._lacks)
