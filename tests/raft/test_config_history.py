"""The history of configurations."""

from fluffle.raft.config import Config
from fluffle.raft.config_history import ConfigHistory

ONE, TWO, THREE = (Config.initial(nodes) for nodes in ("a", "ab", "abc"))


def history() -> ConfigHistory:
    configs = ConfigHistory(0, ONE)
    configs.append(5, TWO)
    configs.append(9, THREE)
    return configs


def test_the_latest_is_active_whether_committed_or_not() -> None:
    assert history().active == THREE
    assert history().last_index == 9


def test_a_configuration_goes_with_its_entry() -> None:
    configs = history()
    configs.roll_back(9)
    assert configs.active == TWO
    configs.roll_back(3)
    assert configs.active == ONE
    configs.roll_back(0)
    assert configs.active == ONE


def test_each_index_has_its_configuration() -> None:
    assert [history().at(index) for index in (0, 4, 5, 8, 9, 20)] == [
        ONE, ONE, TWO, TWO, THREE, THREE,
    ]  # fmt: skip


def test_what_the_floor_has_passed_is_forgotten() -> None:
    configs = history()
    configs.prune(4)
    assert configs.at(0) == ONE
    configs.prune(6)
    assert configs.at(6) == TWO
    configs.prune(9)
    assert (configs.active, configs.at(9)) == (THREE, THREE)


def test_in_use_are_the_last_committed_one_and_those_behind() -> None:
    assert history().in_use(0) == [ONE, TWO, THREE]
    assert history().in_use(5) == [TWO, THREE]
    assert history().in_use(30) == [THREE]


def test_those_between_two_indexes_are_listed() -> None:
    assert history().between(-1, 30) == [(0, ONE), (5, TWO), (9, THREE)]
    assert history().between(5, 8) == []
    assert history().between(0, 5) == [(5, TWO)]
    assert history().between(9, 30) == []
