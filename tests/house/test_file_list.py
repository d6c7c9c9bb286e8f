"""The page that lists the source files is fresh."""

from __future__ import annotations

from tests.house import file_list


def test_the_page_is_what_the_modules_say() -> None:
    """`python -m tests.house --write-files` writes it."""
    assert file_list.PAGE.read_text(encoding="utf-8") == file_list.page()
