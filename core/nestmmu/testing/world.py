"""A nest, and beside it the same in plain dicts: where each access has to end, and what a shadow may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from nestmmu.access import ALL_PERMISSIONS, WRITE, Access, permission_text
from nestmmu.invariants import violations
from nestmmu.outcomes import Verdict
from nestmmu.slots import Slot
from nestmmu.testing.capabilities import Scope
from nestmmu.testing.checks import equal, require
from nestmmu.testing.nest import CHUNKS, Ended, Leaf, Nest

if TYPE_CHECKING:
    from nestmmu.addresses import AssignedTag, HardwareTag
    from nestmmu.testing.architecture import Architecture

OFFSET = 0x127
"""Where in a page accesses go: a multiple of nothing, so that a record which loses low bits of an address is seen."""


class World:
    """A nest and its model. What the guest hypervisor changes, it invalidates at once.

    :param shift: log2 of the largest page with which the host maps its guest; None: the nest's largest.
    """

    def __init__(self, architecture: Architecture, shift: int | None = None) -> None:
        shifts = architecture.capabilities.nest_shifts
        self.nest: Nest = architecture.make_nest(shifts[-1] if shift is None else shift)
        self.form = architecture.capabilities
        self.small, self.large = shifts[0], shifts[-1]
        self.one, self.other = self.nest.assigned
        self.far = 1 << self.form.input_bits - 1
        """An address of a guest's guest that is far from the others, in bytes: in another entry of the root."""
        self.data: Slot | None = self.nest.data
        self.leaves: dict[AssignedTag, dict[int, Leaf]] = {tag: {} for tag in self.nest.assigned}
        self.rights = max(self.form.rights, key=int.bit_count)
        self._kept: dict[HardwareTag, list[Leaf]] = {}
        """What the host's tables held when they were last looked at, by tag."""
        self._heard = 0
        """How many flushes there had been then."""

    def at(self, chunk: int, page: int = 0) -> int:
        """Return an address of the guest's data: the first of a small page of a chunk, in bytes."""
        return self.nest.data.base + (chunk << self.large) + (page << self.small)

    def map(
        self, tag: AssignedTag, start: int, shift: int, target: int, rights: int | None = None, *,
        accessed: bool = True, dirty: bool = True, scope: Scope | None = None,
    ) -> None:  # fmt: skip
        """Have the guest hypervisor map a page for a guest of its own, over whatever was there.

        :param scope: with what it invalidates what was there.
        """
        for old in self.overlapping(tag, start, shift):
            self.unmap(tag, old.start, scope)
        leaf = Leaf(start, shift, target, self.rights if rights is None else rights, accessed, dirty)
        self.leaves[tag][start] = leaf
        self.nest.pages(tag).map(start, target, shift, leaf.rights, accessed=accessed, dirty=dirty)

    def change(self, tag: AssignedTag, start: int, scope: Scope | None = None, **changes: Any) -> None:  # noqa: ANN401  (a leaf's)
        """Have the guest hypervisor change a page of its guest's in place, and invalidate it."""
        self.map_again(tag, start, **changes)
        self.nest.invalidate(self._scope(scope), tag, start, self.leaves[tag][start].shift)

    def map_again(self, tag: AssignedTag, start: int, **changes: Any) -> None:  # noqa: ANN401  (a leaf's)
        """Have the guest hypervisor permit more in a page, or set flags: that needs no invalidation."""
        leaf = self.leaves[tag][start] = attrs.evolve(self.leaves[tag][start], **changes)
        flags = {"accessed": leaf.accessed, "dirty": leaf.dirty}
        self.nest.pages(tag).map(start, leaf.target, leaf.shift, leaf.rights, **flags)

    def map_silently(self, tag: AssignedTag, leaf: Leaf) -> list[Leaf]:
        """Have the guest hypervisor map a page over others, and invalidate nothing; return those."""
        old = self.overlapping(tag, leaf.start, leaf.shift)
        for one in old:
            del self.leaves[tag][one.start]
        self.leaves[tag][leaf.start] = leaf
        flags = {"accessed": leaf.accessed, "dirty": leaf.dirty}
        self.nest.pages(tag).map(leaf.start, leaf.target, leaf.shift, leaf.rights, **flags)
        return old

    def set_log(self, *, on: bool) -> None:
        """Have the host begin or end to follow what is written in the guest's data."""
        require(self.data is not None, "there is a slot to follow")
        self.data = self.nest.set_dirty_log(self.data or self.nest.data, on=on)

    def set_slot(self, *, gone: bool = False, read_only: bool = False, dirty_log: bool = False, less: int = 0) -> None:
        """Have the host replace the slot of the guest's data.

        :param less: bytes that it is shorter by.
        """
        data = self.nest.data
        new = None if gone else attrs.evolve(data, read_only=read_only, dirty_log=dirty_log, size=data.size - less)
        self.nest.replace_slot(self.data, new)
        self.data = new

    def unmap(self, tag: AssignedTag, start: int, scope: Scope | None = None) -> None:
        """Have the guest hypervisor unmap a page of its guest's, and invalidate it."""
        leaf = self.leaves[tag].pop(start)
        self.nest.pages(tag).clear(start, leaf.shift)
        self.nest.invalidate(self._scope(scope), tag, start, leaf.shift)

    def _scope(self, scope: Scope | None) -> Scope:
        return self.form.scopes[0] if scope is None else scope

    def overlapping(self, tag: AssignedTag, start: int, shift: int) -> list[Leaf]:
        """Return the pages of a guest's guest that lie in a range."""
        end = start + (1 << shift)
        return [
            leaf for leaf in self.leaves[tag].values() if leaf.start < end and start < leaf.start + (1 << leaf.shift)
        ]

    def find(self, tag: AssignedTag, address: int) -> tuple[Leaf, int] | None:
        """Return the guest hypervisor's page for an address, and where it leads in its memory."""
        for leaf in self.overlapping(tag, address, 0):
            return leaf, leaf.target + address - leaf.start
        return None

    def slot_of(self, address: int) -> Slot | None:
        """Return the memory slot that an address of the guest lies in."""
        slots = (self.nest.tables, self.data)
        return next((slot for slot in slots if slot is not None and slot.base <= address < slot.end), None)

    def truth(self, tag: AssignedTag, address: int) -> tuple[int, int] | None:
        """Return (machine's address, rights) of an address of a guest's guest by both tables; None: nowhere."""
        found = self.find(tag, address)
        slot = None if found is None else self.slot_of(found[1])
        backing = self.nest.backing
        if found is None or slot is None or backing.chunk_of(found[1]) in backing.gone:
            return None
        frozen = slot.read_only or backing.chunk_of(found[1]) in backing.sealed
        return backing.where(found[1]), found[0].rights & (ALL_PERMISSIONS & ~WRITE if frozen else ALL_PERMISSIONS)

    def expected(self, tag: AssignedTag, access: Access, address: int) -> int | Verdict:
        """Return where an access ends, or who goes on with it."""
        found = self.find(tag, address)
        if found is None or not found[0].rights & access:
            return Verdict.REFLECT
        slot = self.slot_of(found[1])
        if slot is None:
            return Verdict.EMULATE
        if slot.read_only and access is Access.STORE:
            return Verdict.INJECT
        unset = not found[0].accessed or (access is Access.STORE and not found[0].dirty)
        if unset and not self.form.host_sets_flags:
            return Verdict.REFLECT
        truth = self.truth(tag, address)
        return truth[0] if truth is not None and truth[1] & access else Verdict.FAIL

    def access(self, tag: AssignedTag, access: Access, address: int, what: str = "") -> Ended:
        """Do one access and compare how it ended, how often it faulted, and what the guest hypervisor's entry has then.

        :raises ConformanceError: if it ended otherwise, or faulted too often.
        """
        before = self.nest.pages(tag).flags(address)
        end = self.nest.access(tag, access, address)
        what = f"{what}{', ' if what else ''}guest {tag}, a {access.label} of {address:#x}"
        found = end.verdict if end.address is None else end.address
        equal(found, self.expected(tag, access, address), what)
        led = self.find(tag, address)
        if end.verdict is Verdict.EMULATE and end.outcome is not None and led is not None:
            equal(end.outcome.address, led[1], f"{what}: the address of the device")
        require(len(end.faults) <= self.form.most_faults, f"{what}: {len(end.faults)} faults")
        self._check_flags(tag, access, address, before, what)
        return end

    def _check_flags(
        self, tag: AssignedTag, access: Access, address: int, before: tuple[bool, bool], what: str
    ) -> None:
        """Look whether accessed and dirty of the guest hypervisor's entry are what the access had to make of them."""
        found, store, wanted = self.find(tag, address), access is Access.STORE, before
        if self.form.host_sets_flags and found is not None and found[0].rights & access:
            leaf, wanted = found[0], (True, before[1] or store)
            self.leaves[tag][leaf.start] = attrs.evolve(leaf, accessed=True, dirty=leaf.dirty or store)
        equal(self.nest.pages(tag).flags(address), wanted, f"{what}: the guest hypervisor's accessed and dirty")

    def access_all(self, what: str = "") -> None:
        """Do every kind of access to every page of every guest's guest, and beside."""
        for tag, leaves in self.leaves.items():
            for leaf in list(leaves.values()):
                for address in {leaf.start, leaf.start + (1 << leaf.shift) - (1 << self.small)}:
                    for access in Access:
                        self.access(tag, access, address + OFFSET, what)

    def check(self, what: str) -> None:
        """Look whether everything that the host keeps is allowed by the model.

        :raises ConformanceError: saying what is not.
        """
        nest = self.nest
        held = self.check_flushes(what)
        equal([str(stale) for stale in nest.stale], [], f"{what}: hits of caches that no table allows")
        own = self._own_leaves(held[nest.guest.tag], what)
        for nested in nest.guest.nested.values():
            for leaf in held[nested.tag]:
                where = f"{what}: the shadow of {nested.assigned} at {leaf.start:#x}"
                for offset in range(0, 1 << leaf.shift, 1 << self.small):
                    self._allowed(nested.assigned, leaf, offset, own, where)
        equal([one.what for one in violations(nest.guest)], [], f"{what}: violations")
        pages = nest.host_table_pages()
        equal(len(set(pages)), len(pages), f"{what}: tables that are reached once")
        equal(sorted(pages), sorted(nest.allocator.used), f"{what}: tables that are reached, and tables in use")

    def check_flushes(self, what: str) -> dict[HardwareTag, list[Leaf]]:
        """Look whether everything that is gone from the host's tables since the last time was flushed, all of it.

        :returns: what they hold now, by tag.
        :raises ConformanceError: if something was not.
        """
        nest, flushes = self.nest, self.nest.host.flushes
        recent = flushes[self._heard :] if self._heard <= len(flushes) else list(flushes)
        now = {nested.tag: nest.host_pages(nested) for nested in nest.guest.nested.values()}
        now[nest.guest.tag] = nest.host_pages(None)
        for tag, before in self._kept.items():
            after = {(leaf.start, leaf.shift): leaf for leaf in now.get(tag, [])}
            for leaf in before:
                new = after.get((leaf.start, leaf.shift))
                if new is None or new.target != leaf.target or leaf.rights & ~new.rights or leaf.dirty > new.dirty:
                    flushed = any(nest.forgets(flush, tag, leaf) for flush in recent)
                    require(
                        flushed, f"{what}: tag {tag} lost something at {leaf.start:#x}, and not all of it was flushed"
                    )
        self._kept, self._heard = now, len(flushes)
        return now

    def _own_leaves(self, leaves: list[Leaf], what: str) -> dict[int, Leaf]:
        """Return the host's leaf for each small page of the guest, each compared with the model."""
        found = {}
        backing = self.nest.backing
        for leaf in leaves:
            for offset in range(0, 1 << leaf.shift, 1 << self.small):
                address = leaf.start + offset
                slot = self.slot_of(address)
                require(slot is not None, f"{what}: the host maps {address:#x}, which is no memory of its guest")
                equal(leaf.target + offset, backing.where(address), f"{what}: the host's page behind {address:#x}")
                frozen = backing.chunk_of(address) in backing.sealed or (slot is not None and slot.read_only)
                require(not (frozen and leaf.rights & WRITE), f"{what}: {address:#x} may not be written")
                found[address] = leaf
        return found

    def _allowed(self, tag: AssignedTag, leaf: Leaf, offset: int, own: dict[int, Leaf], where: str) -> None:
        inner, truth = self.find(tag, leaf.start + offset), self.truth(tag, leaf.start + offset)
        if inner is None or truth is None:
            require(holds=False, what=f"{where}, byte {offset:#x}, leads to {leaf.target + offset:#x} and to nothing")
            return
        equal(leaf.target + offset, truth[0], f"{where}, byte {offset:#x}: its target")
        more = leaf.rights & ~truth[1]
        require(not more, f"{where} permits {permission_text(more)} that the tables under it do not")
        outer = own.get(inner[1] >> self.small << self.small)
        if outer is None:
            require(holds=False, what=f"{where}, byte {offset:#x}: the host has no page behind it")
            return
        require(leaf.shift <= max(outer.shift, self.small), f"{where} is larger than the host's page")
        require(not leaf.dirty or (outer.dirty and inner[0].dirty), f"{where} is dirty, and a page under it is not")
        unseen = self.form.writable_if_dirty and leaf.rights & WRITE and not (outer.dirty and inner[0].dirty)
        require(not unseen, f"{where} permits stores, and a page under it is not dirty")
        require(not leaf.accessed or (outer.accessed and inner[0].accessed), f"{where} is accessed, and one under not")

    @property
    def chunks(self) -> range:
        """The numbers of the chunks of the guest's data."""
        return range(CHUNKS)
