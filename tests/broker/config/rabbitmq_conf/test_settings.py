"""The text of a rabbitmq.conf."""

from pathlib import Path

import pytest

from fluffle.broker.config.rabbitmq_conf.settings import ConfError, key_of, read


def values(folder: Path, text: str, **environment: str) -> dict[str, str]:
    file = folder / "rabbitmq.conf"
    file.write_text(text, encoding="utf-8")
    return {each.name: each.value for each in read(file, environment).values()}


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfError) as refused:
        values(folder, text)
    return str(refused.value).removeprefix(f"{folder}/rabbitmq.conf")


def test_lines_comments_and_quotes(tmp_path: Path) -> None:
    text = (
        "# a comment\n\n  heartbeat=30\nlog.console.level   =  debug  # behind\n"
        "default_pass = 'a # b'\ndefault_user = a#b\nmotd_file = two words\n"
        "product.name = \"quoted\"\ndefault_users.a\\.b.tags = x, y\ndefault_vhost = ''\r\n"
    )
    assert values(tmp_path, text) == {
        "heartbeat": "30",
        "log.console.level": "debug",
        "default_pass": "a # b",
        "default_user": "a",
        "motd_file": "two words",
        "product.name": '"quoted"',
        "default_users.a\\.b.tags": "x, y",
        "default_vhost": "",
    }
    assert key_of("default_users.a\\.b.tags") == ("default_users", "a.b", "tags")


def test_the_last_of_two_counts_and_those_beside_count_more(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    for name, seconds in (("20-b.conf", 3), ("10-a.conf", 2), ("30-c.txt", 4)):
        (tmp_path / "conf.d" / name).write_text(f"heartbeat = {seconds}\n")
    assert values(tmp_path, "heartbeat = 1\nframe_max = 8192\nframe_max = 9000\n") == {
        "frame_max": "9000",
        "heartbeat": "3",
    }
    setting = read(tmp_path / "conf.d", {})[("heartbeat",)]
    assert setting.source == f"{tmp_path}/conf.d/20-b.conf:1: heartbeat"


def test_values_may_name_keys_and_variables(tmp_path: Path) -> None:
    text = "default_user = $(SEED)\ndefault_pass = $(default_user)-$(PW)\n"
    assert values(tmp_path, text, SEED="u", PW="p") == {"default_user": "u", "default_pass": "u-p"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heartbeat", ":1: cannot read this line; write a.key = value"),
        ("\n[rabbit]", ":2: cannot read this line; write a.key = value"),
        ("a..b = 1", ":1: cannot read this line; write a.key = value"),
        ("= 1", ":1: cannot read this line; write a.key = value"),
        ("heartbeat = # none", ":1: there is no value; write one, or '' for none"),
        ("include more.conf", ":1: cannot include files; put them into conf.d beside this one"),
        ("a = $(B)", ":1: a: there is neither a key nor a variable 'B'; set it"),
        ("a = $(a)", ":1: a: its value names itself; write what it is"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == message


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match="no file in the directory"):
        read(tmp_path, {})
    with pytest.raises(ConfError, match="No such file"):
        read(tmp_path / "none.conf", {})
    (tmp_path / "latin.conf").write_bytes(b"a = \xff")
    with pytest.raises(ConfError, match="it is not UTF-8"):
        read(tmp_path / "latin.conf", {})
