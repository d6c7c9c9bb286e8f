"""Every target with its seeds, with seeds made a little wrong, and with noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.methods import Channel, encode_method
from tests.fuzz.changes import changed
from tests.fuzz.connections import talk
from tests.fuzz.methods import SPEECHES
from tests.fuzz.targets import TARGETS

OPENED = encode_method(1, Channel.Open()) + encode_method(2, Channel.Open())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_made_a_little_wrong(name: str) -> None:
    target = TARGETS[name]

    @given(changed(st.sampled_from(target.seeds)))
    def run(data: bytes) -> None:
        target.run(data)

    run()


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_noise(name: str, data: st.DataObject) -> None:
    TARGETS[name].run(data.draw(st.binary(max_size=200)))


@given(SPEECHES)
def test_well_formed_nonsense(speech: bytes) -> None:
    talk(OPENED + speech)
