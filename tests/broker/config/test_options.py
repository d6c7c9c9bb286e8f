"""Where values come from, and what is said of those that cannot be used."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from fluffle.broker.__main__ import main
from fluffle.broker.config.config import (
    FOUNDERS,
    ClusterConfig,
    Config,
    InterceptorConfig,
    Limits,
    ListenAddress,
    QuorumConfig,
    memory_bytes,
)
from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.option_values import OptionError, parse_peers
from fluffle.broker.config.options import Settings, resolve


def from_flags(**flags: str) -> Settings:
    """`_` stands for `-`."""
    return resolve({name.replace("_", "-"): [text] for name, text in flags.items()}, {})


def from_file(folder: Path, text: str) -> Settings:
    file = folder / "fluffle.toml"
    file.write_text(text, encoding="utf-8")
    return resolve({"config": [str(file)]}, {})


def refusal(**flags: str) -> str:
    with pytest.raises(OptionError) as refused:
        from_flags(**flags)
    return str(refused.value)


def test_defaults_are_rabbitmqs() -> None:
    config = resolve({}, {}).config
    assert config == Config()
    assert (config.listen, config.limits.frame_bytes_max) == (ListenAddress("", 5672), 131_072)
    assert (config.users, config.vhosts) == ({"guest": "guest"}, ("/",))
    assert (config.product, config.product_version) == ("RabbitMQ", "4.3.5")
    assert config.memory_bytes_max == int(memory_bytes() * 0.6)
    assert Limits().message_bytes_max == 16_777_216


def test_every_effective_option_reaches_the_config() -> None:
    settings = from_flags(
        node="a@b",
        data_dir="there",
        listen="[::1]:0",
        tls_listen=":5671",
        tls_cert="c",
        tls_key="k",
        tls_ca="a",
        tls_verify="Require",
        tls_login_from="common_name",
        proxy_protocol="yes",
        default_queue_type="quorum",
        event_exchange="yes",
        metrics=":15692",
        disk_free_limit="2 GiB",
        queue_leader_locator="Balanced",
        quorum_initial_group_size="5",
        quorum_reconciliation="yes",
        quorum_reconciliation_interval="60",
        quorum_target_group_size="7",
        quorum_dead_letter_timeout="20",
        user="alice:p:w",
        vhost="v",
        definitions="d.json",
        definitions_skip_unchanged="yes",
        loopback_users="a,b",
        memory_high_watermark="0.5",
        product="Fluffle",
        product_version="1.0",
    )
    assert settings == Settings(
        Config(
            node_name="a@b",
            data_dir=Path("there"),
            listen=ListenAddress("::1", 0),
            tls_listen=ListenAddress("", 5671),
            tls_cert=Path("c"),
            tls_key=Path("k"),
            tls_ca=Path("a"),
            tls_verify="require",
            tls_login_from="common_name",
            proxy_protocol=True,
            default_queue_type="quorum",
            event_exchange=True,
            metrics_listen=ListenAddress("", 15_692),
            disk_free_bytes_min=2 << 30,
            quorum=QuorumConfig("balanced", 5, True, 60, 7, dead_letter_timeout_s=20),
            users={"alice": "p:w"},
            vhosts=("v",),
            definitions=Path("d.json"),
            definitions_skip_unchanged=True,
            loopback_users=frozenset({"a", "b"}),
            memory_bytes_max=int(memory_bytes() * 0.5),
            product="Fluffle",
            product_version="1.0",
        ),
        unknown_variables=(),
    )


def test_the_headers_that_a_node_adds_reach_the_config() -> None:
    settings = from_flags(
        set_header_timestamp="overwrite",
        set_header_routing_node="Keep",
        set_header_sent_time="yes",
    )
    assert settings.config == Config(stamps=InterceptorConfig("overwrite", "keep", sent=True))


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "fluffle.toml"
    file.write_text('node = "file"\nproduct = "file"\nlog-level = "error"\n', encoding="utf-8")
    environment = {
        "FLUFFLE_CONFIG": str(file),
        "FLUFFLE_NODE": "variable",
        "FLUFFLE_PRODUCT": "variable",
        "FLUFFLE_PRODUCT_VERSION": "",
    }
    config = resolve({"node": ["flag"], "product": []}, environment).config
    assert (config.node_name, config.product, config.log_level) == ("flag", "variable", "error")
    assert config.product_version == "4.3.5"


def test_the_config_flag_beats_its_variable(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f'node = "{name}"', encoding="utf-8")
    flags, environment = {"config": [str(tmp_path / "a")]}, {"FLUFFLE_CONFIG": str(tmp_path / "b")}
    assert resolve(flags, environment).config.node_name == "a"


def test_users_and_vhosts_may_be_many(tmp_path: Path) -> None:
    config = resolve({"user": ["a:1", "guest:2"], "vhost": ["v", "/", "w"]}, {}).config
    assert config.users == {"guest": "2", "a": "1"}
    assert config.vhosts == ("/", "v", "w")
    config = from_file(tmp_path, 'user = ["a:1", "b:2"]\nvhost = "v"').config
    assert config.users == {"guest": "guest", "a": "1", "b": "2"}
    assert config.vhosts == ("/", "v")


@pytest.mark.parametrize(
    ("environment", "users", "vhosts"),
    [
        ({}, {"guest": "guest"}, ("/",)),
        ({"DEFAULT_USER": "u", "DEFAULT_PASS": "p:w"}, {"u": "p:w"}, ("/",)),
        ({"DEFAULT_USER": "u"}, {"u": "guest"}, ("/",)),
        ({"DEFAULT_PASS": "p", "DEFAULT_USER": ""}, {"guest": "p"}, ("/",)),
        ({"DEFAULT_VHOST": "v"}, {"guest": "guest"}, ("v",)),
    ],
)
def test_variables_of_rabbitmq_choose_the_defaults(
    environment: dict[str, str], users: dict[str, str], vhosts: tuple[str, ...]
) -> None:
    theirs = {f"RABBITMQ_{name}": value for name, value in environment.items()}
    config = resolve({}, theirs).config
    assert (config.users, config.vhosts) == (users, vhosts)
    config = resolve({"user": ["a:1"], "vhost": ["w"]}, theirs).config
    assert (config.users, config.vhosts) == ({**users, "a": "1"}, (*vhosts, "w"))


def test_with_definitions_there_are_no_defaults() -> None:
    flags = {"definitions": ["d.json"]}
    config = resolve(flags, {}).config
    assert (config.users, config.vhosts) == ({}, ())
    config = resolve(flags, {"RABBITMQ_DEFAULT_PASS": "p"}).config
    assert (config.users, config.vhosts) == ({"guest": "p"}, ())
    config = resolve(flags, {"RABBITMQ_DEFAULT_VHOST": "v"}).config
    assert (config.users, config.vhosts) == ({}, ("v",))


def test_guest_may_come_from_anywhere_when_allowed() -> None:
    assert from_flags(loopback_users="none").config.loopback_users == frozenset()


def test_a_variable_holds_many_values_one_on_each_line() -> None:
    environment = {"FLUFFLE_USER": "a:1,b:2\n\nc:3 4\n", "FLUFFLE_VHOST": "v"}
    config = resolve({}, environment).config
    assert config.users == {"guest": "guest", "a": "1,b:2", "c": "3 4"}
    assert config.vhosts == ("/", "v")


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.collect])
def test_what_has_one_value_is_given_once(name: str) -> None:
    with pytest.raises(OptionError, match=f"^--{name} is given 2 times; write it once$"):
        resolve({name: ["a:1", "a:1"]}, {})


def test_one_file_is_read() -> None:
    with pytest.raises(OptionError, match=r"^--config is given 3 times; write it once$"):
        resolve({"config": ["a", "b", "c"]}, {})


def test_the_path_of_the_file_is_reported_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.toml").write_text("management = 'x'", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=f"^{tmp_path}/f.toml:1: management: cannot use 'x'"):
        resolve({"config": ["./f.toml"]}, {})


def test_numbers_in_the_file_need_no_quotes(tmp_path: Path) -> None:
    config = from_file(tmp_path, "memory-high-watermark = 0.25").config
    assert config.memory_bytes_max == int(memory_bytes() * 0.25)


def test_a_switch_is_a_boolean_in_the_file_and_may_be_alone_on_the_command_line(
    tmp_path: Path,
) -> None:
    assert from_file(tmp_path, "proxy-protocol = true").config.proxy_protocol
    assert not from_file(tmp_path, "proxy-protocol = false").config.proxy_protocol
    flags = ["serve", "--proxy-protocol", "--listen", "nowhere"]
    assert "--listen: cannot use 'nowhere'" in CliRunner().invoke(main, flags).output
    flags = ["serve", "--proxy-protocol", "maybe"]
    assert "--proxy-protocol: cannot use 'maybe'" in CliRunner().invoke(main, flags).output


def test_options_must_be_written_well() -> None:
    for name in ("tls-listen", "management", "metrics", "cluster-listen"):
        with pytest.raises(OptionError, match=f"^--{name}: cannot use 'x'; write HOST:PORT"):
            resolve({name: ["x"]}, {})
    for text in ("a", "a=b", "=a:1", "a=a:1,", "a=a:1;b=b:1"):
        assert refusal(peers=text).startswith(f"--peers: cannot use {text!r}; write ")
        assert "port 0" not in refusal(peers=text), "that is where to listen"
    assert parse_peers("a=h:1,b=[::1]:2") == {
        "a": ListenAddress("h", 1),
        "b": ListenAddress("::1", 2),
    }


def test_a_node_with_peers_is_one_of_a_cluster(tmp_path: Path) -> None:
    assert from_flags(node="a").config.cluster is None
    assert from_flags(cluster_secret="s", cluster_name="c").config.cluster is None
    peers = {"a": ListenAddress("h", 1), "b": ListenAddress("g", 2)}
    given = {"node": "a", "peers": "a=h:1,b=g:2"}
    assert from_flags(**given, cluster_secret="s").config.cluster == ClusterConfig(peers, b"s")
    (tmp_path / "secret").write_text("from a file\n", encoding="utf-8")
    cluster = from_flags(
        **given,
        cluster_secret_file=str(tmp_path / "secret"),
        cluster_listen="h:3",
        cluster_name="c",
        cluster_tls_cert="cert",
        cluster_tls_key="key",
        cluster_tls_ca="ca",
    ).config.cluster
    assert cluster == ClusterConfig(
        peers,
        b"from a file",
        ListenAddress("h", 3),
        "c",
        tls_cert=Path("cert"),
        tls_key=Path("key"),
        tls_ca=Path("ca"),
    )
    assert "from a file" not in repr(cluster)


def test_nodes_are_found_by_the_ordinals_of_their_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "mq-1.svc.cluster.local")
    config = from_flags(discover="svc:25672", cluster_secret="s").config
    assert config.node_name == "mq-1"
    assert config.cluster is not None
    assert config.cluster.peers == {
        f"mq-{number}": ListenAddress(f"mq-{number}.svc", 25672) for number in range(3)
    }
    assert from_flags(discover="svc:1", cluster_secret="s", node="mq-1").config.node_name == "mq-1"
    monkeypatch.setattr("platform.node", lambda: "vm")
    config = from_flags(discover="svc:1", cluster_secret="s", node="mq-0").config
    assert config.cluster is not None
    assert (config.node_name, config.cluster.peers["mq-2"].host) == ("mq-0", "mq-2.svc")
    monkeypatch.setattr("platform.node", lambda: "my-mq-7")
    config = from_flags(discover="svc:1", cluster_secret="s", cluster_size="5").config
    assert config.cluster is not None
    assert [*config.cluster.peers] == [f"my-mq-{number}" for number in range(5)]


def test_a_name_that_is_not_found_gets_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"discover": "svc:1", "cluster_secret": "s"}
    for name in ("mq", "mq-", "-1", "mq-a", ""):
        monkeypatch.setattr("platform.node", lambda name=name: name)
        assert "does not end with an ordinal" in refusal(**flags)
    monkeypatch.setattr("platform.node", lambda: "mq-0")
    assert "'a', does not end with an ordinal" in refusal(**flags, node="a")
    assert "keep one" in refusal(**flags, peers="a=h:1")
    for size in ("0", "-1", "x"):
        assert "write a number, 1 or more" in refusal(**flags, cluster_size=size)


@pytest.mark.parametrize("text", ["h:0", ":25672", "h", "h:x", "h:65536", "::1:25672"])
def test_other_nodes_are_at_an_address_that_can_be_dialled(text: str) -> None:
    flags = {"cluster_secret": "s"}
    assert "such as 10.0.0.4:25672" in refusal(**flags, peers=f"a={text}")
    assert "local:25672" in refusal(**flags, discover=text)


def test_what_does_not_make_a_cluster_is_refused(tmp_path: Path) -> None:
    peers = {"peers": "a=h:1"}
    assert "secret that they share" in refusal(**peers)
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert "empty is empty" in refusal(**peers, cluster_secret_file=str(tmp_path / "empty"))
    assert "say with --node which of a this node is" in refusal(**peers, cluster_secret="s")
    assert "cannot read" in refusal(**peers, cluster_secret_file=str(tmp_path / "none"))
    assert "keep one" in refusal(**peers, cluster_secret="s", cluster_secret_file="f")
    assert "with --peers" in refusal(cluster_listen=":1")
    assert "need a --cluster-tls-cert" in refusal(**peers, cluster_secret="s", cluster_tls_ca="f")


def test_unknown_variables_are_listed_and_others_are_none_of_ours() -> None:
    environment = {"FLUFFLE_LISEN": "x", "FLUFFLE_CONFIG": "", "PATH": "/bin", "FLUFFLE_A": "1"}
    assert resolve({}, environment).unknown_variables == ("FLUFFLE_A", "FLUFFLE_LISEN")


def test_errors_name_their_source(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^FLUFFLE_LISTEN: cannot use 'x'"):
        resolve({}, {"FLUFFLE_LISTEN": "x"})
    with pytest.raises(
        OptionError, match=re.escape(f"{tmp_path / 'fluffle.toml'}:3: listen: cannot")
    ):
        from_file(tmp_path, 'node = "n"\n\nlisten = "x"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('lisen = "x"', "fluffle.toml:1: lisen: there is no such option; did you mean 'listen'?"),
        ('zzz = "x"', "zzz: there is no such option; there are node, data-dir,"),
        ('node = "n"\n[lisen]', "fluffle.toml:2: lisen: there is no such option; did you"),
        ("listen = true", 'listen: write a string, such as listen = "…"'),
        ('listen = ["a:1"]', 'listen: write a string, such as listen = "…"'),
        ("user = [1, {}]", 'user: write a string, such as user = "…"'),
        ("node = ", "is not a TOML file"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError) as refused:
        from_file(tmp_path, text)
    assert str(refused.value).startswith(str(tmp_path))
    assert message in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'node = "\xff"')
    for name, message in (("none", "No such file"), ("", "directory"), ("latin", "is not a TOML")):
        with pytest.raises(OptionError, match=message):
            resolve({"config": [str(tmp_path / name)]}, {})


def test_a_config_is_printed_without_passwords() -> None:
    assert "hunter2" not in repr(from_flags(user="alice:hunter2"))


def test_the_command_knows_every_option() -> None:
    shown = CliRunner().invoke(main, ["serve", "--help"]).output
    for name in (*OPTIONS, "config"):
        assert re.search(rf"^  --{name} ", shown, re.MULTILINE), name


def test_the_defaults_that_are_shown_are_those_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(nodename="HOSTNAME"))
    config, cluster = Config(), ClusterConfig({}, b"")
    groups: dict[str, object] = {
        "cluster_": cluster,
        "quorum_": config.quorum,
        "limits_": config.limits,
    }
    groups |= {"stamps_": config.stamps, "mqtt_": config.mqtt}
    shown = CliRunner().invoke(main, ["serve", "--help"]).output

    first = {"first_user": "guest", "first_password": "guest", "first_vhost": "/"}

    def held(field: str) -> object:
        if field in first:
            return first[field]
        if field == "cluster_size":
            return FOUNDERS
        for prefix, group in groups.items():
            if field.startswith(prefix):
                return getattr(group, field.removeprefix(prefix), None)
        return getattr(config, field)

    for option in OPTIONS.values():
        if option.config_field and not option.default:  # there is nothing without it
            assert option.collect or held(option.config_field) in (None, {}, b"")
        elif option.config_field and not option.collect:
            assert option.parse(option.default) == held(option.config_field)
            assert f"[default: {option.default}]" in re.sub(r"\s+", " ", shown)


def test_the_command_names_its_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"fluffle {Config().version}\n"


def test_the_command_refuses_in_one_line() -> None:
    result = CliRunner().invoke(main, ["serve", "--listen", "nowhere"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: --listen: cannot use 'nowhere'; write HOST:PORT")
    assert result.output.count("\n") == 1
