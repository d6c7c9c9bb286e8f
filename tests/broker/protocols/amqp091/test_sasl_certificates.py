"""EXTERNAL: which user a certificate stands for."""

import pytest

from fluffle.broker.protocols.amqp091.sasl import PeerCertificate, certified_name

ALICE: PeerCertificate = {
    "subject": (
        (("countryName", "AT"),),
        (("organizationName", "Hase & Söhne, Wien"),),
        (("commonName", "alice"), ("userId", "7")),
        (("1.2.3.4", "#x "),),
    ),
    "subjectAltName": (("email", "a@b"), ("DNS", "alice.example"), ("DNS", "second.example")),
}
NOBODY: PeerCertificate = {"subject": ()}


@pytest.mark.parametrize(
    ("login_from", "name"),
    [
        ("distinguished_name", r"1.2.3.4=\#x\ ,CN=alice+UID=7,O=Hase & S\C3\B6hne\, Wien,C=AT"),
        ("common_name", "alice"),
        ("subject_alternative_name", "alice.example"),
    ],
)
def test_a_certificate_names_a_user(login_from: str, name: str) -> None:
    assert certified_name(ALICE, login_from) == name
    assert certified_name(NOBODY, login_from) == ""


def test_several_common_names_are_one_user_name() -> None:
    subject = ((("commonName", "a"),), (("organizationName", "o"),), (("commonName", "b"),))
    assert certified_name({"subject": subject}, "common_name") == "a,b"
    assert certified_name({"subject": ((("commonName", " "),),)}, "distinguished_name") == r"CN=\ "
