"""The engine: walks, faults, leaves, on the toy's format and on tables made of raw words."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import ALL_PERMISSIONS, EXECUTE, READ, WRITE, Access
from nestmmu.errors import NestmmuError, TooLargeError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from toy_arch.formats import ADDRESS, FORBIDDEN, GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, TOY, USED

UPPER, LOWER = 0x100, 0x200
ALL = LOOK | POKE | RUN | USED | GRUBBY


class Table:
    def __init__(self, policy: AccessedDirty = AccessedDirty.IGNORE, form=TOY, size: int = 1 << 24) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        self.memory = PhysicalMemory(size)
        self.table = RadixTable(RadixWalker(form, self.memory, "toy table", policy), Root(UPPER, 2))

    def word(self, address: int, value: int) -> None:
        self.memory.write(address, value.to_bytes(4, "little"))

    def read(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 4), "little")

    def small(self, page: int, target: int, flags: int = ALL) -> None:
        self.word(UPPER + 4 * (page >> 2), PRESENT | LOWER + 16 * (page >> 2))
        self.word(LOWER + 4 * page, PRESENT | PAGE | target | flags)

    def fault(self, address: int, access: Access = Access.LOAD) -> Fault:
        with pytest.raises(Fault) as caught:
            self.table.translate(address, access)
        return caught.value


def test_a_small_page() -> None:
    table = Table()
    table.small(6, 0x5550)
    found = table.table.translate(0x6A, Access.STORE)
    assert (found.output_address, found.page_shift, found.permissions) == (0x555A, 4, ALL_PERMISSIONS)
    assert (found.page_start, found.target_start, found.entry_address) == (0x60, 0x5550, LOWER + 4 * 6)
    assert (found.accessed, found.dirty) == (True, True)


def test_a_large_page() -> None:
    table = Table()
    table.word(UPPER + 4, PRESENT | PAGE | 0x5540 | LOOK)
    found = table.table.translate(0x6A, Access.LOAD)
    assert (found.output_address, found.page_shift, found.permissions) == (0x556A, 6, READ)


def test_steps_of_a_walk_in_order() -> None:
    table = Table()
    table.small(6, 0x5550)
    steps = list(table.table.walk(0x6A))
    read = [(step.level, step.index, step.entry_address) for step in steps]
    assert read == [("upper", 1, 0x104), ("lower", 2, 0x218)]
    assert steps[0].meaning == "table at 0x210"
    assert steps[1].meaning == "page at 0x5550 rwx AD"


def test_the_steps_up_to_a_fault_come_before_it() -> None:
    table = Table()
    table.word(UPPER + 4, PRESENT | LOWER)
    walk = table.table.walk(0x6A)
    assert [next(walk).level, next(walk).level] == ["upper", "lower"]
    with pytest.raises(Fault):
        next(walk)


@pytest.mark.parametrize(
    ("upper", "lower", "kind", "depth", "at"),
    [
        (0, 0, FaultKind.NOT_PRESENT, 0, 0x104),
        (PRESENT | LOWER, 0, FaultKind.NOT_PRESENT, 1, 0x208),
        (PRESENT | LOWER, PRESENT | 0x5550, FaultKind.MALFORMED, 1, 0x208),
        (PRESENT | LOWER, PRESENT | PAGE | FORBIDDEN, FaultKind.MALFORMED, 1, 0x208),
        (PRESENT | FORBIDDEN | LOWER, 0, FaultKind.MALFORMED, 0, 0x104),
        (PRESENT | PAGE | 0x5550 | ALL, 0, FaultKind.MALFORMED, 0, 0x104),
        (PRESENT | 0xFFFFF0, 0, FaultKind.UNREADABLE, 1, 0xFFFFF8),
    ],
)
def test_each_fault_with_its_data(upper: int, lower: int, kind: FaultKind, depth: int, at: int) -> None:
    table = Table(size=0xFFFFF0)
    table.word(UPPER + 4, upper)
    table.word(LOWER + 8, lower)
    fault = table.fault(0x6A, Access.STORE)
    assert (fault.kind, fault.level, fault.entry_address) == (kind, depth, at)
    assert (fault.stage, fault.access, fault.input_address, fault.implicit) == ("toy table", Access.STORE, 0x6A, False)


@pytest.mark.parametrize(("flags", "allowed"), [(LOOK, READ), (POKE, WRITE), (RUN, EXECUTE), (0, 0)])
def test_permissions(flags: int, allowed: int) -> None:
    table = Table()
    table.small(6, 0x5550, flags)
    for access in Access:
        if access & allowed:
            assert table.table.translate(0x60, access).permissions == allowed
        else:
            assert table.fault(0x60, access).kind is FaultKind.PERMISSION


@pytest.mark.parametrize(("access", "bits"), [(Access.LOAD, USED), (Access.STORE, USED | GRUBBY), (Access.FETCH, USED)])
def test_accessed_and_dirty_by_each_policy(access: Access, bits: int) -> None:
    before = PRESENT | PAGE | 0x5550 | LOOK | POKE | RUN
    for policy, after in ((AccessedDirty.UPDATE, before | bits), (AccessedDirty.IGNORE, before)):
        table = Table(policy)
        table.small(6, 0x5550, LOOK | POKE | RUN)
        table.table.translate(0x60, access)
        assert table.read(LOWER + 24) == after
    table = Table(AccessedDirty.FAULT)
    table.small(6, 0x5550, LOOK | POKE | RUN)
    assert table.fault(0x60, access).kind is FaultKind.ACCESSED_DIRTY
    assert table.read(LOWER + 24) == before
    table.small(6, 0x5550, LOOK | POKE | RUN | bits)
    table.table.translate(0x60, access)


def test_an_entry_that_changes_is_read_anew() -> None:
    table = Table()
    table.small(6, 0x5550)
    assert table.table.translate(0x60, Access.LOAD).output_address == 0x5550
    table.small(6, 0x7770)
    assert table.table.translate(0x60, Access.LOAD).output_address == 0x7770
    table.small(6, 0x7770, LOOK)
    assert table.fault(0x60, Access.STORE).kind is FaultKind.PERMISSION


def test_formats_may_drop_low_bits_instead_of_refusing_them() -> None:
    form = attrs.evolve(TOY, strict_table=False, strict_output=False, table_mask=0x00FFFFF8)
    table = Table(form=form)
    table.word(UPPER + 4, PRESENT | PAGE | 0x5550 | LOOK)
    assert table.table.translate(0x6A, Access.LOAD).output_address == 0x556A
    table.word(UPPER + 4, PRESENT | 0x218)
    table.word(0x218, PRESENT | PAGE | 0x9990 | LOOK)
    assert table.table.translate(0x6A, Access.LOAD).output_address == 0x999A


PAGES = st.dictionaries(st.integers(0, 15), st.tuples(st.integers(0, ADDRESS >> 4), st.integers(0, 7)))


@given(pages=PAGES)
def test_translation_is_a_lookup(pages: dict[int, tuple[int, int]]) -> None:
    table = Table()
    for page, (target, rights) in pages.items():
        table.small(page, target << 4, rights << 24)
    for address in range(0, 256, 5):
        expected = pages.get(address >> 4)
        for access, bit in ((Access.LOAD, 1), (Access.STORE, 2), (Access.FETCH, 4)):
            if expected is None:
                assert table.fault(address, access).kind is FaultKind.NOT_PRESENT
            elif not expected[1] & bit:
                assert table.fault(address, access).kind is FaultKind.PERMISSION
            else:
                assert table.table.translate(address, access).output_address == expected[0] << 4 | address & 15
    leaves = {leaf.page_start >> 4: leaf.target_start >> 4 for leaf in table.table.leaves()}
    assert leaves == {page: target for page, (target, _) in pages.items()}


def test_leaves_of_a_range_are_those_that_touch_it() -> None:
    table = Table()
    for page in range(16):
        table.small(page, 0x1000 + 16 * page)
    table.word(UPPER + 8, PRESENT | PAGE | 0x5540 | ALL)
    assert [leaf.page_start for leaf in table.table.leaves(0x35, 0x91)] == [0x30, 0x40, 0x50, 0x60, 0x70, 0x80]
    assert [leaf.page_start for leaf in table.table.leaves(0xB0, 0xC0)] == [0x80]


def test_leaves_of_what_is_malformed_are_a_fault() -> None:
    table = Table()
    table.small(6, 0x5550)
    table.word(LOWER + 4 * 7, PRESENT | 0x5550)
    with pytest.raises(Fault) as caught:
        list(table.table.leaves())
    assert caught.value.kind is FaultKind.MALFORMED


def test_a_table_that_shares_itself_without_end_is_too_large() -> None:
    """Sixteen levels of two entries, all in one table: 65,536 leaves out of eight bytes."""
    level = attrs.evolve(TOY.levels[0], index_bits=(1,))
    form = attrs.evolve(TOY, input_bits=20, levels=(level,) * 16)
    memory = PhysicalMemory()
    for at in (0x100, 0x104):
        memory.write(at, (PRESENT | 0x100).to_bytes(4, "little"))
    table = RadixTable(RadixWalker(form, memory, "loop"), Root(0x100, 1))
    with pytest.raises((TooLargeError, Fault)):
        list(table.leaves())
    with pytest.raises(Fault) as caught:
        table.translate(0, Access.LOAD)
    assert caught.value.kind is FaultKind.MALFORMED


def test_widths_and_entries_of_a_format() -> None:
    assert TOY.shifts((2, 2)) == (6, 4)
    assert TOY.widths(4) == (2, 2)
    with pytest.raises(NestmmuError):
        TOY.widths(5)
    entry = TOY.leaf_entry(1, 0x5550, READ | EXECUTE, accessed=True, dirty=False, attributes=1 << 30)
    assert entry == PRESENT | PAGE | 0x5550 | LOOK | RUN | USED | 1 << 30
    assert TOY.table_entry(0x210, 2) == PRESENT | 0x210
