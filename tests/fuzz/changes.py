"""Good bytes made a little wrong: what is likely to get further than noise does."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

INTERESTING = (
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xce",
    b"\xff\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x00",
    b"\xff" * 8,
)
"""Ends of ranges: of a length, of a number with a sign, of a frame."""

Change = Callable[[bytes], bytes]


def overwritten(place: float, octets: bytes) -> Change:
    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + octets + data[at + len(octets) :]

    return change


def inserted(place: float, octets: bytes) -> Change:
    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + octets + data[at:]

    return change


def cut_out(place: float, size: int) -> Change:
    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + data[at + size :]

    return change


def repeated(place: float, size: int) -> Change:
    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[: at + size] + data[at:]

    return change


PLACES = st.floats(0, 1, exclude_max=True)
OCTETS = st.one_of(st.sampled_from(INTERESTING), st.binary(min_size=1, max_size=8))
SIZES = st.integers(1, 200)
CHANGES = st.one_of(
    st.builds(overwritten, PLACES, OCTETS),
    st.builds(inserted, PLACES, OCTETS),
    st.builds(cut_out, PLACES, SIZES),
    st.builds(repeated, PLACES, SIZES),
)


@st.composite
def changed(draw: st.DrawFn, seeds: st.SearchStrategy[bytes]) -> bytes:
    """A seed with some changes."""
    data = draw(seeds)
    for change in draw(st.lists(CHANGES, min_size=1, max_size=4)):
        data = change(data)
    return data
