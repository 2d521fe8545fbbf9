"""Two mappings made into one: by hand, and against what each address does in two steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.compose import RadixComposer, compose_mappings, with_entry
from nestmmu.mappings import Mapping
from toy_arch.formats import GLITTER, GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, TOY, USED

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
RWX = READ | WRITE | EXECUTE
SHIFTS = (6, 4)


def mapping(
    source: int, target: int, shift: int, permissions: int = RWX, *, used: bool = True, grubby: bool = True
) -> Mapping:
    return Mapping(source, target, shift, permissions, used, grubby)


@pytest.mark.parametrize(
    ("inner_shift", "outer_shift", "shift"), [(4, 4, 4), (4, 6, 4), (6, 4, 4), (6, 6, 6), (12, 6, 6), (5, 30, 4)]
)
def test_the_largest_page_that_both_map_and_the_table_has(inner_shift: int, outer_shift: int, shift: int) -> None:
    inner, outer = mapping(0x4B3, 0x64B3, inner_shift), mapping(0x64B3, 0x40_0000_64B3, outer_shift)
    leaf = compose_mappings(inner, outer, LOAD, SHIFTS)
    assert (leaf.input_address, leaf.output_address, leaf.page_shift) == (0x4B3, 0x40_0000_64B3, shift)


@pytest.mark.parametrize(
    ("inner", "outer", "both"),
    [(RWX, RWX, RWX), (READ | WRITE, READ | EXECUTE, READ), (WRITE, READ, 0), (EXECUTE, RWX, EXECUTE)],
)
def test_permissions_are_what_both_give(inner: int, outer: int, both: int) -> None:
    leaf = compose_mappings(mapping(0, 0x10, 4, inner), mapping(0x10, 0x20, 4, outer), LOAD, SHIFTS)
    assert leaf.permissions == both


@pytest.mark.parametrize("access", [LOAD, STORE, FETCH])
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("outer", [False, True])
def test_accessed_needs_both_and_dirty_a_store_too(access: Access, *, inner: bool, outer: bool) -> None:
    used = compose_mappings(mapping(0, 0x10, 4, used=inner), mapping(0x10, 0x20, 4, used=outer), access, SHIFTS)
    assert used.accessed is (inner and outer)
    grubby = compose_mappings(mapping(0, 0x10, 4, grubby=inner), mapping(0x10, 0x20, 4, grubby=outer), access, SHIFTS)
    assert grubby.dirty is (inner and outer and access is STORE)


def test_attributes_are_the_outer_ones() -> None:
    inner = Mapping(0, 0x10, 4, RWX, accessed=True, dirty=True, attributes=1)
    outer = Mapping(0x10, 0x20, 4, RWX, accessed=True, dirty=True, attributes=2)
    assert compose_mappings(inner, outer, LOAD, SHIFTS).attributes == 2


def test_a_mapping_of_another_address_is_refused() -> None:
    with pytest.raises(ValueError, match="0x20 is not where 0x0 leads"):
        compose_mappings(mapping(0, 0x10, 4), mapping(0x20, 0x30, 4), LOAD, SHIFTS)


def test_a_page_below_the_smallest_is_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (no size is left to choose from)
        compose_mappings(mapping(0, 0x10, 3), mapping(0x10, 0x30, 6), LOAD, SHIFTS)


@pytest.mark.parametrize(
    ("inner", "outer", "access", "entry"),
    [
        (mapping(0x35, 0x85, 4), mapping(0x85, 0x5555, 4), LOAD, PRESENT | PAGE | 0x5550 | LOOK | POKE | RUN | USED),
        (
            mapping(0x35, 0xB5, 6), mapping(0xB5, 0x55B5, 6), STORE,
            PRESENT | PAGE | 0x5580 | LOOK | POKE | RUN | USED | GRUBBY,
        ),
        (
            mapping(0x35, 0xB5, 6, READ), mapping(0xB5, 0x5575, 4, used=False), STORE,
            PRESENT | PAGE | 0x5570 | LOOK | GRUBBY,
        ),
        (
            mapping(0x35, 0x85, 4), Mapping(0x85, 0x5545, 6, EXECUTE, accessed=True, dirty=True, attributes=GLITTER),
            FETCH, PRESENT | PAGE | 0x5540 | RUN | USED | GLITTER,
        ),
    ],
)  # fmt: skip
def test_entries(inner: Mapping, outer: Mapping, access: Access, entry: int) -> None:
    leaf = RadixComposer(TOY, (2, 2)).compose(inner, outer, access)
    assert leaf.entry == entry
    assert leaf.output_address == outer.output_address


def test_the_composers_pages_are_those_of_the_format() -> None:
    composer = RadixComposer(TOY, (2, 2))
    assert composer.depths == {6: 0, 4: 1}
    assert composer.shifts == (6, 4)


def test_a_leaf_is_what_its_entry_says() -> None:
    leaf = mapping(0x35, 0x9995, 4)
    entry = PRESENT | PAGE | 0x5550 | LOOK | USED | GLITTER
    assert with_entry(leaf, entry, TOY) == Mapping(
        0x35, 0x5555, 4, READ, accessed=True, dirty=False, attributes=GLITTER, entry=entry
    )


@given(
    address=st.integers(0, 255), middle=st.integers(0, 63), final=st.integers(0, 63),
    inner=st.tuples(st.sampled_from(SHIFTS), st.integers(0, 7)),
    outer=st.tuples(st.sampled_from(SHIFTS), st.integers(0, 7)),
)  # fmt: skip
def test_every_byte_of_the_leaf_goes_where_two_steps_take_it(
    address: int, middle: int, final: int, inner: tuple[int, int], outer: tuple[int, int]
) -> None:
    def two_steps(byte: int) -> int:
        between = (middle << inner[0]) + (byte & (1 << inner[0]) - 1)
        return (final << outer[0]) + (between & (1 << outer[0]) - 1)

    between = (middle << inner[0]) + (address & (1 << inner[0]) - 1)
    leaf = RadixComposer(TOY, (2, 2)).compose(
        mapping(address, between, *inner), mapping(between, two_steps(address), *outer), LOAD
    )
    for offset in range(1 << leaf.page_shift):
        assert leaf.target_start + offset == two_steps(leaf.page_start + offset)
    assert leaf.permissions == inner[1] & outer[1]
