"""Parsing of options, and the errors for malformed ones."""

from pathlib import Path

import pytest

from fluffle.broker.config.config import (
    Limits,
    ListenAddress,
    UserRights,
    memory_bytes,
)
from fluffle.broker.config.option_values import OptionError, parse_client_address
from fluffle.broker.config.options import resolve
from tests.broker.config.test_options import from_flags, refusal


def test_limits_are_what_one_client_may_do() -> None:
    settings = from_flags(
        heartbeat="0",
        frame_max="65536",
        channel_max="9",
        connection_max="7",
        max_message_size="1MiB",
        handshake_timeout="5000",
    )
    assert settings.config.limits == Limits(
        heartbeat_s=0,
        frame_bytes_max=65_536,
        channels_max=9,
        connections_max=7,
        message_bytes_max=1 << 20,
        unfinished_bytes_max=4 << 20,
        uncommitted_bytes_max=8 << 20,
        handshake_timeout_ms=5_000,
    )


def test_how_clients_may_come_what_the_first_users_are_and_what_is_logged() -> None:
    config = from_flags(
        tls_min_version="1.3",
        tls_ciphers="A:B",
        auth_mechanisms="external, plain",
        user_tags="alice=monitoring,management",
        user_rights="alice '' '^a b' .* ^v$",
    ).config
    shown = from_flags(log_format="JSON", log_level="Debug").config
    assert (shown.log_format, shown.log_level) == ("json", "debug")
    assert (config.tls_version_min, config.tls_ciphers) == ("1.3", "A:B")
    assert config.auth_mechanisms == {"EXTERNAL", "PLAIN"}
    assert config.user_tags == {"alice": ("monitoring", "management")}
    assert config.user_rights == {"alice": UserRights("", "^a b", ".*", "^v$")}


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:5672", ListenAddress("127.0.0.1", 5672), "127.0.0.1:5672"),
        ("localhost:0", ListenAddress("localhost", 0), "localhost:0"),
        (":65535", ListenAddress("", 65_535), ":65535"),
        ("[::1]:1", ListenAddress("::1", 1), "[::1]:1"),
        ("unix:/run/amqp.sock", ListenAddress("/run/amqp.sock", 0), "unix:/run/amqp.sock"),
    ],
)
def test_addresses(text: str, address: ListenAddress, shown: str) -> None:
    assert parse_client_address(text) == address
    assert str(address) == shown


def test_a_unix_socket_has_a_path_and_is_for_clients_alone() -> None:
    assert parse_client_address("unix:a").host == str(Path("a").absolute())
    assert refusal(listen="unix:").endswith("write unix:PATH such as unix:/run/fluffle/amqp.sock")
    with pytest.raises(OptionError, match="write HOST:PORT"):
        resolve({"tls-listen": ["unix:/run/amqp.sock"]}, {})


@pytest.mark.parametrize(
    "text", ["", "5672", "host", "host:", "host:65536", "host:-1", "::1:5672", "[::1:1", "[h]:1"]
)
def test_what_is_no_address(text: str) -> None:
    assert refusal(listen=text) == (
        f"--listen: cannot use {text!r}; "
        "write HOST:PORT such as 127.0.0.1:5672 or [::1]:5672, port 0 for any"
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"log_level": "loud"}, "'loud'; write debug, info, warning or error"),
        ({"log_format": "xml"}, "'xml'; write text or json"),
        ({"memory_high_watermark": "1.5"}, "'1.5'; write a share of the memory"),
        ({"memory_high_watermark": "nan"}, "'nan'; write a share of the memory"),
        ({"memory_high_watermark": "half"}, "'half'; write a share of the memory"),
        ({"disk_free_limit": "5 apples"}, "'5 apples'; write a size such as 50MB"),
        ({"disk_free_limit": "-1"}, "'-1'; write a size"),
        ({"disk_free_limit": "MB"}, "'MB'; write a size"),
        ({"memory_high_watermark": "0"}, "'0'; write a share of the memory"),
        ({"frame_max": "4096"}, "'4096'; write a number from 8192 to"),
        ({"heartbeat": "-1"}, "'-1'; write a number from 0 to 65535"),
        ({"max_message_size": "1GiB"}, "'1GiB'; write a size up to 512MiB"),
        ({"max_message_size": "0"}, "'0'; write a size up to 512MiB"),
        ({"connection_max": "many"}, "'many'; write a number from 0"),
        ({"auth_mechanisms": "PLAIN,LOGIN"}, "'PLAIN,LOGIN'; write some of PLAIN,AMQPLAIN,EXT"),
        ({"auth_mechanisms": ","}, "','; write some of"),
        ({"user_tags": "carol"}, "'carol'; write NAME=TAG"),
        ({"user_rights": "carol a b"}, "'carol a b'; write NAME CONFIGURE WRITE READ"),
        ({"user_rights": "carol ' b c"}, '"carol \' b c"; write NAME CONFIGURE WRITE READ'),
        ({"user_rights": "carol ( b c"}, "'carol ( b c'; cannot use the regular expression '('"),
        ({"tls_min_version": "1.1"}, "'1.1'; write 1.2 or 1.3"),
        ({"proxy_protocol": "maybe"}, "'maybe'; write yes or no"),
        ({"node": "a b"}, "'a b'; write a name without spaces"),
        ({"vhost": ""}, "''; write the name of a virtual host"),
    ],
)
def test_bad_values(flags: dict[str, str], text: str) -> None:
    assert f"cannot use {text}" in refusal(**flags)


@pytest.mark.parametrize("text", ["alice", "alice:", ":secret"])
def test_a_bad_user_is_refused_without_showing_what_may_be_a_password(text: str) -> None:
    expected = "--user: cannot use that value; write NAME:PASSWORD, neither of them empty"
    assert refusal(user=text) == expected


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("7", 7),
        ("7B", 7),
        ("7k", 7_000),
        ("50MB", 50_000_000),
        ("1GiB", 1 << 30),
        ("2tib", 2 << 40),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert from_flags(disk_free_limit=text).config.disk_free_bytes_min == size_bytes


@pytest.mark.parametrize(("text", "times"), [("1.5", 1.5), ("0.5", 0.5), ("2.0", 2), ("0.0", 0)])
def test_free_space_may_be_as_much_as_so_many_times_the_memory(text: str, times: float) -> None:
    free = from_flags(disk_free_limit=text).config.disk_free_bytes_min
    assert free == int(times * memory_bytes())


def test_memory_may_be_a_size() -> None:
    assert from_flags(memory_high_watermark="512MiB").config.memory_bytes_max == 512 << 20


def test_a_larger_message_is_let_through_as_often_as_one_of_the_default_size() -> None:
    limits, default = from_flags(max_message_size="16MiB").config.limits, Limits()
    assert limits == default, "which are several messages of the default size, too"


def test_clients_may_come_by_several_addresses() -> None:
    config = resolve({"listen": [":1"], "also-listen": ["[::1]:2", "unix:/s"]}, {}).config
    assert config.also_listen == (ListenAddress("::1", 2), ListenAddress("/s", 0))


def test_clients_may_have_to_come_with_tls() -> None:
    assert from_flags(listen="none").config.listen is None
