"""A known mistake: a number, which a comment in the source bears too, and the change it makes.

The changed function takes the place of the original wherever that is already referred to, in
tables too: only its code object is exchanged.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType

from tests.mutants.change import Change
from tests.mutants.tags import BadTag, Place, place_of, tags


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake that is put into the code."""

    number: str
    """Letters of its family; a small letter at the end tells variants apart."""
    mistake: str
    change: Change

    def place(self) -> Place:
        """Where it is made.  Raises BadTag unless one comment bears its number."""
        found = tags().get(self.number, [])
        if len(found) != 1:
            places = ", ".join(f"{tag.path}:{tag.line}" for tag in found) or "nowhere"
            raise BadTag(f"`# mutant: {self.number}` is to be at one place, and is {places}")
        return place_of(found[0])

    @property
    def where(self) -> str:
        """module:function or module:Class.method, below `fluffle`."""
        return self.place().where

    @property
    def module(self) -> str:
        return self.place().tag.module

    def function(self) -> FunctionType:
        """The original, which may be what a property or another decorator is made of."""
        return function_at(self.place())

    def changed(self) -> CodeType:
        """The code of the function with the mistake in it."""
        place = self.place()
        original = function_at(place)
        new = self.change.of(place.statement)
        place.put(new)
        place.function.decorator_list.clear()
        # Annotations are of no interest.
        future = ast.parse("from __future__ import annotations").body
        module = ast.fix_missing_locations(ast.Module([*future, place.function], []))
        spare: dict[str, object] = {}
        code = compile(module, f"<mutant {self.number}>", "exec")
        exec(code, dict(original.__globals__), spare)
        made = spare[original.__name__]
        assert isinstance(made, FunctionType)
        return made.__code__

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The mistake is made as long as this lasts."""
        function = self.function()
        original, function.__code__ = function.__code__, self.changed()
        try:
            yield
        finally:
            function.__code__ = original


def function_at(place: Place) -> FunctionType:
    """That which the running program has of it."""
    found: object = import_module(f"fluffle.{place.tag.module}")
    for name in place.qualname.split("."):
        found = inspect.getattr_static(found, name)
    first = min([place.function.lineno, *(each.lineno for each in place.function.decorator_list)])
    for candidate in (found, *_wrapped_by(found)):
        if not isinstance(candidate, FunctionType):
            continue
        if first <= candidate.__code__.co_firstlineno <= place.function.lineno:
            return candidate
    raise BadTag(f"{place.where} is no function")


def _wrapped_by(found: object) -> Iterator[object]:
    for name in ("fget", "fset", "func", "__func__", "__wrapped__"):
        inner = getattr(found, name, None)
        if inner is not None:
            yield inner
            yield from _wrapped_by(inner)
