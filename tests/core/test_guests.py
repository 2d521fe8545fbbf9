"""Guests and their nested guests: what a removed page takes with it, and who holds whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.errors import NestmmuError, PoisonedError
from nestmmu.guests import NestedGuest
from nestmmu.habits import Habits
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.points import finish
from nestmmu.rmap import ReverseEntry
from nestmmu.slots import Slot, Slots
from toy_arch.nest import DATA, L1_AT, L1_ROOTS, L1_UPPER, L2_ASSIGNED, ROOTS, ToyNest

if TYPE_CHECKING:
    from nestmmu.points import Steps

LOAD, STORE = Access.LOAD, Access.STORE
OTHER = AssignedTag(6)


class TestSequence:
    """Who looked before a change has to look again."""

    def test_nothing_changed(self) -> None:
        guest = ToyNest().guest
        assert not guest.changed_since(guest.snapshot())

    def test_a_change_is_seen_while_it_goes_on_and_afterwards(self) -> None:
        guest = ToyNest().guest
        before = guest.snapshot()
        guest.begin_invalidation()
        during = guest.snapshot()
        assert guest.changed_since(before)
        assert guest.changed_since(during)
        guest.end_invalidation()
        assert guest.changed_since(before)
        assert guest.changed_since(during)
        assert not guest.changed_since(guest.snapshot())

    def test_of_two_changes_the_second_counts_too(self) -> None:
        guest = ToyNest().guest
        guest.begin_invalidation()
        guest.begin_invalidation()
        guest.end_invalidation()
        between = guest.snapshot()
        assert guest.changed_since(between)
        guest.end_invalidation()
        assert guest.changed_since(between)


class TestPageRemoved:
    """The host takes the page behind L1's DATA out of its table for L1."""

    def test_every_shadow_entry_goes_with_it(self) -> None:
        nest = ToyNest()
        for page in (3, 9):
            nest.map(page, DATA)
            nest.access(STORE, page << 4)
        nest.map(4, DATA + 16)
        nest.access(LOAD, 0x40)
        nest.host.flushes.clear()
        nest.guest.table.remove(DATA)
        assert sorted(nest.shadow()) == [0x40]
        # First the host's own table, then the shadow's, newest first.
        assert nest.flush_log() == [(1, "page", DATA, 4), (2, "page", 0x90, 4), (2, "page", 0x30, 4)]
        assert nest.guest.rmap.frames() == [(DATA >> 4) + 1]

    def test_of_a_large_page_every_frame(self) -> None:
        nest = ToyNest(6)
        for page in range(4):
            nest.map(page, DATA + 16 * (3 - page))
            nest.access(STORE, page << 4)
        assert len(nest.shadow()) == 4
        nest.guest.table.remove(DATA + 0x25)
        assert nest.shadow() == {}
        assert len(nest.guest.rmap) == 0

    def test_an_entry_that_is_out_of_date_stays(self) -> None:
        """L1 moved L2's page: what was noted for the old frame no longer leads there."""
        nest = ToyNest()
        nest.map(3, DATA)
        nest.access(LOAD, 0x30)
        nest.map(3, DATA + 16)
        nest.nested.shadow.remove(0x30)
        nest.access(LOAD, 0x30)
        nest.guest.table.remove(DATA)
        assert {at: target for at, (target, _, _) in nest.shadow().items()} == {0x30: L1_AT + DATA + 16}
        nest.guest.table.remove(DATA + 16)
        assert nest.shadow() == {}

    def test_entries_of_what_is_gone_are_ignored(self) -> None:
        nest = ToyNest()
        nest.map(3, DATA)
        nest.access(LOAD, 0x30)
        nest.guest.rmap.insert(DATA >> 4, ReverseEntry(OTHER, 0x30))
        nest.guest.rmap.insert(DATA >> 4, ReverseEntry(AssignedTag(L2_ASSIGNED), 0xF0))
        nest.guest.table.remove(DATA)
        assert nest.shadow() == {}

    @pytest.mark.parametrize(("log", "access"), [(True, STORE), (False, STORE), (True, LOAD)])
    def test_a_dirty_page_of_a_logged_slot_is_remembered(self, *, log: bool, access: Access) -> None:
        nest = ToyNest()
        nest.guest.slots = Slots((Slot(0, 256, read_only=access is LOAD, dirty_log=log),))
        nest.map(3, DATA)
        nest.access(access, 0x30)
        nest.guest.table.remove(DATA)
        assert nest.guest.dirty == ({DATA >> 4} if log and access is STORE else set())


class TestTags:
    """Tags of the hardware."""

    def test_the_lowest_that_is_free(self) -> None:
        tags = TagAllocator(2, 5)
        assert [tags.allocate() for _ in range(4)] == [2, 3, 4, None]
        tags.free(HardwareTag(3))
        assert [tags.allocate(), tags.allocate()] == [3, None]

    @pytest.mark.parametrize("tag", [1, 3])
    def test_what_is_not_in_use_is_not_freed(self, tag: int) -> None:
        tags = TagAllocator(2, 5)
        tags.allocate()
        with pytest.raises(NestmmuError):
            tags.free(HardwareTag(tag))
        tags.free(HardwareTag(2))


class Life:
    """L1 may assign tags below 8; hardware has tags 3 and 4 for nested guests, besides that of the toy nest."""

    def __init__(self) -> None:
        self.nest = ToyNest()
        self.guest = self.nest.guest
        self.tags = TagAllocator(3, 5)
        self.nested = NestedGuests[NestedGuest](self.nest.host, self.guest, self.tags, lambda: 8)
        del self.guest.nested[AssignedTag(L2_ASSIGNED)]

    def get(self, tag: AssignedTag = OTHER, *, create: bool = True) -> NestedGuest | None:
        return finish(self.nested.get(tag, create=create))

    def root_word(self, tag: int) -> int:
        return int.from_bytes(self.nest.memory.read(ROOTS + 4 * tag, 4), "little")


class TestLife:
    """Nested guests are found or made, counted, and released by the last who holds them."""

    def test_made_once_and_found_again(self) -> None:
        life = Life()
        assert life.get(create=False) is None
        made = life.get()
        assert made is not None
        assert (made.assigned, made.tag, made.references) == (6, 3, 2)
        assert life.root_word(3) == made.tree.table.root.base
        assert life.get() is made
        assert life.get(create=False) is made
        assert made.references == 4
        assert life.guest.nested == {6: made}

    @pytest.mark.parametrize("tag", [8, 9, 1 << 40])
    def test_a_tag_that_l1_may_not_assign(self, tag: int) -> None:
        life = Life()
        assert life.get(AssignedTag(tag)) is None
        assert life.tags.used == set()
        assert life.get(AssignedTag(7)) is not None

    def test_no_tags_left(self) -> None:
        life = Life()
        assert [life.get(AssignedTag(tag)) is None for tag in (1, 2, 3)] == [False, False, True]

    def test_no_page_for_a_root_gives_the_tag_back(self) -> None:
        life = Life()
        life.nest.allocator.limit = 0
        assert life.get() is None
        assert life.tags.used == set()

    def test_the_last_to_let_go_releases_it(self) -> None:
        life = Life()
        pages = set(life.nest.allocator.used)
        made = life.get()
        assert made is not None
        finish(life.nested.put(made))
        finish(life.nested.remove(made))
        assert made.references == 0
        assert life.guest.nested == {}
        assert life.tags.used == set()
        assert life.root_word(3) == 0
        assert set(life.nest.allocator.used) == pages
        assert (3, "tag", 0, 0) in life.nest.flush_log()
        with pytest.raises(PoisonedError):
            life.nest.memory.read(made.tree.table.root.base, 4)
        with pytest.raises(NestmmuError):
            finish(life.nested.put(made))

    def test_removed_while_someone_holds_it(self) -> None:
        life = Life()
        made = life.get()
        assert made is not None
        finish(life.nested.remove(made))
        finish(life.nested.remove(made))
        assert (made.references, life.guest.nested, life.tags.used) == (1, {}, {3})
        successor = life.get()
        assert successor is not None
        assert (successor is made, successor.tag) == (False, 4)
        finish(life.nested.put(made))
        assert life.tags.used == {4}

    def test_flush_empties_the_shadow_and_keeps_the_guest(self) -> None:
        nest = ToyNest()
        nest.map(3, DATA)
        nest.access(LOAD, 0x30)
        nested = NestedGuests[NestedGuest](nest.host, nest.guest, TagAllocator(3, 5), lambda: 8)
        nest.host.flushes.clear()
        finish(nested.flush(nest.nested))
        assert nest.shadow() == {}
        assert nest.flush_log() == [(2, "tag", 0, 0)]
        assert nest.guest.nested == {L2_ASSIGNED: nest.nested}
        nest.access(LOAD, 0x30)
        assert sorted(nest.shadow()) == [0x30]

    def test_each_holds_all_in_order(self) -> None:
        life = Life()
        made = [life.get(AssignedTag(tag)) for tag in (7, 2)]
        assert finish(life.nested.each()) == made[::-1]
        assert [one.references for one in made if one is not None] == [3, 3]
        assert [life.nested.after(tag) for tag in (-1, 2, 6, 7)] == [2, 7, 7, -1]

    def test_release_all(self) -> None:
        life = Life()
        for tag in (7, 2):
            made = life.get(AssignedTag(tag))
            assert made is not None
            finish(life.nested.put(made))
        life.guest.rmap.insert(8, ReverseEntry(OTHER, 0))
        finish(life.nested.release_all())
        assert (life.guest.nested, life.tags.used, len(life.guest.rmap)) == ({}, set(), 0)

    @pytest.mark.parametrize("loses", [False, True])
    def test_two_make_one_guest_at_once(self, *, loses: bool) -> None:
        life = Life()
        life.guest.habits = Habits(loses_creation_race=loses)
        first: Steps[NestedGuest | None] = life.nested.get(OTHER, create=True)
        for _ in range(3):
            next(first)
        second = life.get()
        winner = finish(first)
        assert winner is not None
        assert second is (None if loses else winner)
        assert winner.references == (2 if loses else 3)
        assert len(life.tags.used) == 1
        assert life.guest.nested == {OTHER: winner}


def test_the_toy_reads_l1s_root_afresh() -> None:
    nest = ToyNest()
    nest.map(3, DATA)
    assert nest.handler.has_root(nest.nested)
    nest.word(L1_ROOTS + 4 * L2_ASSIGNED, 0)
    assert not nest.handler.has_root(nest.nested)
    nest.word(L1_ROOTS + 4 * L2_ASSIGNED, L1_UPPER)
    assert nest.handler.has_root(nest.nested)
