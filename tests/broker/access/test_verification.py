"""When a password is compared here, when elsewhere, and when not at all."""

from collections.abc import Callable

import pytest

from fluffle.broker.access import verification
from fluffle.broker.access.passwords import ARGON2, SHA256, PasswordHash, hashed
from fluffle.broker.access.verification import (
    Answer,
    PasswordVerdict,
    VerificationRequest,
    Verifier,
    run_here,
)
from tests.support.passwords import slow_hash

QUICK = hashed(b"secret")
SLOW = slow_hash(b"secret")


class Elsewhere:
    """A port that keeps its jobs until they are run."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], PasswordVerdict], Answer]] = []

    def __call__(self, job: Callable[[], PasswordVerdict], answer: Answer) -> None:
        self.jobs.append((job, answer))

    def run(self) -> int:
        jobs, self.jobs = self.jobs, []
        for job, answer in jobs:
            answer(job())
        return len(jobs)


def test_quick_hashes_are_compared_at_once() -> None:
    elsewhere = Elsewhere()
    answers: list[PasswordVerdict] = []
    verifier = Verifier(elsewhere)
    verifier.verify(QUICK, b"secret", VerificationRequest(answers.append))
    verifier.verify(QUICK, b"wrong", VerificationRequest(answers.append))
    assert answers == [PasswordVerdict.RIGHT, PasswordVerdict.WRONG]
    assert elsewhere.jobs == []


def test_slow_hashes_are_compared_elsewhere_and_remembered_when_right() -> None:
    elsewhere = Elsewhere()
    answers: list[PasswordVerdict] = []
    verifier = Verifier(elsewhere)
    verifier.verify(SLOW, b"secret", VerificationRequest(answers.append))
    assert answers == []
    assert elsewhere.run() == 1
    verifier.verify(SLOW, b"secret", VerificationRequest(answers.append))
    assert elsewhere.run() == 0
    assert answers == [PasswordVerdict.RIGHT, PasswordVerdict.RIGHT]
    changed = slow_hash(b"secret")
    verifier.verify(changed, b"secret", VerificationRequest(answers.append))
    assert elsewhere.run() == 1, "another hash of the same password was taken for the old one"


def test_a_wrong_password_is_not_remembered() -> None:
    elsewhere = Elsewhere()
    answers: list[PasswordVerdict] = []
    verifier = Verifier(elsewhere)
    for _ in range(2):
        verifier.verify(SLOW, b"wrong", VerificationRequest(answers.append))
        assert elsewhere.run() == 1
    assert answers == [PasswordVerdict.WRONG, PasswordVerdict.WRONG]


@pytest.mark.parametrize("stored", [hashed(b""), slow_hash(b"")])
def test_a_blank_password_is_never_right(stored: PasswordHash) -> None:
    answers: list[PasswordVerdict] = []
    Verifier(run_here).verify(stored, b"", VerificationRequest(answers.append))
    assert answers == [PasswordVerdict.WRONG]


def test_nothing_is_right_for_a_hash_that_is_none() -> None:
    answers: list[PasswordVerdict] = []
    for stored in (PasswordHash("", SHA256), PasswordHash("plain", ARGON2)):
        Verifier(run_here).verify(stored, b"plain", VerificationRequest(answers.append))
    assert answers == [PasswordVerdict.WRONG, PasswordVerdict.WRONG]


def test_there_is_an_end_to_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "REMEMBERED_MAX", 2)
    elsewhere = Elsewhere()
    answers: list[PasswordVerdict] = []
    verifier = Verifier(elsewhere)
    stored = [slow_hash(b"secret") for _ in range(3)]
    for each in stored:
        verifier.verify(each, b"secret", VerificationRequest(answers.append))
        elsewhere.run()
    verifier.verify(stored[2], b"secret", VerificationRequest(answers.append))
    assert elsewhere.run() == 0
    verifier.verify(stored[0], b"secret", VerificationRequest(answers.append))
    assert elsewhere.run() == 1
    assert answers == [PasswordVerdict.RIGHT] * 5


class Crowd:
    """Askers with passwords of their own, who may leave."""

    def __init__(self) -> None:
        self.elsewhere = Elsewhere()
        self.verifier = Verifier(self.elsewhere)
        self.answers: dict[bytes, PasswordVerdict] = {}
        self.gone: set[bytes] = set()

    def ask(self, password: bytes, source: str = "") -> None:
        def answer(verdict: PasswordVerdict) -> None:
            self.answers[password] = verdict

        asker = VerificationRequest(answer, lambda: password not in self.gone, source)
        self.verifier.verify(SLOW, password, asker)

    def busy(self) -> list[bytes]:
        return [
            password
            for password, verdict in self.answers.items()
            if verdict is PasswordVerdict.BUSY
        ]


def test_slow_hashes_are_compared_one_at_a_time_in_order() -> None:
    crowd = Crowd()
    passwords = [b"a", b"secret", b"b"]
    for password in passwords:
        crowd.ask(password)
    for done in range(1, 4):
        assert crowd.elsewhere.run() == 1
        assert list(crowd.answers) == passwords[:done]
    assert crowd.answers[b"secret"] is PasswordVerdict.RIGHT


def test_who_asks_the_same_shares_the_comparison() -> None:
    elsewhere = Elsewhere()
    verifier = Verifier(elsewhere)
    answers: list[PasswordVerdict] = []
    for _ in range(1000):
        verifier.verify(SLOW, b"secret", VerificationRequest(answers.append))
    assert elsewhere.run() == 1
    assert answers == [PasswordVerdict.RIGHT] * 1000
    assert elsewhere.run() == 0


def test_few_may_wait_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verification, "WAITING_MAX", 3)
    crowd = Crowd()
    for number in range(6):
        crowd.ask(b"%d" % number, source=str(number))
    assert crowd.busy() == [b"3", b"4", b"5"]
    assert caplog.messages == ["logins_overloaded"]
    while crowd.elsewhere.run():
        pass
    assert len(crowd.answers) == 6
    for number in range(10, 15):
        crowd.ask(b"%d" % number)
    assert caplog.messages == ["logins_overloaded"] * 2


def test_fewer_may_wait_from_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "WAITING_PER_SOURCE_MAX", 2)
    crowd = Crowd()
    for number in range(4):
        crowd.ask(b"%d" % number, source="192.0.2.1")
    crowd.ask(b"other", source="192.0.2.2")
    assert crowd.busy() == [b"2", b"3"]
    while crowd.elsewhere.run():
        pass
    assert crowd.answers[b"other"] is PasswordVerdict.WRONG


def test_nothing_is_compared_for_who_has_gone() -> None:
    crowd = Crowd()
    for password in (b"first", b"second", b"third"):
        crowd.ask(password)
    crowd.gone = {b"first", b"second"}
    assert [crowd.elsewhere.run() for _ in range(3)] == [1, 1, 0]
    assert list(crowd.answers) == [b"third"]


def test_who_has_gone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "WAITING_MAX", 3)
    crowd = Crowd()
    for password in (b"a", b"b", b"c"):
        crowd.ask(password)
    crowd.gone = {b"a", b"b", b"c"}
    crowd.ask(b"d")
    assert crowd.busy() == []
    while crowd.elsewhere.run():
        pass
    assert list(crowd.answers) == [b"d"]
