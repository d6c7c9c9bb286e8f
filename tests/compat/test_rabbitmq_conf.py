"""rabbitmq.conf: every key that RabbitMQ knows has a verdict; lines are read as it reads them."""

import re
import subprocess
from pathlib import Path

import pytest

from fluffle.broker.config.rabbitmq_conf.settings import (
    ConfLine,
    ConfSettings,
    IgnoredSetting,
    Key,
    MappedSetting,
    RefusedSetting,
    read,
)
from fluffle.broker.config.rabbitmq_conf.sources import rule_for, unknown
from tests.support.require import require, unavailable

pytestmark = pytest.mark.compat

LIBRARY = Path("/usr/lib/rabbitmq/lib")
MAPPING = re.compile(r'\{\s*mapping\s*,\s*"([^"]+)"')
COMMENT = re.compile(r"^\s*%.*$", re.MULTILINE)

AS_TERMS = """\
[Ebin, File] = init:get_plain_arguments(),
code:add_patha(Ebin),
Lines = cuttlefish_conf:file(File),
[io:format("~ts~n~ts~n", [lists:join("\\t", Key), Value]) || {Key, Value} <- Lines],
halt().
"""


@pytest.fixture(scope="module")
def plugins() -> Path:
    found = sorted(LIBRARY.glob("rabbitmq_server-*/plugins"))
    return found[-1] if found else unavailable("RabbitMQ is not installed")


def keys_of(plugins: Path) -> set[Key]:
    texts = (file.read_text(encoding="utf-8") for file in plugins.glob("*/priv/schema/*.schema"))
    return {
        tuple("x" if part.startswith("$") else part for part in name.split("."))
        for text in texts
        for name in MAPPING.findall(COMMENT.sub("", text))
    }


def test_every_key_of_rabbitmqs_schemas_has_a_verdict(plugins: Path) -> None:
    keys = keys_of(plugins)
    assert len(keys) > 900
    assert {key for key in keys if rule_for(key) is unknown} == set()
    for key in keys:
        setting = ConfLine(key, "x", Path("f"), 1)
        verdict = rule_for(key)(ConfSettings({key: setting}), setting)
        assert isinstance(verdict, MappedSetting | IgnoredSetting | RefusedSetting), key


TEXT = """\
# a comment
listeners.tcp.1   =   127.0.0.1:5672   # behind
 default_pass='a # b'
default_user = a#b
motd_file = two words
product.name = "quoted"
default_users.a\\.b.tags = x, y
heartbeat = 1
heartbeat = 2

log.console.formatter.time_format = %H:%M = x
"""


def test_lines_are_read_as_rabbitmq_reads_them(plugins: Path, tmp_path: Path) -> None:
    file = tmp_path / "rabbitmq.conf"
    file.write_text(TEXT, encoding="utf-8")
    (ebin,) = plugins.glob("cuttlefish-*/ebin")
    erl = [require("erl"), "-noshell", "-eval", AS_TERMS, "-extra", str(ebin), str(file)]
    said = subprocess.run(erl, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = said.splitlines()
    theirs = dict(zip((tuple(key.split("\t")) for key in lines[::2]), lines[1::2], strict=True))
    assert {key: each.value for key, each in read(file, {}).items()} == theirs
