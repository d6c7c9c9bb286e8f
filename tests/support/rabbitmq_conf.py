"""Verdicts on the lines of a rabbitmq.conf, and the options that all of them are."""

from pathlib import Path

from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.rabbitmq_conf.settings import (
    ConfLine,
    ConfSettings,
    MappedSetting,
    Verdict,
    lines_of,
)
from fluffle.broker.config.rabbitmq_conf.sources import judgements

FILE = Path("rabbitmq.conf")


def verdicts(text: str, **environment: str) -> list[Verdict]:
    settings: dict[tuple[str, ...], ConfLine] = {each.key: each for each in lines_of(text, FILE)}
    return [verdict for _setting, verdict in judgements(ConfSettings(settings, environment))]


def options(text: str, **environment: str) -> dict[str, str]:
    """Options that all lines set; every text can be used."""
    said: dict[str, str] = {}
    for verdict in verdicts(text, **environment):
        assert isinstance(verdict, MappedSetting), verdict
        for name, texts in verdict.options.items():
            OPTIONS[name].parse(*texts)
            said[name] = texts[0]
    return said
