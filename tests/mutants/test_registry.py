"""Every mutant has its place in the sources, every place its mutant, and each changes something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import CodeType

import pytest

from tests.mutants.change import Insert
from tests.mutants.mutant import Mutant
from tests.mutants.names import unknown
from tests.mutants.registry import ALL, FAMILIES, faults, mutant
from tests.mutants.tags import ROOT, BadTag, Tag, tags, tags_of


def test_tags_and_mutants_have_each_other() -> None:
    assert faults(tags()) == []
    assert len(ALL) >= 365


def test_each_changes_the_code_and_leaves_it_as_it_was() -> None:
    unchanged = []
    for each in ALL.values():
        function = each.function()
        original = function.__code__
        with each.in_place():
            if does_the_same(function.__code__, without_change(each).changed()):
                unchanged.append(each.number)
        assert function.__code__ is original
    assert unchanged == []


def without_change(mutant: Mutant) -> Mutant:
    """The same, and nothing is changed."""
    return replace(mutant, change=Insert(""))


def test_what_changes_nothing_is_found() -> None:
    nothing = without_change(mutant("M26"))
    assert does_the_same(nothing.changed(), without_change(nothing).changed())


def does_the_same(changed: object, original: object) -> bool:
    """True if code or constants are alike, wherever their lines are."""
    if not isinstance(changed, CodeType) or not isinstance(original, CodeType):
        return type(changed) is type(original) and changed == original
    if len(changed.co_consts) != len(original.co_consts):
        return False
    return (changed.co_code, changed.co_names) == (original.co_code, original.co_names) and all(
        map(does_the_same, changed.co_consts, original.co_consts)
    )


def test_what_mutants_name_is_there() -> None:
    """Else they would die, after a rename, of nothing that they are about."""
    assert {m.number: names for m in ALL.values() if (names := unknown(m))} == {}


def test_a_name_that_nothing_has_is_found() -> None:
    renamed = replace(mutant("M2"), change=Insert("stat.log.lust_index"))
    assert unknown(renamed) == ["lust_index", "stat"]


def test_what_is_wrong_with_a_tag_is_named() -> None:
    there = dict(tags())
    [lost] = there.pop("M26")
    there["M1"] = [*there["M1"], *there["M1"]]  # those of `tags` stay as they are
    there["Z9"] = [Tag("Z9", lost.path, 7)]
    place = f"{there['M1'][0].path}:{there['M1'][0].line}"
    assert faults(there) == [
        "no comment `# mutant: M26` is in the sources",
        f"{lost.path}:7 has the tag of Z9, and there is no such mutant",
        f"{place}, {place} have the tag of M1, and one is wanted",
    ]


def test_a_tag_is_at_its_line_or_above_it() -> None:
    text = "x = 1  # mutant: M1 M2b\n\n    # mutant: M3\n    # why\n    y = 2\n"
    found = [(tag.number, tag.line) for tag in tags_of(text, Path("raft/log.py"))]
    assert found == [("M1", 1), ("M2b", 1), ("M3", 5)]


@pytest.mark.parametrize("slip", ["# mutant M1", "#mutant: M1", "# Mutant: M1", "# mutant: m1"])
def test_a_slip_in_a_tag_is_found(slip: str) -> None:
    with pytest.raises(BadTag, match=r"raft/log\.py:1"):
        list(tags_of(f"x = 1  {slip}\n", Path("raft/log.py")))


def test_each_family_has_its_tests() -> None:
    assert [f.name for f in FAMILIES.values() if not (ROOT / f.tests).is_file()] == []
