"""Answers of the two oracles of MQTT, recorded or live."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.compat.entries import Asked
from tests.compat.fingerprint import QualifiedName, fingerprint
from tests.compat.mqtt.brokers import mosquitto, mosquitto_version, rabbitmq
from tests.compat.mqtt.scenario import Addresses, Oracle, Scenario
from tests.compat.oracle import installed_version
from tests.compat.replay import Answers, Mode
from tests.compat.scenario import Transcript

FOLDER = Path(__file__).with_name("transcripts")
CONFIGURED = "tests.compat.mqtt.configuration"
CONFIGURATION = {
    Oracle.MOSQUITTO: (QualifiedName(CONFIGURED, "MOSQUITTO"),),
    Oracle.RABBITMQ: (
        QualifiedName(CONFIGURED, "RABBITMQ"),
        QualifiedName(CONFIGURED, "DEFINITIONS"),
    ),
}
VERSIONS: dict[Oracle, Callable[[], str | None]] = {
    Oracle.MOSQUITTO: mosquitto_version,
    Oracle.RABBITMQ: installed_version,
}
LAUNCHERS: dict[Oracle, Callable[[Path], AbstractContextManager[Addresses]]] = {
    Oracle.MOSQUITTO: mosquitto,
    Oracle.RABBITMQ: rabbitmq,
}


def asked_of(oracle: Oracle, scenario: Scenario) -> Asked:
    """The entry that has the answers of one of them."""
    seen = fingerprint(scenario.drive, Scenario.run, *CONFIGURATION[oracle])
    file = f"{scenario.name.partition('.')[0]}_{oracle.value}"
    return Asked(file, f"{oracle.value}.{scenario.name}", seen)


class Oracles:
    """Both, each started by whoever is the first to ask it."""

    def __init__(self, mode: Mode, make_folder: Callable[[str], Path]) -> None:
        self._make_folder = make_folder
        self._running = ExitStack()
        self._addresses: dict[Oracle, Addresses] = {}
        self.answers = {
            oracle: Answers(mode, FOLDER, VERSIONS[oracle], oracle.value) for oracle in Oracle
        }

    def __enter__(self) -> Oracles:
        return self

    def __exit__(self, *_error: object) -> None:
        self._running.close()

    def ask(self, oracle: Oracle, scenario: Scenario) -> Transcript:
        """The conversation with a broker, had now."""
        if oracle not in self._addresses:
            launched = LAUNCHERS[oracle](self._make_folder(oracle.value))
            self._addresses[oracle] = self._running.enter_context(launched)
        return scenario.run(self._addresses[oracle])

    def of(self, oracle: Oracle, scenario: Scenario) -> Transcript:
        """Transcript of an oracle, recorded or live."""
        asked = asked_of(oracle, scenario)
        return self.answers[oracle].of(asked, lambda: self.ask(oracle, scenario))
