"""Answers to clients about what is there and what is not: those that can be so, and those that
cannot."""

from __future__ import annotations

import pytest

from tests.simulation.facts import Violation
from tests.simulation.queues.topology_checks import Register


@pytest.fixture
def register() -> Register:
    return Register("it")


def made(register: Register, began_us: int, ended_us: int, *, makes: bool = True) -> None:
    register.begin(began_us, makes=makes).ended_us = ended_us


def test_what_nobody_has_made_is_not_there(register: Register) -> None:
    register.read(1, is_there=False)
    with pytest.raises(Violation, match="is said to be there"):
        register.read(1, is_there=True)


def test_what_was_made_before_somebody_asked_is_there(register: Register) -> None:
    made(register, 1, 3)
    register.read(4, is_there=True)
    with pytest.raises(Violation, match="is said to be not there"):
        register.read(4, is_there=False)


def test_what_was_answered_after_somebody_asked_may_be_either(register: Register) -> None:
    made(register, 1, 3)
    for is_there in (False, True):
        register.read(3, is_there=is_there)


def test_what_two_do_at_once_may_come_in_either_order(register: Register) -> None:
    made(register, 1, 5)
    made(register, 2, 4, makes=False)
    for is_there in (False, True):
        register.read(6, is_there=is_there)


def test_what_comes_later_counts(register: Register) -> None:
    made(register, 1, 2)
    made(register, 3, 4, makes=False)
    register.read(5, is_there=False)
    with pytest.raises(Violation):
        register.read(5, is_there=True)


def test_what_had_no_answer_may_come_true_at_any_time(register: Register) -> None:
    made(register, 1, 2)
    register.begin(3, makes=False)
    for is_there in (False, True):
        register.read(100, is_there=is_there)


def test_what_was_refused_has_not_been(register: Register) -> None:
    made(register, 1, 2)
    register.refused(register.begin(3, makes=False))
    with pytest.raises(Violation):
        register.read(4, is_there=False)
