"""What entries mean, as the format says it: words written by hand."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import ALL_PERMISSIONS, EXECUTE, READ, WRITE, Access, permission_text
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import ALWAYS, NEVER, Match
from toy_arch.formats import GLITTER, GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, TOY, USED

LARGE = attrs.evolve(
    TOY, name="large addresses", address_shift=8, width_mask=3,
    valid=Match(1 << 31, 1 << 31),
    levels=(attrs.evolve(TOY.levels[0], index_bits=(2, 3)), attrs.evolve(TOY.levels[1], index_bits=(2, 1, 3))),
)  # fmt: skip
"""Addresses of 32 bits, kept without their low 8; how wide the next table is stands in bits 0 and 1."""
NO_RUN = 1 << 27
NEGATIVE = attrs.evolve(TOY, permissions=((Match(LOOK, LOOK), READ), (Match(NO_RUN, 0), EXECUTE)))
"""Running is permitted unless a bit forbids it; there are no stores."""
IMPLIED = attrs.evolve(TOY, permissions=((Match(LOOK, LOOK), READ), (Match(POKE, POKE), READ | WRITE)))
"""Who may store may load."""


def test_matches() -> None:
    assert Match(0b110, 0b100)(0b1101)
    assert not Match(0b110, 0b100)(0b1111)
    assert ALWAYS(0)
    assert ALWAYS(123)
    assert not NEVER(0)
    assert not NEVER(1)


@pytest.mark.parametrize(
    ("flags", "permissions", "text"),
    [
        (0, 0, "---"),
        (LOOK, READ, "r--"),
        (POKE, WRITE, "-w-"),
        (RUN, EXECUTE, "--x"),
        (LOOK | POKE, READ | WRITE, "rw-"),
        (LOOK | RUN, READ | EXECUTE, "r-x"),
        (POKE | RUN, WRITE | EXECUTE, "-wx"),
        (LOOK | POKE | RUN, ALL_PERMISSIONS, "rwx"),
    ],
)
def test_permissions_both_ways(flags: int, permissions: int, text: str) -> None:
    entry = 0x30AB_CDE3 & ~(LOOK | POKE | RUN) | flags
    assert TOY.permissions_of(entry) == permissions
    assert TOY.may_write(entry) is bool(flags & POKE)
    assert TOY.leaf_entry(1, 0x0120, permissions, accessed=False, dirty=False) == 0x123 | flags
    assert permission_text(permissions) == text


@pytest.mark.parametrize(
    ("access", "permission", "label"),
    [(Access.LOAD, READ, "load"), (Access.STORE, WRITE, "store"), (Access.FETCH, EXECUTE, "fetch")],
)
def test_an_access_is_the_permission_that_it_needs(access: Access, permission: int, label: str) -> None:
    assert access == permission
    assert access.label == label


@pytest.mark.parametrize(
    ("accessed", "dirty", "attributes", "entry"),
    [
        (False, False, 0, 0x0100_5553),
        (True, False, 0, 0x2100_5553),
        (False, True, 0, 0x1100_5553),
        (True, True, GLITTER, 0x7100_5553),
        (False, False, 0xFFFF_FFFF, 0x4100_5553),
    ],
)
def test_a_leaf(*, accessed: bool, dirty: bool, attributes: int, entry: int) -> None:
    assert TOY.leaf_entry(1, 0x5550, READ, accessed=accessed, dirty=dirty, attributes=attributes) == entry
    assert TOY.output_of(entry) == 0x5550


def test_flags_are_replaced_and_nothing_else() -> None:
    entry = PRESENT | PAGE | 8 | 0x5550 | LOOK | POKE | USED | GRUBBY | GLITTER
    assert TOY.with_flags(entry, EXECUTE, accessed=False, dirty=True) == (
        PRESENT | PAGE | 8 | 0x5550 | RUN | GRUBBY | GLITTER
    )
    assert TOY.permission_mask == LOOK | POKE | RUN


def test_directories() -> None:
    assert TOY.table_entry(0x0012_3450, 2) == 0x0012_3451
    assert TOY.table_of(0x3712_3451) == 0x0012_3450
    assert TOY.next_bits(0x0012_3451, 0) == 2
    assert TOY.next_bits(0x0012_3451, 1) not in TOY.levels[1].index_bits
    assert (TOY.table_bytes(2), TOY.table_bytes(5)) == (16, 128)


def test_addresses_kept_shifted_and_widths_in_the_entry() -> None:
    assert LARGE.table_entry(0x1234_5000, 3) == 0x8000_0003 | 0x12_3450
    assert LARGE.table_of(0x8012_3453) == 0x1234_5000
    assert LARGE.next_bits(0x8012_3453, 0) == 3
    assert LARGE.leaf_entry(1, 0x1234_5000, READ, accessed=False, dirty=False) == 0x8112_3452
    assert LARGE.output_of(0x8112_3452) == 0x1234_5000


def test_a_permission_that_a_bit_takes_away() -> None:
    assert NEGATIVE.permission_mask == LOOK | NO_RUN
    assert NEGATIVE.permissions_of(LOOK) == READ | EXECUTE
    assert NEGATIVE.permissions_of(LOOK | NO_RUN) == READ
    assert NEGATIVE.with_flags(NO_RUN, EXECUTE, accessed=False, dirty=False) == 0
    assert NEGATIVE.with_flags(0, READ, accessed=False, dirty=False) == LOOK | NO_RUN
    assert not NEGATIVE.may_write(LOOK | POKE)


@pytest.mark.parametrize(
    ("wanted", "flags", "given_"),
    [(READ, LOOK, READ), (WRITE, 0, 0), (READ | WRITE, LOOK | POKE, READ | WRITE), (ALL_PERMISSIONS, LOOK | POKE, 6)],
)
def test_what_cannot_be_granted_alone_is_not_granted(wanted: int, flags: int, given_: int) -> None:
    entry = IMPLIED.with_flags(PRESENT, wanted, accessed=False, dirty=False)
    assert entry == PRESENT | flags
    assert IMPLIED.permissions_of(entry) == given_


def test_geometry() -> None:
    assert TOY.shifts((2, 2)) == (6, 4)
    assert TOY.widths(4) == (2, 2)
    # Of 8 bits: 2 and 2, 2 and 1, 2 and 3, 3 and 2, 3 and 1, 3 and 3.
    assert LARGE.widths(4) == (2, 2)
    assert LARGE.widths(5) == (2, 1)
    assert LARGE.widths(3) == (2, 3)
    assert LARGE.widths(2) == (3, 3)
    assert LARGE.shifts((3, 3)) == (5, 2)
    for shift in (1, 6):
        with pytest.raises(NestmmuError, match="large addresses has no tree of pages"):
            LARGE.widths(shift)


@pytest.mark.parametrize(
    ("entry", "depth", "text"),
    [
        (0, 0, "not valid"),
        (PAGE | 0x5550 | LOOK, 1, "not valid"),
        (PRESENT | 0x5550, 0, "table at 0x5550"),
        (PRESENT | PAGE | 0x5540 | LOOK | RUN | USED, 0, "page at 0x5540 r-x A-"),
        (PRESENT | PAGE | 0x5550 | POKE | GRUBBY, 1, "page at 0x5550 -w- -D"),
        (PRESENT | PAGE | LOOK | USED | GRUBBY | GLITTER, 1, "page at 0x0 r-- AD attributes 0x40000000"),
    ],
)
def test_what_an_entry_says_for_people(entry: int, depth: int, text: str) -> None:
    assert TOY.describe(entry, depth) == text


def test_what_a_wide_entry_says_for_people() -> None:
    assert LARGE.describe(0x8000_0011, 0) == "table at 0x1000, 1 bits"
    plain = attrs.evolve(TOY, accessed=0, dirty=0)
    assert plain.describe(PRESENT | PAGE | LOOK, 1) == "page at 0x0 r--"


@given(
    depth=st.integers(0, 1), page=st.integers(0, 0x3FFF), permissions=st.integers(0, 7),
    accessed=st.booleans(), dirty=st.booleans(), glitter=st.booleans(),
)  # fmt: skip
def test_what_is_put_into_a_leaf_comes_out(
    *, depth: int, page: int, permissions: int, accessed: bool, dirty: bool, glitter: bool
) -> None:
    attributes = GLITTER if glitter else 0
    entry = TOY.leaf_entry(depth, page << 6, permissions, accessed=accessed, dirty=dirty, attributes=attributes)
    assert TOY.valid(entry)
    assert TOY.levels[depth].leaf(entry)
    assert not any(match(entry) for match in TOY.reserved)
    assert (TOY.output_of(entry), TOY.permissions_of(entry)) == (page << 6, permissions)
    assert (bool(entry & USED), bool(entry & GRUBBY), entry & GLITTER) == (accessed, dirty, attributes)


def test_a_fault_for_people() -> None:
    fault = Fault(FaultKind.NOT_PRESENT, "toy table", Access.STORE, 0x45)
    assert str(fault) == "toy table: not present for a store of 0x45"
    fault = Fault(
        FaultKind.PERMISSION | FaultKind.ACCESSED_DIRTY, "table", Access.LOAD, 1, implicit=True, entry_address=0x20
    )
    assert str(fault) == "table: permission|accessed dirty for a load of 0x1 while reading a table, entry at 0x20"
