"""Two shadow tables beside each other, and how what was replayed is told to people."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.faults import FaultKind
from nestmmu.mappings import Mapping
from nestmmu.nests import Replayed, ShadowDifference, compare_shadows, kind_text, size_text

RW = READ | WRITE


def leaf(
    at: int, target: int, shift: int = 4, permissions: int = RW, *, accessed: bool = True, dirty: bool = False
) -> Mapping:
    return Mapping(at, target, shift, permissions, accessed, dirty)


ONE, TWO, THREE = leaf(0x30, 0x5550), leaf(0x40, 0x7770), leaf(0x90, 0x9990)


def test_equal_shadows() -> None:
    result = compare_shadows(iter([ONE, TWO]), iter([TWO, ONE]))
    assert (result.kernel, result.rebuilt, result.equal, result.unexplained) == (2, 2, 2, 0)
    assert (result.different, result.only_kernel, result.only_rebuilt) == ([], [], [])


def test_empty_shadows() -> None:
    result = compare_shadows([], [])
    assert (result.kernel, result.rebuilt, result.equal, result.unexplained) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "other",
    [
        leaf(0x30, 0x5560),
        leaf(0x30, 0x5550, 3),
        leaf(0x30, 0x5550, permissions=READ),
        leaf(0x30, 0x5550, accessed=False),
        leaf(0x30, 0x5550, dirty=True),
    ],
)
def test_each_field_counts(other: Mapping) -> None:
    result = compare_shadows([ONE, TWO], [other, TWO])
    assert result.different == [ShadowDifference(0x30, ONE, other)]
    assert (result.equal, result.only_kernel, result.only_rebuilt, result.unexplained) == (1, [], [], 1)


@pytest.mark.parametrize(
    "other",
    [
        attrs.evolve(ONE, input_address=0x37, output_address=0x5557),
        attrs.evolve(ONE, attributes=8),
        attrs.evolve(ONE, entry_address=0x1000, entry=0x5551),
    ],
)
def test_where_in_the_page_and_where_the_entry_is_does_not_count(other: Mapping) -> None:
    assert compare_shadows([ONE], [other]).equal == 1


def test_what_only_one_has() -> None:
    result = compare_shadows([THREE, ONE], [TWO])
    assert result.only_kernel == [ShadowDifference(0x30, ONE, None), ShadowDifference(0x90, THREE, None)]
    assert result.only_rebuilt == [ShadowDifference(0x40, None, TWO)]
    assert (result.kernel, result.rebuilt, result.equal, result.unexplained) == (2, 1, 0, 3)


@pytest.mark.parametrize(
    ("start", "size", "why"), [(0x40, 1, "lost"), (0x31, 16, "lost"), (0, 0x40, ""), (0x41, 16, ""), (0x40, 0, "")]
)
def test_a_range_that_lost_entries_explains_what_only_the_second_has(start: int, size: int, why: str) -> None:
    result = compare_shadows([], [TWO], iter([(start, size, "lost")]))
    assert [one.why for one in result.only_rebuilt] == [why]
    assert result.unexplained == (not why)


def test_a_range_explains_nothing_else_and_the_first_that_fits_speaks() -> None:
    dropped = [(0x40, 16, "first"), (0, 256, "second")]
    result = compare_shadows([ONE, TWO], [leaf(0x30, 0x1110), THREE], dropped)
    assert [one.why for one in (*result.different, *result.only_kernel)] == ["", ""]
    assert [one.why for one in result.only_rebuilt] == ["second"]
    assert result.unexplained == 2
    assert compare_shadows([], [TWO], dropped).only_rebuilt[0].why == "first"


def test_a_difference_in_one_line() -> None:
    other = leaf(0x30000, 0x200000, 16, READ | EXECUTE, accessed=False, dirty=True)
    assert ShadowDifference(0x30, ONE, other).describe() == "0x30: kernel 0x5550 16 rw-R-, rebuilt 0x200000 64K r-x-C"
    assert ShadowDifference(0x30, None, ONE).describe() == "0x30: kernel nothing, rebuilt 0x5550 16 rw-R-"


@pytest.mark.parametrize(
    ("shift", "text"),
    [(0, "1"), (9, "512"), (10, "1K"), (12, "4K"), (16, "64K"), (21, "2M"), (29, "512M"), (30, "1G"), (49, "512T")],
)
def test_sizes(shift: int, text: str) -> None:
    assert size_text(shift) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (FaultKind.NOT_PRESENT, "not present"),
        (FaultKind.PERMISSION | FaultKind.ACCESSED_DIRTY, "permission and accessed dirty"),
        (FaultKind(0), "other"),
    ],
)
def test_kinds(kind: FaultKind, text: str) -> None:
    assert kind_text(kind) == text


def test_a_replay_is_equal_where_every_field_is() -> None:
    assert Replayed("load", "done", {"a": 1, "b": 2}, {"b": 2, "a": 1}).equal
    assert not Replayed("load", "done", {"a": 1}, {"a": 2}).equal
    assert not Replayed("load", "done", {"a": 1}, {"a": 1, "b": 0}).equal


SHADOW = st.dictionaries(st.integers(0, 15), st.integers(0, 3), max_size=10)


@given(kernel=SHADOW, rebuilt=SHADOW)
def test_every_entry_is_counted_once(kernel: dict[int, int], rebuilt: dict[int, int]) -> None:
    left, right = (
        [leaf(page << 4, 0x1000 + (target << 4)) for page, target in one.items()] for one in (kernel, rebuilt)
    )
    result = compare_shadows(left, right)
    assert [one.l2_real >> 4 for one in result.only_kernel] == sorted(set(kernel) - set(rebuilt))
    assert [one.l2_real >> 4 for one in result.only_rebuilt] == sorted(set(rebuilt) - set(kernel))
    common = sorted(set(kernel) & set(rebuilt))
    assert [one.l2_real >> 4 for one in result.different] == [page for page in common if kernel[page] != rebuilt[page]]
    assert result.equal == sum(kernel[page] == rebuilt[page] for page in common)
