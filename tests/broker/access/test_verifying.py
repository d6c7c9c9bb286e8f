"""When a password is compared here, when elsewhere, and when not at all."""

from collections.abc import Callable

import pytest

from fluffle.broker.access import verifying
from fluffle.broker.access.passwords import ARGON2, SHA256, PasswordHash, hashed
from fluffle.broker.access.verifying import Answer, Verdict, Verifier, run_here

QUICK = hashed(b"secret")
SLOW = hashed(b"secret", ARGON2)


class Elsewhere:
    """A port that keeps its jobs until they are run."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Verdict], Answer]] = []

    def __call__(self, job: Callable[[], Verdict], answer: Answer) -> None:
        self.jobs.append((job, answer))

    def run(self) -> int:
        jobs, self.jobs = self.jobs, []
        for job, answer in jobs:
            answer(job())
        return len(jobs)


def test_quick_hashes_are_compared_at_once() -> None:
    elsewhere = Elsewhere()
    answers: list[Verdict] = []
    verifier = Verifier(elsewhere)
    verifier.verify(QUICK, b"secret", answers.append)
    verifier.verify(QUICK, b"wrong", answers.append)
    assert answers == [Verdict.RIGHT, Verdict.WRONG]
    assert elsewhere.jobs == []


def test_slow_hashes_are_compared_elsewhere_and_remembered_when_right() -> None:
    elsewhere = Elsewhere()
    answers: list[Verdict] = []
    verifier = Verifier(elsewhere)
    verifier.verify(SLOW, b"secret", answers.append)
    assert answers == []
    assert elsewhere.run() == 1
    verifier.verify(SLOW, b"secret", answers.append)
    assert elsewhere.run() == 0
    assert answers == [Verdict.RIGHT, Verdict.RIGHT]
    changed = hashed(b"secret", ARGON2)
    verifier.verify(changed, b"secret", answers.append)
    assert elsewhere.run() == 1, "another hash of the same password was taken for the old one"


def test_a_wrong_password_is_not_remembered() -> None:
    elsewhere = Elsewhere()
    answers: list[Verdict] = []
    verifier = Verifier(elsewhere)
    for _ in range(2):
        verifier.verify(SLOW, b"wrong", answers.append)
        assert elsewhere.run() == 1
    assert answers == [Verdict.WRONG, Verdict.WRONG]


@pytest.mark.parametrize("stored", [hashed(b""), hashed(b"", ARGON2)])
def test_a_blank_password_is_never_right(stored: PasswordHash) -> None:
    answers: list[Verdict] = []
    Verifier(run_here).verify(stored, b"", answers.append)
    assert answers == [Verdict.WRONG]


def test_nothing_is_right_for_a_hash_that_is_none() -> None:
    answers: list[Verdict] = []
    for stored in (PasswordHash("", SHA256), PasswordHash("plain", ARGON2)):
        Verifier(run_here).verify(stored, b"plain", answers.append)
    assert answers == [Verdict.WRONG, Verdict.WRONG]


def test_there_is_an_end_to_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "REMEMBERED_MAX", 2)
    elsewhere = Elsewhere()
    answers: list[Verdict] = []
    verifier = Verifier(elsewhere)
    stored = [hashed(b"secret", ARGON2) for _ in range(3)]
    for each in stored:
        verifier.verify(each, b"secret", answers.append)
        elsewhere.run()
    verifier.verify(stored[2], b"secret", answers.append)
    assert elsewhere.run() == 0
    verifier.verify(stored[0], b"secret", answers.append)
    assert elsewhere.run() == 1
    assert answers == [Verdict.RIGHT] * 5
