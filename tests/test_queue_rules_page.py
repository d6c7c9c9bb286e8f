"""docs/queue-rules.md has each rule that tests cite, and each mistake against one."""

import re
from pathlib import Path

from tests.mutants.registry import ALL

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "queue-rules.md").read_text(encoding="utf-8")

RULES = re.compile(r"\b[Rr]ules? (\d+)\b")
GUARANTEE = re.compile(r"\bG(\d+)\b")
MISTAKE = re.compile(r"R(\d+)[a-z]?")

ROW = re.compile(r"^\| (\d+) \| .*\. \| (.*) \|$", re.MULTILINE)
ROWS = {int(number): mistakes.split(", ") for number, mistakes in ROW.findall(PAGE)}
GUARANTEES = [int(number) for number in re.findall(r"^\| G(\d+) \| .*\. \|$", PAGE, re.MULTILINE)]


def cited(reference: re.Pattern[str]) -> set[int]:
    """Numbers that tests, and the tables beside them, refer to."""
    texts = (path.read_text("utf-8") for end in ("py", "md") for path in files_ending(end))
    return {int(number) for text in texts for number in reference.findall(text)}


def files_ending(end: str) -> list[Path]:
    """Files of tests about whole clusters and queues, which are those that cite them."""
    folders = [ROOT / "tests" / name for name in ("simulation", "broker", "mutants")]
    return [path for folder in folders for path in folder.rglob(f"*.{end}")]


def test_rules_are_numbered_without_a_gap() -> None:
    for numbers in ([*ROWS], GUARANTEES):
        assert numbers == [*range(1, len(numbers) + 1)]


def test_each_rule_that_a_test_cites_is_there() -> None:
    rules, guarantees = cited(RULES), cited(GUARANTEE)
    assert len(rules) > 10
    assert len(guarantees) > 10
    assert rules <= ROWS.keys()
    assert guarantees <= {*GUARANTEES}


def test_each_rule_has_its_mistakes() -> None:
    by_rule: dict[int, list[str]] = {number: [] for number in ROWS}
    for name in ALL:
        if found := MISTAKE.fullmatch(name):
            by_rule[int(found[1])].append(name)
    assert {number: sorted(names) for number, names in by_rule.items()} == ROWS
    assert all(by_rule.values())
