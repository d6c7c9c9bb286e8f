"""TLS of clients."""

import ssl

import pytest

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.config.config import Config
from fluffle.broker.process.certificates import certificates_of
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    return Config(tls_cert=authority.cert_file, tls_key=authority.key_file)


def context_of(config: Config, **changed: str) -> ssl.SSLContext:
    fields = {"tls_cert": config.tls_cert, "tls_key": config.tls_key}
    configured = Config(**fields, **changed)  # type: ignore[arg-type]
    return certificates_of(configured, "tls-listen", verify=configured.tls_verify).context()


def test_versions_are_1_2_and_newer_or_1_3(config: Config) -> None:
    assert context_of(config).minimum_version is ssl.TLSVersion.TLSv1_2
    newest = context_of(config, tls_version_min="1.3")
    assert newest.minimum_version is ssl.TLSVersion.TLSv1_3


def test_suites_of_1_2_may_be_chosen(config: Config) -> None:
    chosen = context_of(config, tls_ciphers="ECDHE-RSA-AES256-GCM-SHA384")
    names = {each["name"] for each in chosen.get_ciphers() if each["protocol"] == "TLSv1.2"}
    assert names == {"ECDHE-RSA-AES256-GCM-SHA384"}
    with pytest.raises(StartFailed, match=r"^--tls-ciphers: OpenSSL knows none of 'no-such'"):
        context_of(config, tls_ciphers="no-such")


def test_a_certificate_is_needed() -> None:
    with pytest.raises(StartFailed, match="--tls-listen needs a certificate"):
        certificates_of(Config(), "tls-listen", verify="none")
