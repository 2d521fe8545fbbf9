"""Extents: what they may be, and arithmetic on them, against sets of single pages."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu import extent_algebra
from nestmmu.errors import InputError
from nestmmu.extent_algebra import coalesce, compose, difference, differing, holes, intersect, invert, overlaps
from nestmmu.extents import ACCESSED, DIRTY, Extents

TOP = 1 << 64


def extents(*rows: tuple[int, ...]) -> Extents:
    """Return extents from rows of the columns, those left out 7, 0 and 4."""
    filled = [(*row, *(7, 0, 4)[len(row) - 3 :]) for row in rows]
    columns = list(zip(*filled, strict=True)) or [()] * 6
    return Extents.make(*(np.array(column, np.uint64) for column in columns))


def rows(found: Extents) -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in row) for row in zip(*found.columns().values(), strict=True)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (((0x10, 0x20, 0), (0x20, 0x10, 0)), r"start\[1\]: the extent at 0x20 comes after 0x10..0x2f; sort them"),
        (((0x20, 0x10, 0), (0x10, 0x10, 0)), r"start\[1\]: the extent at 0x10 comes after 0x20..0x2f; sort them"),
        (((0x10, 0, 0),), r"length\[0\]: the extent at 0x10 is empty; leave it out"),
        (((0, 1, 0), (TOP - 16, 17, 0)), r"length\[1\]: the extent at 0xfffffffffffffff0 ends beyond 2\^64; cut it"),
        (((0, 17, TOP - 16),), r"target\[0\]: the extent at 0x0 leads beyond 2\^64; cut it"),
        (((0, 16, 0, 8),), r"permissions\[0\]: the extent at 0x0 has bits that are no permission"),
        (((0, 16, 0, 7, 0, 64),), r"page_shift\[0\]: the extent at 0x0 has pages of 2\^64 bytes or more"),
    ],
)
def test_what_are_no_extents(given: tuple[tuple[int, ...], ...], said: str) -> None:
    with pytest.raises(InputError, match=f"^extents: {said}"):
        extents(*given)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("start", [0.0], "has dtype float64"),
        ("start", [-1], "has a number -1"),
        ("target", [[0]], r"has shape \(1, 1\)"),
        ("permissions", [256], "has a number 256; give whole numbers from 0 to 255"),
        ("flags", [1 << 16], "has a number 65536"),
        ("page_shift", [True], "has dtype bool"),
        ("length", [1 << 64], "has a number 18446744073709551616"),
        ("target", [[1], [1, 2]], "is no array of numbers"),
        ("length", [1, 2], "has 2 values where start has 1; give columns of one length"),
    ],
)
def test_what_are_no_columns(column: str, values: object, said: str) -> None:
    given: dict[str, Any] = {"start": [0], "length": [16], "target": [0], "permissions": [7], "flags": [0]}
    given |= {"page_shift": [4], column: values}
    with pytest.raises(InputError, match=f"^here: {column}: {said}"):
        Extents.make(**given, where="here")


def test_the_last_bytes_of_the_space() -> None:
    found = extents((TOP - 16, 16, TOP - 32))
    assert found.last.tolist() == [TOP - 1]
    assert found.bytes_mapped == 16
    assert rows(holes(found)) == [(0, TOP - 16, 0, 0, 0, 0)]
    assert rows(holes(extents((0, 16, 0)))) == [(16, TOP - 16, 16, 0, 0, 0)]
    both = extents((0, 1 << 63, 1 << 63), (1 << 63, 1 << 63, 0))
    assert (len(holes(both)), len(coalesce(both))) == (0, 2)
    assert both.bytes_mapped == TOP
    whole = extents((0, 1 << 63, 0), (1 << 63, 1 << 63, 1 << 63))
    assert rows(coalesce(whole)) == rows(whole)
    assert sum(int(length) for length in holes(Extents.empty()).length) == TOP


def test_pages_that_are_not_named_are_the_largest_that_fit() -> None:
    found = Extents.make([0x1000, 0x200000, 0x400000], [0x3000, 0x200000, 0x200000], [0, 0x800000, 0x10000], [7, 7, 7])
    assert found.page_shift.tolist() == [12, 21, 16]


def test_finding_and_telling() -> None:
    found = extents((0x10, 0x20, 0x100, 5), (0x40, 0x10, 0x300, 6))
    assert found.find(np.array([0xF, 0x10, 0x2F, 0x30, 0x4F, 0x50], np.uint64)).tolist() == [-1, 0, 0, -1, 1, -1]
    assert Extents.empty().find(np.array([1], np.uint64)).tolist() == [-1]
    assert found.describe(1) == "0x40..0x4f -> 0x300 rw- pages of 2^4"
    first = next(iter(found.mappings()))
    assert (first.input_address, first.output_address, first.page_shift, first.permissions) == (0x10, 0x100, 4, 5)


class TestCompose:
    def test_a_large_page_over_small_ones_and_a_hole(self) -> None:
        inner = extents((0x1000, 0x40, 0x80, 7, ACCESSED | DIRTY, 6))
        outer = extents(
            (0x80, 0x10, 0x500, 7, ACCESSED, 4),
            (0xA0, 0x10, 0x700, 4, ACCESSED | DIRTY | 4, 4),
            (0xC0, 0x10, 0, 7, 0, 4),
        )
        assert rows(compose(inner, outer)) == [
            (0x1000, 0x10, 0x500, 7, ACCESSED, 4),
            (0x1020, 0x10, 0x700, 4, ACCESSED | DIRTY | 4, 4),
        ]

    def test_small_pages_over_a_large_one_shared_by_two(self) -> None:
        inner = extents((0x00, 0x10, 0x90, 6, 3 | 8), (0x10, 0x10, 0x80, 5, 3), (0x50, 0x10, 0x90, 7, 1))
        outer = extents((0x80, 0x40, 0x440, 6, ACCESSED | DIRTY, 6))
        assert rows(compose(inner, outer)) == [
            (0x00, 0x10, 0x450, 6, 3, 4), (0x10, 0x10, 0x440, 4, 3, 4), (0x50, 0x10, 0x450, 6, 1, 4),
        ]  # fmt: skip

    def test_nothing_over_nothing(self) -> None:
        some = extents((0, 16, 0))
        for inner, outer in ((Extents.empty(), some), (some, Extents.empty()), (some, extents((16, 16, 0)))):
            assert len(compose(inner, outer)) == 0


def test_runs_that_go_on_alike_become_one() -> None:
    found = extents(
        (0x00, 0x10, 0x100), (0x10, 0x10, 0x110), (0x20, 0x20, 0x120), (0x50, 0x10, 0x150), (0x60, 0x10, 0x200),
        (0x70, 0x10, 0x210, 5), (0x80, 0x10, 0x220, 5, 1), (0x90, 0x10, 0x230, 5, 1, 3), (0xA0, 0x10, 0x240, 5, 1, 3),
    )  # fmt: skip
    assert rows(coalesce(found)) == [
        (0x00, 0x40, 0x100, 7, 0, 4), (0x50, 0x10, 0x150, 7, 0, 4), (0x60, 0x10, 0x200, 7, 0, 4),
        (0x70, 0x10, 0x210, 5, 0, 4), (0x80, 0x10, 0x220, 5, 1, 4), (0x90, 0x20, 0x230, 5, 1, 3),
    ]  # fmt: skip
    assert len(coalesce(Extents.empty())) == 0


def test_where_two_spaces_differ() -> None:
    one = extents((0x00, 0x20, 0x100), (0x30, 0x10, 0x300), (0x50, 0x10, 0))
    other = extents((0x10, 0x10, 0x110), (0x30, 0x10, 0x300, 5), (0x60, 0x10, 0))
    left, right = differing(one, other)
    assert (rows(left), rows(right)) == ([(0x30, 0x10, 0x300, 7, 0, 4)], [(0x30, 0x10, 0x300, 5, 0, 4)])


class TestReverse:
    def test_who_leads_to_a_place(self) -> None:
        found = invert(extents((0x00, 0x40, 0x100), (0x50, 0x10, 0x120), (0x60, 0x10, 0x110), (0x70, 0x10, 0x80)))
        assert rows(found.leading_to(0x125)) == [(0x25, 1, 0x125, 7, 0, 4), (0x55, 1, 0x125, 7, 0, 4)]
        assert rows(found.leading_to(0x13F)) == [(0x3F, 1, 0x13F, 7, 0, 4)]
        assert rows(found.leading_to(0x8F)) == [(0x7F, 1, 0x8F, 7, 0, 4)]
        assert len(found.leading_to(0x140)) == len(found.leading_to(0x90)) == len(found.leading_to(0)) == 0
        assert found.extents.target.tolist() == [0x80, 0x100, 0x110, 0x120]
        assert found.shared.tolist() == [False, False, True, True]
        with pytest.raises(InputError, match="two addresses lead to 0x110; ask the reverse map itself"):
            found.forward()

    def test_twice_is_where_it_was(self) -> None:
        found = extents((0x00, 0x40, 0x100), (0x50, 0x10, 0x20))
        back = invert(found).forward()
        assert rows(back) == [(0x20, 0x10, 0x50, 7, 0, 4), (0x100, 0x40, 0x00, 7, 0, 4)]
        assert invert(back).forward().equal(found)


PAGES = st.dictionaries(
    st.one_of(st.integers(0, 40), st.integers(1 << 40, (1 << 40) + 8)),
    st.tuples(st.one_of(st.integers(0, 40), st.integers(1 << 40, (1 << 40) + 8)), st.integers(0, 7), st.integers(0, 7)),
    max_size=40,
)
Pages = dict[int, tuple[int, int, int]]


def of_pages(pages: Pages) -> Extents:
    """Return pages of 16 bytes, those that go on alike joined: extents of all lengths."""
    return coalesce(
        extents(*((16 * at, 16, 16 * target, p, flags, 4) for at, (target, p, flags) in sorted(pages.items())))
    )


def to_pages(found: Extents) -> Pages:
    found.check()
    pages = {}
    for start, length, target, permissions, flags, _ in rows(found):
        for offset in range(0, length, 16):
            pages[(start + offset) // 16] = ((target + offset) // 16, permissions, flags)
    return pages


@settings(max_examples=200)
@given(one=PAGES, other=PAGES, searched=st.booleans())
def test_arithmetic_is_that_of_single_pages(one: Pages, other: Pages, *, searched: bool) -> None:
    left, right = of_pages(one), of_pages(other)
    with pytest.MonkeyPatch.context() as patch:
        if searched:
            patch.setattr(extent_algebra, "_CLUSTERS", 0)
        assert to_pages(left) == one
        assert to_pages(intersect(left, right)) == {at: one[at] for at in one.keys() & other.keys()}
        assert to_pages(difference(left, right)) == {at: one[at] for at in one.keys() - other.keys()}
        composed = {
            at: (other[target][0], p & other[target][1], other[target][2] & (flags | 4))
            for at, (target, p, flags) in one.items()
            if target in other
        }
        assert to_pages(compose(left, right)) == composed
        changed = {at: one[at] for at in one.keys() & other.keys() if one[at] != other[at]}
        assert to_pages(differing(left, attrs.evolve(right, page_shift=right.page_shift))[0]) == changed
    reverse = invert(left)
    for target in {page[0] for page in one.values()}:
        expected = sorted(16 * at + 3 for at, page in one.items() if page[0] == target)
        assert reverse.leading_to(16 * target + 3).start.tolist() == expected


@given(one=PAGES)
def test_holes_are_all_the_rest(one: Pages) -> None:
    found = of_pages(one)
    rest = holes(found)
    rest.check()
    assert sum(rest.length.tolist()) + found.bytes_mapped == TOP
    assert len(intersect(found, rest)) == 0
    pieces = overlaps(np.zeros(1, np.uint64), np.full(1, TOP - 1, np.uint64), found)
    assert (pieces.right.tolist(), pieces.start.tolist()) == (list(range(len(found))), found.start.tolist())
