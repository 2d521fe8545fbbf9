"""Guests, and guests of guests, as their hosts keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nestmmu.addresses import AssignedTag, HardwareTag, align_down
from nestmmu.habits import NO_HABITS
from nestmmu.placement import Placement
from nestmmu.rmap import ReverseMap

if TYPE_CHECKING:
    from nestmmu.edit import TableEditor
    from nestmmu.mappings import Mapping
    from nestmmu.memory import Memory
    from nestmmu.shadow import GuestTable, ShadowTable
    from nestmmu.slots import Backing, Slots


class NestedGuest:
    """A guest's guest: the shadow table that the host keeps for it.

    :param assigned: the tag by which the guest hypervisor calls it.
    :param tag: the tag that the host allocated.
    :param shadow: the shadow table.
    """

    def __init__(self, assigned: AssignedTag, tag: HardwareTag, shadow: ShadowTable) -> None:
        self.assigned = assigned
        self.tag = tag
        self.shadow = shadow
        self.references = 1
        """Who holds it: the guest's own table of nested guests, and whoever uses it now."""
        self.placement = Placement()
        """Where its virtual CPUs ran."""
        self.table: GuestTable | None = None
        """The guest hypervisor's table for it, where the host has read the root; in the guest hypervisor's memory."""

    @property
    def tree(self) -> TableEditor:
        """The shadow table, where it is a tree."""
        return cast("TableEditor", self.shadow)


class Guest:
    """A guest of a hypervisor.

    :param tag: the tag that the host allocated for it.
    :param table: the host's table for it.
    :param memory: its memory as the host's software reads it.
    :param slots: which of its addresses are memory.
    :param backing: what the host keeps behind them; None: nothing can be added to ``table``.
    :param base_shift: log2 of the host's base page.
    """

    def __init__(
        self,
        tag: HardwareTag,
        table: TableEditor,
        memory: Memory,
        slots: Slots,
        backing: Backing | None,
        base_shift: int,
    ) -> None:
        self.tag = tag
        self.table = table
        self.memory = memory
        self.slots = slots
        self.backing = backing
        self.base_shift = base_shift
        self.nested: dict[AssignedTag, NestedGuest] = {}
        self.rmap = ReverseMap()
        self.sequence = 0
        """Moves on with every change to what is behind the guest's memory: who looked before must look again."""
        self.habits = NO_HABITS
        """What the host gets wrong."""
        self.dirty: set[int] = set()
        """Frames that were written and have been unmapped since, of slots whose dirty log is on."""
        self.invalidating = 0
        """How many such changes are under way."""

    def snapshot(self) -> int:
        """Return the state to give to :meth:`changed_since` later."""
        return self.sequence

    def changed_since(self, snapshot: int) -> bool:
        """Tell whether anything behind the guest's memory changed, or is changing."""
        return self.invalidating > 0 or self.sequence != snapshot

    def begin_invalidation(self) -> None:
        """Begin a change to what is behind the guest's memory."""
        self.invalidating += 1

    def end_invalidation(self) -> None:
        """End the change: whatever looked before or during it is out of date."""
        self.sequence += 1
        self.invalidating -= 1

    def page_removed(self, leaf: Mapping) -> None:
        """Remove the shadow entries that led to a page which the host just took out of its table for the guest.

        The reverse map may be out of date: an entry counts only where the shadow still leads to that very page.
        """
        first = align_down(leaf.input_address, leaf.page_shift) >> self.base_shift
        frames = range(first, first + (1 << leaf.page_shift >> self.base_shift))
        slot = self.slots.find(leaf.page_start) if leaf.dirty else None
        if slot is not None and slot.dirty_log:
            self.dirty.update(frames)
        target = leaf.target_start
        find = {tag: nested.shadow.finder() for tag, nested in self.nested.items()}
        for frame in frames:
            for entry in self.rmap.take(frame):
                nested = self.nested.get(entry.tag)
                found = None if nested is None else find[entry.tag](entry.address)
                if nested is None or found is None:
                    continue
                if align_down(found.target, leaf.page_shift) == target:
                    nested.shadow.remove_place(found)
