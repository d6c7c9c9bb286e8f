"""RabbitMQ's words for what OpenSSL says of a connection, and users that certificates stand for."""

from __future__ import annotations

import pytest

from fluffle.broker.process.encryption import (
    NOT_ENCRYPTED,
    CipherSuite,
    PeerCertificate,
    alternative_name,
    certificate_row,
    certified_name,
    encryption_row,
    suite_of,
)

CERTIFICATE = {
    "subject": ((("organizationName", "example"),), (("commonName", "alice"),)),
    "issuer": ((("commonName", "authority"),),),
    "notBefore": "Jun  1 12:00:00 2020 GMT",
    "notAfter": "Jan  5 09:34:43 2038 GMT",
}


class Tls:
    """Fake of a TLS socket."""

    def cipher(self) -> tuple[str, str, int]:
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)

    def version(self) -> str:
        return "TLSv1.3"


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("TLS_AES_256_GCM_SHA384", ("any", "aes_256_gcm", "aead")),
        ("TLS_CHACHA20_POLY1305_SHA256", ("any", "chacha20_poly1305", "aead")),
        ("TLS_AES_128_CCM_8_SHA256", ("any", "aes_128_ccm_8", "aead")),
        ("ECDHE-RSA-AES256-GCM-SHA384", ("ecdhe_rsa", "aes_256_gcm", "aead")),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", ("ecdhe_ecdsa", "chacha20_poly1305", "aead")),
        ("DHE-RSA-AES128-SHA256", ("dhe_rsa", "aes_128_cbc", "sha256")),
        ("AES256-SHA", ("rsa", "aes_256_cbc", "sha")),
        ("", ("rsa", "", "")),
    ],
)
def test_suites_have_rabbitmqs_names(name: str, suite: tuple[str, str, str]) -> None:
    assert suite_of(name) == CipherSuite(*suite)


def test_who_has_shown_a_certificate_is_notified() -> None:
    assert certificate_row(CERTIFICATE) == {
        "peer_cert_subject": "CN=alice,O=example",
        "peer_cert_issuer": "CN=authority",
        "peer_cert_validity": "2020-06-01T12:00:00Z - 2038-01-05T09:34:43Z",
    }


@pytest.mark.parametrize("certificate", [{}, CERTIFICATE])
def test_all_is_said_of_a_connection_that_is_encrypted(certificate: dict[str, object]) -> None:
    row = encryption_row(Tls(), certificate)  # type: ignore[arg-type]
    assert row.keys() == NOT_ENCRYPTED.keys()
    assert row["ssl_protocol"] == "tlsv1.3"
    assert row["ssl_cipher"] == "aes_256_gcm"
    assert (row["peer_cert_subject"] is not None) == bool(certificate)


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


@pytest.mark.parametrize(
    ("san_type", "index", "name"),
    [
        ("dns", 0, "a.example"),
        ("dns", 1, "b.example"),
        ("dns", 2, ""),
        ("ip", 0, "10.0.0.1"),
        ("email", 0, "meter@example.org"),
        ("uri", 0, "urn:meter:7"),
    ],
)
def test_any_alternative_name_can_be_asked_for(san_type: str, index: int, name: str) -> None:
    names = (
        ("DNS", "a.example"),
        ("URI", "urn:meter:7"),
        ("DNS", "b.example"),
        ("IP Address", "10.0.0.1"),
        ("email", "meter@example.org"),
    )
    assert alternative_name({"subject": (), "subjectAltName": names}, san_type, index) == name
