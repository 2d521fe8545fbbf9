"""Finding extents by address, and joining ranges: beside plain search and sets, for every shape of a space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.errors import TooLargeError
from nestmmu.extent_algebra import Places, compose, overlaps, union
from nestmmu.extents import Extents

TOP = (1 << 64) - 1
SHAPES = {
    "none": [],
    "one": [(0x5000, 0x1000)],
    "side by side": [(0x1000 * index, 0x1000) for index in range(7, 40)],
    "side by side, not from a multiple of their size": [(0x800 + 0x1000 * index, 0x1000) for index in range(9)],
    "two sizes side by side": [(0, 0x1000), (0x1000, 0x2000), (0x3000, 0x1000)],
    "no power of two": [(0x3000 * index, 0x3000) for index in range(9)],
    "holes": [(0x2000 * index, 0x1000) for index in range(50)],
    "two clusters": [(0x1000 * index, 0x1000) for index in (*range(20), *range(1 << 30, (1 << 30) + 20))],
    "far apart": [(index << 50, 1) for index in range(100)],
    "to the very end": [(0, 0x1000), (TOP - 0xFFF, 0x1000)],
    "all of it but a byte": [(1, TOP)],
}


def space(ranges: list[tuple[int, int]]) -> Extents:
    starts = [start for start, _ in ranges]
    return Extents.make(starts, [size for _, size in ranges], [0] * len(ranges), [7] * len(ranges))


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data())
def test_each_shape(name: str, data: st.DataObject) -> None:
    ranges = SHAPES[name]
    edges = sorted({edge for start, size in ranges for edge in (start - 1, start, start + size - 1, start + size)})
    near = st.sampled_from([edge for edge in edges if 0 <= edge <= TOP] or [0])
    addresses = data.draw(st.lists(near | st.integers(0, TOP), min_size=1, max_size=30))
    lasts = [min(TOP, address + data.draw(st.sampled_from([0, 1, 0xFFF, 0x5000]))) for address in addresses]
    places = Places(space(ranges))
    reaching = [next((i for i, (at, size) in enumerate(ranges) if at + size > one), len(ranges)) for one in addresses]
    assert places.first_reaching(np.array(addresses, np.uint64)).tolist() == reaching
    met, first = places.first_meeting(np.array(addresses, np.uint64), np.array(lasts, np.uint64))
    for index, address, last, found, at in zip(reaching, addresses, lasts, met.tolist(), first.tolist(), strict=True):
        meets = index < len(ranges) and ranges[index][0] <= last
        assert found == (index if meets else -1)
        assert not meets or at == max(address, ranges[index][0])


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 10)), max_size=12))
def test_union(ranges: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in ranges], np.uint64)
    found = union(starts, starts + np.array([size for _, size in ranges], np.uint64))
    found.check()
    expected = {byte for start, size in ranges for byte in range(start, start + size + 1)}
    rows = zip(found.start.tolist(), found.length.tolist(), strict=True)
    pieces = [set(range(start, start + size)) for start, size in rows]
    assert set().union(*pieces) == expected
    assert all(not (piece & {max(other) + 1 for other in pieces}) for piece in pieces)
    assert found.target.tolist() == found.start.tolist()


def test_many_ranges_over_many_extents_are_too_much() -> None:
    """8,192 ranges, each over all of 4,096 extents, would be 33 million pieces."""
    extents = space([(0x1000 * index, 0x1000) for index in range(4096)])
    starts = np.zeros(8192, np.uint64)
    with pytest.raises(TooLargeError, match="33554432 pieces"):
        overlaps(starts, starts + np.uint64(0xFF_FFFF), extents)
    inner = Extents.make(np.arange(8192) << 24, [1 << 24] * 8192, [0] * 8192, [7] * 8192)
    with pytest.raises(TooLargeError):
        compose(inner, extents)
