"""RabbitMQ's files and variables as sources of a node's settings."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from fluffle.broker.__main__ import main
from fluffle.broker.config.config import ListenAddress, MqttConfig
from fluffle.broker.config.option_values import OptionError
from fluffle.broker.config.options import Settings, resolve
from fluffle.protocol.methods import Connection
from tests.support.certificates import Authority
from tests.support.client import Client
from tests.support.daemon import Daemon


def written(folder: Path, text: str, name: str = "rabbitmq.conf") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def from_conf(folder: Path, text: str, **environment: str) -> Settings:
    return resolve({"config": [written(folder, text)]}, environment)


def test_flags_and_variables_count_more_than_the_file(tmp_path: Path) -> None:
    text = "heartbeat = 10\nlisteners.tcp.1 = 5673\ndefault_user = u\ndefault_pass = p\n"
    config = from_conf(
        tmp_path, text, FLUFFLE_HEARTBEAT="20", RABBITMQ_NODE_PORT="5674", RABBITMQ_DEFAULT_USER="w"
    ).config
    assert (config.limits.heartbeat_s, config.listen) == (20, ListenAddress("", 5674))
    assert config.users == {"w": "p"}


def test_what_is_ignored_is_reported_and_what_is_refused_is_reported_at_once(
    tmp_path: Path,
) -> None:
    (remark,) = from_conf(tmp_path, "heartbeat = 1\nstomp.default_vhost = /").remarks
    assert (remark.source, remark.reason) == (
        f"{tmp_path}/rabbitmq.conf:2: stomp.default_vhost",
        "there is no STOMP here",
    )
    with pytest.raises(OptionError) as refused:
        from_conf(tmp_path, "auth_backends.1 = ldap\nssl_options.password = secret\nx = 1")
    first, *lines = str(refused.value).splitlines()
    assert first == f"no node runs as {tmp_path}/rabbitmq.conf says:"
    assert [line.split(": ")[1] for line in lines] == [
        "auth_backends.1 = ldap",
        "ssl_options.password = …",
        "x = 1",
    ]


def test_bad_values_are_said_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"rabbitmq\.conf:2: heartbeat: cannot use 'often'"):
        from_conf(tmp_path, "\nheartbeat = often")
    with pytest.raises(OptionError, match=r"rabbitmq\.conf:1: cannot read this line"):
        from_conf(tmp_path, "heartbeat")


def test_erlang_terms_beside_it_are_not_lost_silently(tmp_path: Path) -> None:
    written(tmp_path, "%% nothing\n[ ].\n", "advanced.config")
    from_conf(tmp_path, "heartbeat = 1")
    written(tmp_path, "[{rabbit, []}].", "advanced.config")
    with pytest.raises(OptionError, match=r"cannot read .*advanced\.config; say in rabbitmq\.conf"):
        from_conf(tmp_path, "heartbeat = 1")


def test_many_users_of_a_file(tmp_path: Path) -> None:
    text = "default_users.a.password = 1\ndefault_users.b.password = 2\ndefault_users.b.tags = t\n"
    config = from_conf(tmp_path, text).config
    assert config.users == {"guest": "guest", "a": "1", "b": "2"}
    assert config.user_tags == {"a": (), "b": ("t",)}


def test_variables_of_containers(tmp_path: Path) -> None:
    plugins = written(tmp_path, "[rabbitmq_management,rabbitmq_prometheus,rabbitmq_stomp].", "on")
    conf = written(tmp_path, "prometheus.tcp.port = 9000\n")
    settings = resolve(
        {},
        {
            "RABBITMQ_CONFIG_FILE": conf.removesuffix(".conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": plugins,
            "RABBITMQ_NODENAME": "mq@h",
            "RABBITMQ_NODE_IP_ADDRESS": "::1",
            "RABBITMQ_LOG": "connection.debug,warning,+color",
            "RABBITMQ_PRODUCT_VERSION": "4.0.5",
        },
    )
    config = settings.config
    assert (config.node_name, config.listen) == ("mq@h", ListenAddress("::1", 5672))
    assert config.metrics_listen == ListenAddress("", 9000), "the file says more than the plugins"
    assert (config.log_level, config.product_version) == ("warning", "4.0.5")
    assert [each.source for each in settings.remarks] == [f"{plugins}: rabbitmq_stomp"]


def test_plugins_switch_on_listeners_for_mqtt_unless_the_file_says_where(tmp_path: Path) -> None:
    def listening(plugins: str, text: str = "") -> MqttConfig:
        environment = {"RABBITMQ_ENABLED_PLUGINS_FILE": written(tmp_path, f"[{plugins}].", "on")}
        if text:
            environment["RABBITMQ_CONFIG_FILE"] = written(tmp_path, text)
        settings = resolve({}, environment)
        assert settings.remarks == ()
        return settings.config.mqtt

    assert listening("rabbitmq_prometheus") == MqttConfig()
    assert listening("rabbitmq_mqtt") == MqttConfig(listen=(ListenAddress("", 1883),))
    web = MqttConfig(listen=(ListenAddress("", 1883),), ws_listen=(ListenAddress("", 15_675),))
    assert listening("rabbitmq_web_mqtt") == listening("rabbitmq_web_mqtt,rabbitmq_mqtt") == web
    text = "mqtt.listeners.tcp.1 = 127.0.0.1:1\nmqtt.listeners.tcp.2 = ::1:1\n"
    said = listening("rabbitmq_mqtt", text).listen
    assert said == (ListenAddress("127.0.0.1", 1), ListenAddress("::1", 1))
    off = listening("rabbitmq_web_mqtt", "mqtt.listeners.tcp = none\nweb_mqtt.tcp.listener = none")
    assert off == MqttConfig()


def test_the_cookie_is_the_secret_of_the_nodes(tmp_path: Path) -> None:
    text = "cluster_formation.classic_config.nodes.1 = rabbit@h\ncluster_name = c\n"
    environment = {"RABBITMQ_ERLANG_COOKIE": "s", "RABBITMQ_NODENAME": "rabbit@h"}
    cluster = from_conf(tmp_path, text, **environment).config.cluster
    assert cluster is not None
    assert (cluster.secret, cluster.name) == (b"s", "c")
    assert cluster.peers == {"rabbit@h": ListenAddress("h", 25_672)}
    with pytest.raises(OptionError, match="secret that they share"):
        from_conf(tmp_path, text)
    (tmp_path / "secret").write_text("ours")
    environment["FLUFFLE_CLUSTER_SECRET_FILE"] = str(tmp_path / "secret")
    cluster = from_conf(tmp_path, text, **environment).config.cluster
    assert cluster is not None
    assert cluster.secret == b"ours"


@pytest.mark.slow("a node starts as a process")
def test_a_node_runs_with_the_file_and_logs_what_it_ignores(tmp_path: Path) -> None:
    text = "default_user = admin\ndefault_pass = secret\nheartbeat = 17\nstomp.default_vhost = /\n"
    conf = written(tmp_path, text)
    with Daemon(tmp_path / "data", "--config", conf) as daemon:
        with Client("127.0.0.1", daemon.port) as client:
            client.open(user="admin", password="secret")
            (tune,) = [each for each in client.heard if each.name == "Connection.Tune"]
            assert isinstance(tune.method, Connection.Tune)
            assert tune.method.heartbeat == 17
        ignored = (
            f'setting_ignored setting="{conf}:4: stomp.default_vhost" '
            'reason="there is no STOMP here"'
        )
        assert ignored in daemon.log


def test_a_file_can_be_checked(tmp_path: Path) -> None:
    def checked(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["config", "check", *words])
        return result.exit_code, result.output

    text = "heartbeat = 30\ndefault_pass = p\nlog.console = true\nraft.data_dir = d"
    conf = written(tmp_path, text)
    code, said = checked(conf)
    assert (code, said.splitlines()[-1]) == (0, "a node would start with this")
    for line in (
        r"heartbeat = 30 +--heartbeat 30",
        r"default_pass = … +--default-password …",
        r"log.console = true +as it is here anyway",
        r"raft.data_dir = d +ignored: ",
    ):
        assert re.search(line, said), said
    code, said = checked(written(tmp_path, "auth_backends.1 = ldap"))
    assert (code, "refused: " in said) == (1, True)
    code, said = checked(written(tmp_path, "heartbeat = often"))
    assert (code, "write a number" in said) == (1, True)
    assert checked(written(tmp_path, 'node = "n"', "f.toml"))[0] == 0
    code, said = checked(written(tmp_path, 'nod = "n"', "f.toml"))
    assert (code, "did you mean 'node'?" in said) == (1, True)
    code, said = checked(conf, "--json")
    assert said.startswith("[")


def test_what_a_file_names_is_read_when_it_is_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    definitions = tmp_path / "definitions.json"
    definitions.write_text('{"queues": [{"vhost": "/"}]}')
    pair = f'tls-cert = "{authority.cert_file}"\ntls-key = "{authority.key_file}"\n'
    listening = f'tls-listen = "127.0.0.1:0"\n{pair}'

    def checked(text: str) -> tuple[int, str]:
        file = written(tmp_path, text, "f.toml")
        result = CliRunner().invoke(main, ["config", "check", file])
        return result.exit_code, result.output

    assert checked(listening) == (0, "a node would start with this\n")
    cluster = (
        f'peers = "a=127.0.0.1:1"\nnode = "a"\ncluster-secret = "{"s" * 32}"\n'
        f'cluster-tls-cert = "{tmp_path / "none"}"\n'
    )
    no_pair = 'mqtt{}-tls = "127.0.0.1:0"'
    assert checked(f"{pair}{no_pair.format('')}\n{no_pair.format('-ws')}")[0] == 0
    for text, why in (
        (no_pair.format(""), "--mqtt-tls needs a certificate"),
        (no_pair.format("-ws"), "--mqtt-ws-tls needs a certificate"),
        (listening.replace(str(authority.cert_file), str(tmp_path / "none")), "cannot read"),
        (listening.replace(str(authority.key_file), str(other.key_file)), "cannot use the certif"),
        (f'management = "127.0.0.1:0"\nmanagement-tls = true\ntls-cert = "{tmp_path}"', "cannot"),
        (f'definitions = "{tmp_path / "none"}"', "cannot read definitions"),
        (f'definitions = "{definitions}"', "queues, entry 1: there is no 'name'"),
        (cluster, "cannot read"),
    ):
        code, said = checked(text)
        assert (code, why in said) == (1, True), (text, said)
