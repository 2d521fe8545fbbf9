"""What the toy's host does behind its guest's memory: pages taken away, asked for their use, and followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu.outcomes import Verdict
from nestmmu.points import Point, finish
from nestmmu.rmap import ReverseEntry
from nestmmu.slots import LinearBacking, Slot
from nestmmu.upkeep import (
    age,
    dirty_log,
    flush_slot,
    is_young,
    replace_slot,
    set_dirty_log,
    take_dirty,
    unmap,
    unmap_range,
)
from toy_arch.cpu import Trap
from toy_arch.formats import GRUBBY, PAGE, PRESENT, USED
from toy_arch.hypervisor import decode
from toy_arch.nest import ALL, DATA, L1_AT, L2_ASSIGNED, ToyNest

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.guests import Guest

LOAD, STORE = Access.LOAD, Access.STORE
FRAME = DATA >> 4


def nest_of(pages: dict[int, int], backing_shift: int = 4) -> ToyNest:
    """Return a nest whose L2 has written these pages; each leads to DATA plus so many. The toy faults for flags."""
    nest = ToyNest(backing_shift, AccessedDirty.FAULT)
    for page, target in pages.items():
        nest.map(page, DATA + 16 * target)
        result, outcome, _ = nest.access(STORE, page << 4)
        assert isinstance(result, Mapping), outcome
    nest.host.flushes.clear()
    return nest


def host_flags(nest: ToyNest, target: int = 0) -> tuple[bool, bool]:
    leaf = nest.guest.table.lookup(DATA + 16 * target)
    assert leaf is not None
    return leaf.accessed, leaf.dirty


def shadow_flags(nest: ToyNest, page: int) -> tuple[bool, bool]:
    entry = nest.shadow()[page << 4][2]
    return bool(entry & USED), bool(entry & GRUBBY)


class TestUnmap:
    """Pages taken away, from the host's table and from every shadow."""

    def test_a_range_of_pages(self) -> None:
        nest = nest_of({3: 0, 4: 1, 5: 2, 6: 3})
        snapshot = nest.guest.snapshot()
        assert unmap_range(nest.guest, DATA + 16, DATA + 48) == 2
        assert sorted(nest.shadow()) == [0x30, 0x60]
        assert nest.guest.rmap.frames() == [FRAME, FRAME + 3]
        assert nest.flush_log() == [
            (1, "page", DATA + 16, 4), (2, "page", 0x40, 4), (1, "page", DATA + 32, 4), (2, "page", 0x50, 4),
        ]  # fmt: skip
        assert nest.guest.changed_since(snapshot)
        assert not nest.guest.changed_since(nest.guest.snapshot())

    def test_a_shadow_that_leads_elsewhere_by_now_stays(self) -> None:
        """The reverse map still has it under the frame that it led to before."""
        nest = nest_of({3: 0})
        nest.map(3, DATA + 16)
        nest.nested.shadow.remove(0x30)
        nest.access(STORE, 0x30)
        assert nest.guest.rmap.frames() == [FRAME, FRAME + 1]
        assert unmap(nest.guest, DATA)
        assert nest.shadow()[0x30][0] == L1_AT + DATA + 16
        assert nest.guest.rmap.frames() == [FRAME + 1]

    def test_where_nothing_is_mapped(self) -> None:
        nest = nest_of({})
        assert unmap_range(nest.guest, 0, 256) == 0
        assert nest.flush_log() == []

    def test_a_large_page_counts_once(self) -> None:
        nest = nest_of({3: 0, 4: 3}, 6)
        assert unmap_range(nest.guest, DATA, DATA + 64) == 1
        assert nest.shadow() == {}

    def test_whoever_looks_while_it_is_going_on_looks_again(self) -> None:
        nest = nest_of({3: 0})
        guest, seen = nest.guest, []
        guest.table.flush = lambda _: seen.append(guest.changed_since(guest.snapshot()))
        unmap_range(guest, DATA, DATA + 16)
        assert seen == [True]
        assert guest.invalidating == 0

    @pytest.mark.parametrize("address", [DATA, DATA + 15])
    def test_any_byte_of_a_page(self, address: int) -> None:
        nest = nest_of({3: 0, 4: 1})
        assert unmap(nest.guest, address)
        assert not unmap(nest.guest, address)
        assert sorted(nest.shadow()) == [0x40]

    def test_an_access_in_between_looks_again(self) -> None:
        """The fault found the host's page; it was unmapped before the fault took the lock."""
        nest = nest_of({3: 0})
        nest.nested.shadow.remove(0x30)
        steps = nest.handler.handle(nest.nested, decode(Trap("NOPE", 2, 0x35, LOAD)))
        while next(steps) is not Point.PREEMPT:
            pass
        unmap_range(nest.guest, DATA, DATA + 16)
        assert finish(steps).verdict is Verdict.RESUME
        assert nest.shadow() == {}
        result, _, faults = nest.access(LOAD, 0x35)
        assert isinstance(result, Mapping)
        assert faults == 1


class TestAge:
    """Accessed is asked for, and forgotten."""

    def test_it_is_forgotten_in_every_table(self) -> None:
        nest = nest_of({3: 0, 9: 0, 4: 1})
        assert is_young(nest.guest, DATA)
        assert age(nest.guest, DATA)
        assert host_flags(nest) == (False, True)
        assert [shadow_flags(nest, page) for page in (3, 9, 4)] == [(False, True), (False, True), (True, True)]
        assert not is_young(nest.guest, DATA)
        assert not age(nest.guest, DATA)
        assert [one for one in nest.flush_log() if one[0] == 2] == [(2, "page", 0x90, 4), (2, "page", 0x30, 4)]

    def test_the_next_access_makes_it_young_again(self) -> None:
        nest = nest_of({3: 0})
        age(nest.guest, DATA)
        result, outcome, faults = nest.access(LOAD, 0x35)
        assert isinstance(result, Mapping)
        assert (outcome, faults) == (None, 1)
        assert is_young(nest.guest, DATA)
        assert shadow_flags(nest, 3) == (True, True)

    def test_what_is_not_mapped_is_not_young(self) -> None:
        nest = nest_of({})
        assert not is_young(nest.guest, DATA)
        assert not age(nest.guest, DATA)

    @pytest.mark.parametrize("habit", [False, True])
    def test_any_frame_of_a_large_page(self, *, habit: bool) -> None:
        """The reverse map has the shadow under the first frame of the host's page; the frame asked for is another."""
        nest = nest_of({3: 2}, 6)
        nest.guest.habits = attrs.evolve(nest.guest.habits, ages_asked_frame_only=habit)
        assert age(nest.guest, DATA + 32)
        assert shadow_flags(nest, 3)[0] is habit

    def test_entries_that_are_out_of_date_are_left_alone(self) -> None:
        nest = nest_of({3: 0})
        nest.map(3, DATA + 16)
        nest.nested.shadow.remove(0x30)
        nest.access(STORE, 0x30)
        assert age(nest.guest, DATA)
        assert shadow_flags(nest, 3) == (True, True)


class TestDirty:
    """Dirty is asked for, and forgotten: the next store has to be seen."""

    def test_it_is_forgotten_in_every_table_and_flushed(self) -> None:
        nest = nest_of({3: 0, 4: 1})
        assert take_dirty(nest.guest, DATA)
        assert (host_flags(nest), shadow_flags(nest, 3), shadow_flags(nest, 4)) == (
            (True, False), (True, False), (True, True),
        )  # fmt: skip
        assert nest.flush_log() == [(1, "page", DATA, 4), (2, "page", 0x30, 4)]
        assert not take_dirty(nest.guest, DATA)

    def test_a_page_that_is_large_in_every_table(self) -> None:
        """It is flushed as large as it is, whichever of its frames is asked for."""
        nest = nest_of({}, 6)
        nest.upper(1, PRESENT | PAGE | DATA | ALL)
        nest.access(STORE, 0x55)
        assert nest.shadow() == {0x40: (L1_AT + DATA, 6, PRESENT | PAGE | L1_AT + DATA | ALL)}
        nest.host.flushes.clear()
        assert take_dirty(nest.guest, DATA + 32)
        assert shadow_flags(nest, 4) == (True, False)
        assert nest.flush_log() == [(1, "page", DATA, 6), (2, "page", 0x40, 6)]

    def test_the_next_store_is_seen_and_a_load_is_none(self) -> None:
        nest = nest_of({3: 0})
        take_dirty(nest.guest, DATA)
        assert nest.access(LOAD, 0x35)[2] == 0
        assert not take_dirty(nest.guest, DATA)
        assert nest.access(STORE, 0x35)[2] == 1
        assert take_dirty(nest.guest, DATA)

    @pytest.mark.parametrize("habit", [False, True])
    def test_whose_tag_is_flushed(self, *, habit: bool) -> None:
        nest = nest_of({3: 0})
        nest.guest.habits = attrs.evolve(nest.guest.habits, flushes_flags_by_assigned_tag=habit)
        take_dirty(nest.guest, DATA)
        # L1 calls its guest 5; the hardware knows it as 2.
        assert nest.flush_log()[-1] == (5 if habit else 2, "page", 0x30, 4)

    @pytest.mark.parametrize("habit", [False, True])
    @pytest.mark.parametrize("ask", [take_dirty, age])
    def test_a_fault_under_way_looks_again(self, ask: Callable[[Guest, int], bool], *, habit: bool) -> None:
        """It read the host's entry before the flags went; with the habit the shadow gets them all the same."""
        nest = nest_of({3: 0})
        nest.guest.habits = attrs.evolve(nest.guest.habits, flags_keep_sequence=habit)
        nest.nested.shadow.remove(0x30)
        steps = nest.handler.handle(nest.nested, decode(Trap("NOPE", 2, 0x35, STORE)))
        while next(steps) is not Point.PREEMPT:
            pass
        ask(nest.guest, DATA)
        assert finish(steps).verdict is Verdict.RESUME
        assert nest.shadow() == ({0x30: (L1_AT + DATA, 4, PRESENT | PAGE | L1_AT + DATA | ALL)} if habit else {})


def logged(nest: ToyNest) -> set[int]:
    """Return the base pages that the log of the whole memory names."""
    slot = nest.guest.slots.find(0)
    assert slot is not None
    found = dirty_log(nest.guest, slot)
    assert found.dtype == np.uint8
    assert found.shape == (2,)
    return {page for page in range(16) if found[page // 8] >> page % 8 & 1}


def log_bytes(nest: ToyNest, address: int) -> bytes:
    """Return the log of the slot that holds ``address``."""
    slot = nest.guest.slots.find(address)
    assert slot is not None
    return dirty_log(nest.guest, slot).tobytes()


def split(nest: ToyNest, at: int) -> None:
    """Make two slots of the one; both are logged, and nothing is unmapped."""
    slots = nest.guest.slots
    slots.remove(nest.slot)
    slots.add(Slot(0, at, dirty_log=True))
    slots.add(Slot(at, 256 - at, dirty_log=True))


class TestDirtyLog:
    """A bit for each base page of a slot, the first in bit 0."""

    def test_pages_written_since_the_last_time(self) -> None:
        nest = nest_of({})
        set_dirty_log(nest.guest, nest.slot, on=True)
        nest.map(3, DATA + 16)
        nest.map(4, DATA + 112)
        for address in (0x30, 0x40):
            nest.access(STORE, address)
        assert logged(nest) == {9, 15}
        assert logged(nest) == set()
        nest.access(LOAD, 0x30)
        assert logged(nest) == set()
        nest.access(STORE, 0x40)
        assert logged(nest) == {15}

    def test_a_page_that_was_unmapped_meanwhile(self) -> None:
        nest = nest_of({})
        set_dirty_log(nest.guest, nest.slot, on=True)
        nest.map(3, DATA)
        nest.access(STORE, 0x30)
        unmap_range(nest.guest, 0, 256)
        assert logged(nest) == {8}
        assert logged(nest) == set()

    def test_large_pages_are_taken_away_while_it_is_on_and_come_back(self) -> None:
        nest = nest_of({3: 0}, 6)
        assert [leaf.page_shift for leaf in nest.guest.table.table.leaves()] == [6]
        slot = set_dirty_log(nest.guest, nest.slot, on=True)
        assert slot == attrs.evolve(nest.slot, dirty_log=True)
        assert list(nest.guest.slots) == [slot]
        assert nest.shadow() == {}
        nest.access(STORE, 0x30)
        assert [leaf.page_shift for leaf in nest.guest.table.table.leaves()] == [4]
        slot = set_dirty_log(nest.guest, slot, on=False)
        assert nest.shadow() == {}
        assert nest.guest.dirty == set()
        nest.access(STORE, 0x30)
        assert [leaf.page_shift for leaf in nest.guest.table.table.leaves()] == [6]

    @pytest.mark.parametrize("unmapped", [False, True])
    def test_each_slot_has_a_log_of_its_own(self, *, unmapped: bool) -> None:
        """0x70 is the last of eight pages of the lower slot, DATA + 16 the second of the upper one."""
        nest = nest_of({3: 1, 4: -1})
        split(nest, DATA)
        if unmapped:
            unmap_range(nest.guest, 0, 256)
        assert log_bytes(nest, DATA) == b"\x02"
        assert log_bytes(nest, DATA) == b"\x00"
        assert log_bytes(nest, 0) == b"\x80"
        assert log_bytes(nest, 0) == b"\x00"

    def test_a_large_page_is_named_as_a_whole(self) -> None:
        nest = nest_of({3: 5}, 6)
        split(nest, DATA)
        assert log_bytes(nest, DATA) == b"\xf0"

    @pytest.mark.parametrize(("address", "log"), [(0, b"\x00\x03"), (DATA + 32, b"\x03")])
    def test_of_a_large_page_across_two_slots_each_names_its_part(self, address: int, log: bytes) -> None:
        """Four pages from DATA on; the upper slot begins at the third. The lower has 10 pages, the upper 6."""
        nest = nest_of({3: 0}, 6)
        split(nest, DATA + 32)
        assert log_bytes(nest, address) == log

    def test_switching_one_off_leaves_the_others(self) -> None:
        nest = nest_of({3: 0, 4: -1})
        split(nest, DATA)
        unmap_range(nest.guest, 0, 256)
        set_dirty_log(nest.guest, Slot(DATA, DATA, dirty_log=True), on=False)
        assert log_bytes(nest, DATA) == b"\x00"
        assert log_bytes(nest, 0) == b"\x80"

    @pytest.mark.parametrize("unmapped", [False, True])
    def test_switching_it_on_again_loses_nothing(self, *, unmapped: bool) -> None:
        nest = nest_of({})
        slot = set_dirty_log(nest.guest, nest.slot, on=True)
        nest.map(3, DATA)
        nest.access(STORE, 0x30)
        if unmapped:
            unmap_range(nest.guest, 0, 256)
        set_dirty_log(nest.guest, slot, on=True)
        assert logged(nest) == {8}

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.sampled_from(["store", "load", "log", "unmap"]), st.integers(0, 7)), max_size=30))
    def test_no_store_goes_unseen(self, steps: list[tuple[str, int]]) -> None:
        """A page may be named that was not written: a page that the host may write is mapped dirty at once."""
        nest = nest_of({})
        set_dirty_log(nest.guest, nest.slot, on=True)
        written: set[int] = set()
        for page in range(8):
            nest.map(page, DATA + 16 * page)
        for what, page in steps:
            if what == "log":
                assert logged(nest) >= written
                written.clear()
            elif what == "unmap":
                unmap_range(nest.guest, DATA + 16 * page, DATA + 16 * page + 16)
            else:
                result, outcome, _ = nest.access(STORE if what == "store" else LOAD, page << 4)
                assert isinstance(result, Mapping), outcome
                if what == "store":
                    written.add(FRAME + page)
        assert logged(nest) >= written


class TestSlots:
    """Slots that come, go and change."""

    def test_flushing_a_slot_leaves_the_others(self) -> None:
        nest = nest_of({3: 0, 4: 4})
        snapshot = nest.guest.snapshot()
        flush_slot(nest.guest, Slot(DATA, 64))
        assert sorted(nest.shadow()) == [0x40]
        assert [leaf.page_start for leaf in nest.guest.table.table.leaves()] == [DATA + 64]
        assert nest.guest.changed_since(snapshot)

    def test_a_slot_is_deleted(self) -> None:
        nest = nest_of({3: 0})
        replace_slot(nest.guest, nest.slot, None)
        assert (list(nest.guest.slots), nest.shadow(), len(nest.guest.rmap)) == ([], {}, 0)
        assert list(nest.guest.table.table.leaves()) == []
        replace_slot(nest.guest, None, Slot(0, DATA))
        _, outcome, _ = nest.access(LOAD, 0x35)
        assert outcome is not None
        assert (outcome.verdict, outcome.address) == (Verdict.EMULATE, DATA + 5)

    def test_what_the_reverse_map_has_of_a_deleted_slot_is_forgotten(self) -> None:
        """Also what is out of date: the host has no page at the first of these frames."""
        nest = nest_of({})
        for frame in (FRAME - 1, FRAME, 16):
            nest.guest.rmap.insert(frame, ReverseEntry(AssignedTag(L2_ASSIGNED), 0x30))
        replace_slot(nest.guest, nest.slot, None)
        assert nest.guest.rmap.frames() == [16]

    def test_a_slot_is_moved(self) -> None:
        """What L1 maps beyond the new slot is a device's; what is behind the rest is found again."""
        nest = nest_of({3: 0, 4: 4})
        replace_slot(nest.guest, nest.slot, Slot(0, DATA + 64))
        assert nest.shadow() == {}
        assert isinstance(nest.access(LOAD, 0x35)[0], Mapping)
        _, outcome, _ = nest.access(LOAD, 0x45)
        assert outcome is not None
        assert outcome.verdict is Verdict.EMULATE

    def test_a_slot_whose_memory_is_elsewhere(self) -> None:
        nest = nest_of({3: 0})
        nest.memory.write(L1_AT + 0x1000, nest.memory.read(L1_AT, 256))
        nest.guest.backing = LinearBacking(L1_AT + 0x1000, 4)
        replace_slot(nest.guest, nest.slot, attrs.evolve(nest.slot, name="moved"))
        result, _, _ = nest.access(LOAD, 0x35)
        assert isinstance(result, Mapping)
        assert result.output_address == L1_AT + 0x1000 + DATA + 5

    @pytest.mark.parametrize("new", [Slot(0x20, 0x1F0), Slot(0x10, 0)])
    def test_what_cannot_be_added_changes_nothing(self, new: Slot) -> None:
        nest = nest_of({3: 0})
        other = Slot(0x200, 0x100)
        nest.guest.slots.add(other)
        with pytest.raises(NestmmuError):
            replace_slot(nest.guest, nest.slot, new)
        assert list(nest.guest.slots) == [nest.slot, other]
        assert sorted(nest.shadow()) == [0x30]

    def test_a_freed_range_does_not_translate(self) -> None:
        nest = nest_of({3: 0})
        replace_slot(nest.guest, nest.slot, None)
        with pytest.raises(Fault):
            nest.guest.table.table.lookup(DATA)
