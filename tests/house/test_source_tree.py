"""The figures are right about sources whose figures are known."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house import source_tree
from tests.house.source_tree import Module
from tests.house.syntax import parsed


def module(name: str, text: str) -> Module:
    return Module(name, Path(f"{name.replace('.', '/')}.py"), text, ast.parse(text))


def test_a_gerund_is_found() -> None:
    found = [module("broker.publishing", ""), module("broker.publisher", "")]
    assert source_tree.in_ing(found) == ["broker.publishing"]


def test_the_file_of_a_package_counts_as_no_module() -> None:
    package = module("raft", '"""Consensus."""')._replace(path=Path("raft/__init__.py"))
    found = [package, module("raft.log", "A = 1\nB = 2"), module("raft.terms", "A = 1")]
    assert source_tree.without_init(found) == found[1:]


def test_a_cycle_of_types_is_one() -> None:
    found = [
        module("raft.a", "from fluffle.raft.b import B"),
        module("raft.b", "if TYPE_CHECKING:\n    from fluffle.raft import a"),
        module("raft.c", "from fluffle.raft.a import A"),
    ]
    by = source_tree.importers(found)
    assert by == {"raft.a": {"raft.b", "raft.c"}, "raft.b": {"raft.a"}, "raft.c": set()}
    assert source_tree.cycles(by) == [["raft.a", "raft.b"]]
    assert source_tree.loose_modules(found, by, line_count_max=130) == ["raft.b"]


def test_fields_that_are_called_make_a_bundle() -> None:
    text = """
Drop: TypeAlias = Callable[[int], None]
class Ports:
    drop: Drop
    touch: Callable[[], None] | None = None
    size: int
class Alone:
    touch: Callable[[], None]
class Given:
    _drop: Drop
    _touch: Callable[[], None]
class Own:
    _drop: Drop
    _touch: Callable[[], None] = field(default=do_nothing, init=False)
"""
    found = [("broker.a", "Ports", 2), ("broker.a", "Given", 2)]
    assert source_tree.bundles([module("broker.a", text)]) == found


def test_a_docstring_says_what_a_class_is() -> None:
    text = '''"""Of one queue."""
class Gate:
    """Of one leadership, and dropped with it."""
class Short:
    """Too few words."""
class Plain:
    """Effects that wait for their entry."""
    size: int
    """What it holds."""
    def wake(self):
        """Somebody waits."""
        """A text that is no docstring counts, too."""
'''
    assert source_tree.riddles([module("a", text)]) == ["a", "a:Gate", "a:Short"]
    assert [*source_tree.without_subject(parsed(text))] == [1, 3, 9, 11]


def test_a_name_with_a_word_of_people_is_found() -> None:
    text = """
def told(whoever, threshold, *, who_asks):
    for nobody in whose:
        self._told = Nobody = who()
        foretold = wholesale = self.who
class WhoAsks: ...
"""
    names = ["Nobody", "_told", "nobody", "told", "who_asks", "whoever"]
    assert source_tree.names_of_people([module("a", text)]) == [f"a {name}" for name in names]


def test_a_name_that_nothing_has_is_found() -> None:
    text = '''"""Uses `Queue` and `Ports.touch`; see nothing_is_called_so.py."""
class Queue:
    """Messages in order."""
'''
    found = [module("broker.a", text)]
    expected = ["broker.a:1: Ports", "broker.a:1: nothing_is_called_so.py"]
    assert source_tree.unknown_names(found) == expected
