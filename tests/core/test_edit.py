"""Edits of a table, by raw words, on a made-up format of three levels: entries of eight bytes, big-endian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.addresses import HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.edit import Insertion, TableEditor
from nestmmu.errors import OutOfPagesError, PoisonedError
from nestmmu.formats import Level, Match, RadixFormat
from nestmmu.habits import Habits
from nestmmu.memory import PhysicalMemory
from nestmmu.radix import RadixTable, RadixWalker, Root

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.invalidation import Flush
    from nestmmu.mappings import Mapping
    from nestmmu.memory import ByteOrder

V, LEAF, R, W, X, A, D = (1 << bit for bit in range(63, 56, -1))
PAGE = V | LEAF
ADDRESS = (1 << 48) - 16
WIDTHS, SHIFTS = (2, 3, 3), (10, 7, 4)
MIDDLE, LOW = 1, 2
IS_LEAF = Match(LEAF, LEAF)
FORM = RadixFormat(
    name="made up",
    input_bits=12,
    levels=(
        Level("top", (2,), IS_LEAF, may_leaf=False),
        Level("middle", (3,), IS_LEAF),
        Level("low", (3,), IS_LEAF, may_table=False),
    ),
    entry_bytes=8,
    byteorder="big",
    valid=Match(V, V),
    output_mask=ADDRESS,
    table_mask=ADDRESS,
    permissions=((Match(R, R), READ), (Match(W, W), WRITE), (Match(X, X), EXECUTE)),
    accessed=A,
    dirty=D,
)
ROOT, FIRST, SECOND = 0x100000, 0x101000, 0x102000
AT = 0xABC
"""In binary 10 101 011 1100: entry 2 of the root, 5 of the middle table, 3 of the low one."""
TOP_SLOT, MIDDLE_SLOT, LOW_SLOT = ROOT + 2 * 8, FIRST + 5 * 8, SECOND + 3 * 8
TAG = 7


class Logged(PhysicalMemory):
    """A memory that notes the words that are stored, in one log with the flushes."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[object, ...]] = []

    def storer(self, size: int, byteorder: ByteOrder) -> Callable[[int, int], None]:
        store = super().storer(size, byteorder)

        def logged(address: int, value: int) -> None:
            self.log.append(("store", address, value))
            store(address, value)

        return logged


class Edited:
    """An empty table and its editor; pages for ``tables`` tables, the root among them."""

    def __init__(self, tables: int = 64, habits: Habits | None = None) -> None:
        self.memory = Logged()
        self.allocator = PageAllocator(self.memory, ROOT, ROOT + 4096 * tables)
        table = RadixTable(RadixWalker(FORM, self.memory, "made up"), Root(self.allocator.allocate(32), 2))
        self.editor = TableEditor(table, WIDTHS, self.allocator, HardwareTag(TAG), self.flush, self.removed)
        self.gone: list[Mapping] = []
        if habits is not None:
            self.editor.habits = habits

    def flush(self, flush: Flush) -> None:
        self.memory.log.append(("flush", int(flush.tag), flush.kind.value, flush.address, flush.page_shift))

    def removed(self, leaf: Mapping) -> None:
        self.memory.log.append(("removed", leaf.input_address))
        self.gone.append(leaf)

    def log(self) -> list[tuple[object, ...]]:
        """Return what was logged since the last time."""
        log, self.memory.log = self.memory.log, []
        return log

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 8), "big")

    def insert(self, address: int, entry: int, depth: int = LOW) -> Insertion:
        spares = self.editor.prepare(address, depth)
        result = self.editor.insert(address, entry, depth, spares)
        self.editor.release(spares)
        return result

    def leaves(self) -> dict[int, tuple[int, int]]:
        return {leaf.page_start: (leaf.target_start, leaf.page_shift) for leaf in self.editor.table.leaves()}


def page_flush(address: int, shift: int) -> tuple[object, ...]:
    return ("flush", TAG, "page", address, shift)


def test_tables_are_made_from_the_root_down_and_the_leaf_is_last() -> None:
    table = Edited()
    assert table.insert(AT, PAGE | R | 0x70000) is Insertion.ADDED
    assert table.log() == [
        ("store", TOP_SLOT, V | FIRST),
        ("store", MIDDLE_SLOT, V | SECOND),
        ("store", LOW_SLOT, PAGE | R | 0x70000),
    ]
    assert set(table.allocator.used) == {ROOT, FIRST, SECOND}
    assert table.leaves() == {0xAB0: (0x70000, 4)}


def test_tables_that_are_there_are_used() -> None:
    table = Edited()
    table.insert(AT, PAGE | R | 0x70000)
    table.log()
    assert table.insert(0xAC0, PAGE | R | 0x90000) is Insertion.ADDED
    assert table.log() == [("store", LOW_SLOT + 8, PAGE | R | 0x90000)]
    assert len(table.allocator.used) == 3


@pytest.mark.parametrize(
    ("there", "depth", "levels"),
    [(None, LOW, {1, 2}), (None, MIDDLE, {1}), (LOW, LOW, set()), (LOW, MIDDLE, set()), (MIDDLE, LOW, {2})],
)
def test_only_tables_that_are_missing_are_prepared(there: int | None, depth: int, levels: set[int]) -> None:
    table = Edited()
    if there is not None:
        table.insert(AT, PAGE | R | 0x70000, there)
    before = set(table.allocator.used)
    table.log()
    spares = table.editor.prepare(AT, depth)
    assert set(spares) == levels
    assert set(table.allocator.used) == before | set(spares.values())
    assert table.log() == []
    table.editor.release(spares)
    assert (spares, set(table.allocator.used)) == ({}, before)


def test_where_pages_run_out_none_is_kept() -> None:
    table = Edited(tables=2)
    with pytest.raises(OutOfPagesError):
        table.editor.prepare(AT, LOW)
    assert set(table.allocator.used) == {ROOT}
    assert table.word(TOP_SLOT) == 0


def test_the_same_leaf() -> None:
    table = Edited()
    table.insert(AT, PAGE | R | 0x70000)
    table.log()
    assert table.insert(AT, PAGE | R | 0x70000) is Insertion.SAME
    assert table.log() == []


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [(R, R | W, R | W), (R | A, W, R | W | A), (R | W | A | D, R, R | W | A | D), (X, R | D | A, R | X | D | A)],
)
@pytest.mark.parametrize("habits", [Habits(), Habits(merges_targets=True)])
def test_bits_are_only_ever_added(old: int, new: int, merged: int, habits: Habits) -> None:
    table = Edited(habits=habits)
    table.insert(AT, PAGE | old | 0x70000)
    table.log()
    assert table.insert(AT, PAGE | new | 0x70000) is Insertion.MERGED
    assert table.log() == [("store", LOW_SLOT, PAGE | merged | 0x70000)]


def test_a_leaf_that_leads_elsewhere_is_removed_first() -> None:
    table = Edited()
    table.insert(AT, PAGE | R | W | 0x50000)
    table.log()
    assert table.insert(AT, PAGE | R | 0x60000) is Insertion.ADDED
    assert table.log() == [
        ("store", LOW_SLOT, 0),
        page_flush(0xAB0, 4),
        ("removed", 0xAB0),
        ("store", LOW_SLOT, PAGE | R | 0x60000),
    ]
    assert [leaf.target_start for leaf in table.gone] == [0x50000]


def test_the_habit_of_merging_targets() -> None:
    """0x50000 | 0x60000 = 0x70000: a page that neither leaf led to, and no flush."""
    table = Edited(habits=Habits(merges_targets=True))
    table.insert(AT, PAGE | R | W | 0x50000)
    table.log()
    assert table.insert(AT, PAGE | R | 0x60000) is Insertion.MERGED
    assert table.log() == [("store", LOW_SLOT, PAGE | R | W | 0x70000)]
    assert table.gone == []


def test_a_larger_leaf_gives_way() -> None:
    table = Edited()
    table.insert(AT, PAGE | R | A | 0x70000, MIDDLE)
    table.log()
    assert table.insert(AT, PAGE | R | 0x90000) is Insertion.ADDED
    assert table.log() == [
        ("store", MIDDLE_SLOT, 0),
        page_flush(0xA80, 7),
        ("removed", 0xA80),
        ("store", MIDDLE_SLOT, V | SECOND),
        ("store", LOW_SLOT, PAGE | R | 0x90000),
    ]
    assert table.leaves() == {0xAB0: (0x90000, 4)}
    gone = table.gone[0]
    assert (gone.target_start, gone.page_shift, gone.permissions, gone.accessed, gone.dirty) == (
        0x70000, 7, READ, True, False,
    )  # fmt: skip


def test_a_larger_leaf_that_came_after_the_look_is_for_another_try() -> None:
    table = Edited()
    table.insert(AT, PAGE | R | 0x70000)
    spares = table.editor.prepare(AT, LOW)
    assert spares == {}
    table.insert(AT, PAGE | R | 0x80000, MIDDLE)
    table.log()
    assert table.editor.insert(AT, PAGE | R | 0x90000, LOW, spares) is Insertion.AGAIN
    assert table.log() == []
    assert table.leaves() == {0xA80: (0x80000, 7)}


@pytest.mark.parametrize("kept", [(), (1,)])
def test_a_missing_table_without_a_spare(kept: tuple[int, ...]) -> None:
    table = Edited()
    spares = {level: page for level, page in table.editor.prepare(AT, LOW).items() if level in kept}
    assert table.editor.insert(AT, PAGE | R | 0x70000, LOW, spares) is Insertion.NO_MEMORY
    assert table.leaves() == {}
    assert table.editor.lookup(AT) is None


def test_spares_that_another_made_needless_are_left() -> None:
    table = Edited()
    spares = table.editor.prepare(AT, LOW)
    table.insert(AT, PAGE | R | 0x70000)
    assert table.editor.insert(0xAC0, PAGE | R | 0x90000, LOW, spares) is Insertion.ADDED
    assert spares == {1: FIRST, 2: SECOND}
    table.editor.release(spares)
    assert table.leaves() == {0xAB0: (0x70000, 4), 0xAC0: (0x90000, 4)}
    assert len(table.allocator.used) == 3


@pytest.mark.parametrize(
    ("habits", "at"), [(Habits(), (0xAB0, 0xAF0)), (Habits(flushes_children_by_target=True), (0x70000, 0x90000))]
)
def test_a_table_in_the_way_is_dropped(habits: Habits, at: tuple[int, int]) -> None:
    """First the directory entry and the walk cache, then the pages below; then the table, and last the leaf."""
    table = Edited(habits=habits)
    table.insert(AT, PAGE | R | 0x70000)
    table.insert(0xAF0, PAGE | R | W | D | 0x90000)
    table.insert(0xA00, PAGE | R | 0xA0000, MIDDLE)
    table.log()
    assert table.insert(AT, PAGE | R | 0xB0000, MIDDLE) is Insertion.ADDED
    assert table.log() == [
        ("store", MIDDLE_SLOT, 0),
        ("flush", TAG, "walk cache", 0, 0),
        ("store", LOW_SLOT, 0),
        page_flush(at[0], 4),
        ("removed", at[0]),
        ("store", SECOND + 7 * 8, 0),
        page_flush(at[1], 4),
        ("removed", at[1]),
        ("store", MIDDLE_SLOT, PAGE | R | 0xB0000),
    ]
    assert [(leaf.target_start, leaf.dirty) for leaf in table.gone] == [(0x70000, False), (0x90000, True)]
    assert set(table.allocator.used) == {ROOT, FIRST}
    assert table.leaves() == {0xA00: (0xA0000, 7), 0xA80: (0xB0000, 7)}
    with pytest.raises(PoisonedError):
        table.word(LOW_SLOT)


def test_who_reads_a_dropped_table_later_is_in_error() -> None:
    table = Edited()
    table.insert(AT, PAGE | R | 0x70000)
    stale = table.editor.table.walker.find
    table.insert(AT, PAGE | R | 0xB0000, MIDDLE)
    table.memory.write(MIDDLE_SLOT, (V | SECOND).to_bytes(8, "big"))
    with pytest.raises(PoisonedError):
        stale(ROOT, 2, AT)
    with pytest.raises(PoisonedError):
        table.editor.clear_tree()


@pytest.mark.parametrize(("depth", "start", "shift"), [(LOW, 0xAB0, 4), (MIDDLE, 0xA80, 7)])
def test_remove(depth: int, start: int, shift: int) -> None:
    table = Edited()
    table.insert(AT, PAGE | R | W | A | D | 0x70000, depth)
    slot = {LOW: LOW_SLOT, MIDDLE: MIDDLE_SLOT}[depth]
    pages = dict(table.allocator.used)
    table.log()
    leaf = table.editor.remove(AT)
    assert leaf is not None
    assert (leaf.page_start, leaf.page_shift, leaf.target_start, leaf.dirty) == (start, shift, 0x70000, True)
    assert (leaf.entry_address, leaf.entry) == (slot, PAGE | R | W | A | D | 0x70000)
    assert table.log() == [("store", slot, 0), page_flush(start, shift), ("removed", start)]
    assert table.allocator.used == pages
    assert table.editor.remove(AT) is None
    assert table.log() == []


@pytest.mark.parametrize(
    ("flags", "accessed", "dirty", "after"),
    [
        (R | W, True, False, R | W | A),
        (R | W, True, True, R | W | A | D),
        (R | W | A, False, True, R | W | A | D),
        (R, True, False, R | A),
        (R, True, True, None),
        (R | X | A, False, True, None),
        (R | W | A | D, True, True, R | W | A | D),
    ],
)
def test_flags_are_added_and_dirty_only_where_stores_may_go(
    flags: int, accessed: bool, dirty: bool, after: int | None
) -> None:
    table = Edited()
    table.insert(AT, PAGE | flags | 0x70000)
    table.log()
    assert table.editor.add_flags(AT, accessed=accessed, dirty=dirty) is (after is not None)
    assert table.word(LOW_SLOT) == PAGE | (flags if after is None else after) | 0x70000
    assert all(entry[0] == "store" for entry in table.log())


@pytest.mark.parametrize(
    ("accessed", "dirty", "after"),
    [(True, False, D), (False, True, A), (True, True, 0), (False, False, A | D)],
)
def test_flags_are_cleared_and_nothing_is_flushed(accessed: bool, dirty: bool, after: int) -> None:
    table = Edited()
    table.insert(AT, PAGE | R | A | D | 0x70000)
    table.log()
    leaf = table.editor.clear_flags(AT, accessed=accessed, dirty=dirty)
    assert leaf is not None
    assert leaf.entry == PAGE | R | A | D | 0x70000
    assert (leaf.accessed, leaf.dirty) == (True, True)
    assert table.word(LOW_SLOT) == PAGE | R | after | 0x70000
    assert all(entry[0] == "store" for entry in table.log())


def test_where_there_is_no_leaf_there_are_no_flags() -> None:
    table = Edited()
    assert not table.editor.add_flags(AT, accessed=True, dirty=False)
    assert table.editor.clear_flags(AT, accessed=True, dirty=True) is None
    assert table.log() == []


def test_clearing_a_tree_frees_every_page_but_the_roots() -> None:
    table = Edited()
    for address in (0x000, 0x080, 0x400, AT, 0xFF0):
        table.insert(address, PAGE | R | 0x70000 + address)
    table.insert(0x780, PAGE | R | 0x90000, MIDDLE)
    assert len(table.allocator.used) == 1 + 4 + 5
    table.log()
    table.editor.clear_tree()
    assert set(table.allocator.used) == {ROOT}
    assert table.memory.read(ROOT, 32) == bytes(32)
    assert [entry for entry in table.log() if entry[0] != "store"] == []
    assert table.leaves() == {}
    with pytest.raises(PoisonedError):
        table.word(FIRST)
    table.editor.clear_tree()
    assert set(table.allocator.used) == {ROOT}
    table.insert(AT, PAGE | R | 0x70000)
    assert table.leaves() == {0xAB0: (0x70000, 4)}


@attrs.define
class Model:
    """What the table should say: leaves by address, and which tables there are."""

    leaves: dict[int, tuple[int, int, int]] = attrs.Factory(dict)
    """First address: target, shift, flags."""
    tables: set[tuple[int, int]] = attrs.Factory(set)
    """Shift of what the table spans, and its number."""

    def insert(self, address: int, target: int, shift: int, flags: int) -> None:
        page = address >> shift << shift
        found = self.leaves.get(page)
        if found is not None and found[:2] == (target, shift):
            flags |= found[2]
        for start in [start for start, (_, size, _) in self.leaves.items() if _meet(start, size, page, shift)]:
            del self.leaves[start]
        self.tables.add((10, address >> 10))
        if shift == 4:
            self.tables.add((7, address >> 7))
        else:
            self.tables.discard((7, address >> 7))
        self.leaves[page] = (target, shift, flags)

    def remove(self, address: int) -> None:
        for start in [start for start, (_, size, _) in self.leaves.items() if start <= address < start + (1 << size)]:
            del self.leaves[start]


def _meet(one: int, one_shift: int, other: int, other_shift: int) -> bool:
    return one < other + (1 << other_shift) and other < one + (1 << one_shift)


STEP = st.tuples(
    st.sampled_from(["small", "small", "large", "remove"]),
    st.one_of(st.integers(0, 4095), st.integers(0x380, 0x480)),
    st.sampled_from([0x70000, 0x90000, 0xB0000]),
    st.sampled_from([R, R | W | A, R | W | A | D, X]),
)


@given(steps=st.lists(STEP, max_size=40))
def test_any_edits_are_those_of_a_dict(steps: list[tuple[str, int, int, int]]) -> None:
    table, model = Edited(tables=100), Model()
    for what, address, target, flags in steps:
        if what == "remove":
            table.editor.remove(address)
            model.remove(address)
        else:
            depth, shift = (LOW, 4) if what == "small" else (MIDDLE, 7)
            assert table.insert(address, PAGE | flags | target, depth) not in {Insertion.AGAIN, Insertion.NO_MEMORY}
            model.insert(address, target, shift, flags)
    found = {
        leaf.page_start: (leaf.target_start, leaf.page_shift, (leaf.entry or 0) & (R | W | X | A | D))
        for leaf in table.editor.table.leaves()
    }
    assert found == model.leaves
    assert len(table.allocator.used) == 1 + len(model.tables)
    flushed = [entry[3:] for entry in table.log() if entry[:3] == ("flush", TAG, "page")]
    assert flushed == [(leaf.page_start, leaf.page_shift) for leaf in table.gone]
    table.editor.clear_tree()
    assert set(table.allocator.used) == {ROOT}
