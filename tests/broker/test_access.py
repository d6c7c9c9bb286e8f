"""Who may log in."""

import pytest

from fluffle.broker.access import Access, LoginRefused, User

ACCESS = Access({"guest": "guest", "zoë": "pässword", "blank": ""})


@pytest.mark.parametrize(
    ("name", "password", "from_loopback"),
    [
        ("guest", "guest", True),
        ("zoë", "pässword", True),
        ("zoë", "pässword", False),
    ],
)
def test_let_in(name: str, password: str, from_loopback: bool) -> None:
    user = ACCESS.login(name, password.encode(), from_loopback=from_loopback)
    assert user == User(name)


@pytest.mark.parametrize(
    ("name", "password", "from_loopback", "reason"),
    [
        ("nobody", "guest", True, "user 'nobody' does not exist"),
        ("guest", "Guest", True, "user 'guest' gave a wrong password"),
        ("guest", "", True, "user 'guest' gave a wrong password"),
        ("blank", "", True, "user 'blank' gave a wrong password"),
        ("guest", "guest", False, "user 'guest' can only connect via localhost"),
        ("guest", "wrong", False, "user 'guest' gave a wrong password"),
    ],
)
def test_refused(name: str, password: str, from_loopback: bool, reason: str) -> None:
    with pytest.raises(LoginRefused, match=f"^{reason}$"):
        ACCESS.login(name, password.encode(), from_loopback=from_loopback)


def test_a_refusal_does_not_hold_the_password() -> None:
    with pytest.raises(LoginRefused) as refusal:
        ACCESS.login("guest", b"hunter2", from_loopback=True)
    assert "hunter2" not in str(refusal.value)


def test_who_has_a_certificate_needs_no_password() -> None:
    assert ACCESS.login_certified("blank", from_loopback=False) == User("blank")
    for name, reason in (
        ("nobody", "user 'nobody' does not exist"),
        ("guest", "user 'guest' can only connect via localhost"),
    ):
        with pytest.raises(LoginRefused, match=f"^{reason}$"):
            ACCESS.login_certified(name, from_loopback=False)
