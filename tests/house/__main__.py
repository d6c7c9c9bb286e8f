"""The command line: `python -m tests.house [--list WHAT | --tests MODULE | --write-files]`."""

from __future__ import annotations

import argparse

from tests.house import file_list, source_tree, unit_tests
from tests.house.publish_path import publish_paths

LOOSE_LINES_MAX = 130


def main() -> None:
    """Print the figures, or everything that one of them counts."""
    parser = argparse.ArgumentParser(description="Figures of the source tree.")
    parser.add_argument(
        "--list",
        metavar="WHAT",
        help="ing, bundles, cycles, riddles, unclear, loose, paths, calls, unnamed",
    )
    parser.add_argument("--tests", metavar="MODULE", help="where broker/queues/engine.py is tested")
    parser.add_argument("--write-files", action="store_true", help="write docs/source-files.md")
    arguments = parser.parse_args()
    if arguments.write_files:
        file_list.PAGE.write_text(file_list.page(), encoding="utf-8")
        return
    found = source_tree.modules()
    tests = unit_tests.tests_of(found, unit_tests.test_files())
    if arguments.tests:
        print(*unit_tests.described(arguments.tests, tests), sep="\n")
        return
    unnamed = [name for name, known in tests.items() if not known.named]
    by = source_tree.importers(found)
    cycles = source_tree.cycles(by)
    bundles = source_tree.bundles(found)
    riddles = source_tree.riddles(found)
    unclear = list(source_tree.unclear_docstrings())
    loose = source_tree.loose_modules(found, by, LOOSE_LINES_MAX)
    paths = publish_paths()
    listed = {
        "ing": source_tree.in_ing(found),
        "bundles": [f"{b.module}:{b.name} {b.field_count}" for b in bundles],
        "cycles": [" ".join(cycle) for cycle in cycles],
        "riddles": riddles,
        "unclear": unclear,
        "loose": loose,
        "unnamed": unnamed,
        "paths": [f"{kind} {file}" for kind, publish in paths.items() for file in publish.files],
        "calls": [
            f"{kind} {count} {file} {function}"
            for kind, publish in paths.items()
            for (file, function), count in publish.calls.items()
        ],
    }
    if arguments.list:
        print(*listed[arguments.list], sep="\n")
        return
    print_figures(found, {what: len(names) for what, names in listed.items()})
    fields = sum(bundle.field_count for bundle in bundles)
    print(f"bundles of callables (fields)          {len(bundles)} ({fields})")
    print(f"cycles of imports, types too (modules) {len(cycles)} {[len(c) for c in cycles]}")
    print(f"docstrings that begin as no sentence   {len(riddles)}")
    print(f"docstrings without a subject, any kind {len(unclear)}")
    for kind, publish in paths.items():
        print(
            f"a publish, {kind:<7}: files, calls       {len(publish.files)}, {publish.call_count}"
        )


def print_figures(found: list[source_tree.Module], counts: dict[str, int]) -> None:
    """Print the sizes of these modules, and how many the lists of them have."""
    without_init = source_tree.without_init(found)
    print(f"files                                  {len(found)}")
    print(f"lines                                  {sum(m.line_count for m in found)}")
    print(f"modules (files but for __init__.py)    {len(without_init)}")
    print(f"lines of a module, median              {source_tree.line_median(without_init):.0f}")
    print(f"modules named by a gerund              {counts['ing']}")
    print(f"modules of {LOOSE_LINES_MAX} lines or fewer with one importer  {counts['loose']}")
    print(f"modules without a test of their name   {counts['unnamed']}")


if __name__ == "__main__":
    main()
