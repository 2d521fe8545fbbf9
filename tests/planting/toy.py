"""The faults: a line each, in the core as the toy uses it, and in the toy itself."""

from __future__ import annotations

import attrs

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import ALWAYS, Match
from planting import Field, Line, Mutant
from toy_arch.formats import LOOK, PAGE, POKE, PRESENT, RUN, WIDE

EDIT = "nestmmu.edit:TableEditor"
WALKER = "nestmmu.radix:RadixWalker"
LADDER = "nestmmu.nested_faults:NestedFaultHandler"
HOST = "nestmmu.host_faults"
GUESTS = "nestmmu.nested_guests:NestedGuests"
UPKEEP = "nestmmu.upkeep"
WIDE_TOY = "toy_arch.formats:WIDE"

WALKS = (
    Line("an off-by-one in the index", f"{WALKER}.descend", "((address >> shift & mask) << scale)", "((address >> shift & mask) + 1 << scale)", topic="geometry"),
    Line("the index of the level above", f"{WALKER}.descend", "((address >> shift & mask) << scale)", "((address >> shift + 1 & mask) << scale)", topic="geometry"),
    Line("the offset in a page loses a bit", f"{WALKER}.descend", "return base | address & mask, shift", "return base | address & mask >> 1, shift", topic="geometry"),
    Line("entries that are not valid are followed", f"{WALKER}._node", "if entry & form.valid.mask != form.valid.value:", "if entry == 0:", topic="hostile"),
    Line("reserved bits are not looked at", f"{WALKER}._node", "(*form.reserved, *level.reserved)", "level.reserved", topic="hostile"),
    Line("a leaf that is not aligned is taken", f"{WALKER}._node", "(output & low and form.strict_output)", "(output & low and False)", topic="hostile"),
    Line("a level is skipped", f"{WALKER}._node", "depth + 1, shift, address)", "depth + 2, shift, address)", topic="geometry"),
    Line("a table's width is off by one", f"{WALKER}._table", "(1 << bits) - 1, depth", "(1 << bits) - 2, depth", topic="geometry"),
    Line("a load makes dirty", f"{WALKER}.touch", "needed = self._needed[access]", "needed = form.accessed | form.dirty", topic="accessed_dirty"),
    Line("accessed alone is set by a store", f"{WALKER}.touch", "entry |= needed", "entry |= form.accessed", topic="accessed_dirty"),
    Line("flags are set where hardware has to fault", f"{WALKER}.touch", "raise self.fault(FaultKind.ACCESSED_DIRTY, address, access, found)", "pass", topic="accessed_dirty"),
    Line("a missing permission is not seen", f"{WALKER}.resolve", "if not found.permissions & access:", "if not found.permissions:", topic="permissions"),
    Line("flags are set before permissions are looked at", f"{WALKER}.resolve", "if not found.permissions & access:", "if self.touch(found, address, access) and not found.permissions & access:", topic="accessed_dirty"),
    Line("a fault while reading a table looks explicit", f"{WALKER}.descend", "fault.implicit = True", "fault.implicit = False", topic="accessed_dirty"),
    Line("a word of a table is stored to when it is read", f"{WALKER}.descend", "where = locate(at, _LOAD)", "where = locate(at, access)", topic="accessed_dirty"),
    Line("what cannot be read is not there", f"{WALKER}.descend", "Fault(FaultKind.UNREADABLE", "Fault(FaultKind.NOT_PRESENT", topic="entries"),
    Line("a fault names the level below", f"{WALKER}._decode", "address, depth, entry_address=at, entry=entry)", "address, depth + 1, entry_address=at, entry=entry)", topic="walks"),
    Line("a fault names another entry", f"{WALKER}._decode", "entry_address=at", "entry_address=at + 4", topic="walks"),
    Line("leaves are listed one entry further on", "nestmmu.radix:RadixTable._leaves", "first | index << remaining", "first | index + 1 << remaining", topic="hostile"),
)  # fmt: skip
"""In the engine; every architecture whose tables are trees catches them."""

FORMATS = (
    Field("load and store swapped", WIDE_TOY, "permissions",
          ((Match(LOOK, LOOK), WRITE), (Match(POKE, POKE), READ), (Match(RUN, RUN), EXECUTE)), topic="permissions"),
    Field("store implies load", WIDE_TOY, "permissions",
          ((Match(LOOK, LOOK), READ), (Match(POKE, POKE), READ | WRITE), (Match(RUN, RUN), EXECUTE)), topic="permissions"),
    Field("accessed and dirty swapped", WIDE_TOY, "accessed", WIDE.dirty, topic="accessed_dirty"),
    Field("no dirty bit", WIDE_TOY, "dirty", 0, topic="accessed_dirty"),
    Field("valid is always", WIDE_TOY, "valid", ALWAYS, topic="geometry"),
    Field("a page needs both bits", WIDE_TOY, "valid", Match(PRESENT | PAGE, PRESENT | PAGE), topic="geometry"),
    Field("an output bit is lost", WIDE_TOY, "output_mask", WIDE.output_mask & ~(1 << 23), topic="geometry"),
    Field("a table's address loses a bit", WIDE_TOY, "table_mask", WIDE.table_mask & ~(1 << 16), topic="geometry"),
    Field("one input bit too few", WIDE_TOY, "input_bits", 23, topic="geometry"),
    Field("big-endian", WIDE_TOY, "byteorder", "big", topic="geometry"),
    Field("nothing is forbidden", WIDE_TOY, "reserved", (), topic="hostile"),
    Field("no large page at the top", WIDE_TOY, "levels", (attrs.evolve(WIDE.levels[0], may_leaf=False), *WIDE.levels[1:]), topic="geometry"),
)  # fmt: skip
"""In the toy's format."""

COMPOSITION = (
    Line("the composed page is the larger", "nestmmu.compose:compose_mappings", "min(inner.page_shift, outer.page_shift)", "max(inner.page_shift, outer.page_shift)", topic="composition"),
    Line("the composed page is the inner's", "nestmmu.compose:compose_mappings", "min(inner.page_shift, outer.page_shift)", "inner.page_shift", topic="composition"),
    Line("the composed page is the smallest", "nestmmu.compose:compose_mappings", "max(size for size", "min(size for size", topic="composition"),
    Line("either permission is enough", "nestmmu.compose:compose_mappings", "inner.permissions & outer.permissions", "inner.permissions | outer.permissions", topic="composition"),
    Line("the host's permission alone", "nestmmu.compose:compose_mappings", "inner.permissions & outer.permissions", "outer.permissions", topic="composition"),
    Line("dirty for any access", "nestmmu.compose:compose_mappings", "outer.dirty and access is Access.STORE", "outer.dirty", topic="composition"),
    Line("dirty without the guest's", "nestmmu.compose:compose_mappings", "inner.dirty and outer.dirty and", "outer.dirty and", topic="composition"),
    Line("accessed without the guest's", "nestmmu.compose:compose_mappings", "inner.accessed and outer.accessed", "outer.accessed", topic="composition"),
    Line("the target is not aligned to the page", "nestmmu.compose:RadixComposer.compose", "align_down(leaf.output_address, leaf.page_shift)", "align_down(leaf.output_address, 4)", topic="composition"),
    Line("the entry's permissions are all", "nestmmu.compose:RadixComposer.compose", "leaf.permissions,", "7,", topic="composition"),
)  # fmt: skip

SHADOW = (
    Line("a page is removed and not flushed", f"{EDIT}.remove_place", "self.flush(Flush(self.tag, FlushKind.PAGE, place.start, place.shift))", "pass", topic="lifetime"),
    Line("a flush of half the page", f"{EDIT}.remove_place", "place.start, place.shift))", "place.start, place.shift - 1))", topic="silence"),
    Line("a flush where the page leads to", f"{EDIT}.remove_place", "FlushKind.PAGE, place.start", "FlushKind.PAGE, place.target", topic="lifetime"),
    Line("a page is flushed and not removed", f"{EDIT}.remove_place", "self._store(place.entry_address, 0)", "pass", topic="reflection"),
    Line("a table is dropped and walk caches are not flushed", f"{EDIT}._drop_table", "self.flush(Flush(self.tag, FlushKind.WALK_CACHE))", "pass", topic="lifetime"),
    Line("a dropped table is not freed", f"{EDIT}._free_below", "self.allocator.free(base)", "pass", topic="lifetime"),
    Line("pages of a dropped table are not flushed", f"{EDIT}._free_below", "if unmap:", "if unmap and index == 0:", topic="silence"),
    Line("tables that were not used are lost", f"{EDIT}.release", "self.allocator.free(page)", "pass", topic="dirty"),
    Line("a new leaf is merged into one that leads elsewhere", f"{EDIT}._insert_leaf", "if (old ^ entry) & ~flags and", "if False and", topic="silence"),
    Line("flags are cleared in the wrong bit", f"{EDIT}._change", "form.accessed if accessed else 0", "form.dirty if accessed else 0", topic="reflection"),
    Line("a large page stays beside the table that replaces it", f"{EDIT}.insert", "self._clear_leaf(slot, old, level, address)", "pass", topic="silence"),
    Line("the root's entries stay when the tree is cleared", f"{EDIT}.clear_tree", "self._store(base + index * self.format.entry_bytes, 0)", "pass", topic="invalidation"),
    Line("only the first frame of a large page is looked up", "nestmmu.guests:Guest.page_removed", "frames = range(first, first + (1 << leaf.page_shift >> self.base_shift))", "frames = range(first, first + 0)", topic="reverse_map"),
    Line("the frame after is looked up", "nestmmu.guests:Guest.page_removed", "first = align_down(leaf.input_address, leaf.page_shift) >> self.base_shift", "first = (leaf.input_address >> self.base_shift) + 1", topic="reverse_map"),
    Line("only the newest of a frame's entries is removed", "nestmmu.guests:Guest.page_removed", "self.rmap.take(frame):", "self.rmap.take(frame)[:1]:", topic="reverse_map"),
    Line("what was dirty is forgotten with the page", "nestmmu.guests:Guest.page_removed", "self.dirty.update(frames)", "pass", topic="dirty"),
    Line("the reverse map is keyed by the shadow's page", f"{LADDER}._shadow", "frame = align_down(outer.input_address, outer.page_shift) >> guest.base_shift", "frame = start >> guest.base_shift", topic="lifetime"),
    Line("the reverse map is keyed by the frame itself", f"{LADDER}._shadow", "frame = align_down(outer.input_address, outer.page_shift)", "frame = align_down(outer.input_address, guest.base_shift) + (1 << guest.base_shift)", topic="lifetime"),
    Line("the reverse map is not written", f"{LADDER}._shadow", "guest.rmap.insert(frame, ReverseEntry(nested.assigned, start))", "pass", topic="lifetime"),
    Line("the reverse map has the hardware's tag", f"{LADDER}._shadow", "ReverseEntry(nested.assigned, start)", "ReverseEntry(nested.tag, start)", topic="lifetime"),
    Line("the reverse map keeps duplicates", "nestmmu.rmap:ReverseMap.insert", "if entry in entries:", "if entry is entries:", topic="reverse_map"),
    Line("a race with the host is not seen", "nestmmu.guests:Guest.changed_since", "self.invalidating > 0 or self.sequence != snapshot", "self.invalidating > 0", topic="dirty"),
    Line("a change under way is not seen", "nestmmu.guests:Guest.changed_since", "self.invalidating > 0 or self.sequence != snapshot", "self.sequence != snapshot", topic="progress"),
    Line("the end of a change goes unsaid", "nestmmu.guests:Guest.end_invalidation", "self.sequence += 1", "pass", topic="progress"),
    Line("the slot may be gone when its page is mapped", f"{HOST}:instantiate", "guest.snapshot() if snapshot is None else snapshot", "guest.snapshot()", topic="progress"),
    Line("a read-only slot is mapped writable", f"{HOST}:instantiate", "writable = page.writable and not read_only", "writable = page.writable", topic="invalidation"),
    Line("a page that the host cannot write is mapped writable", f"{HOST}:instantiate", "writable = page.writable and not read_only", "writable = not read_only", topic="invalidation"),
    Line("a large page reaches beyond its slot", f"{HOST}:page_depth", "inside = fits(slot, address, shift) or", "inside = True or", topic="isolation"),
    Line("a large page where the memories do not lie alike", f"{HOST}:page_depth", "congruent(address, target, shift)", "True", topic="isolation"),
    Line("large pages while the log is on", f"{HOST}:page_depth", "if not slot.dirty_log:", "if slot:", topic="dirty"),
    Line("a page is mapped for the guest where no slot is", f"{HOST}:HostFaultHandler.handle", "if slot is None:", "if slot is None and address == 0:", topic="isolation"),
    Line("stores to a read-only slot are let through", f"{LADDER}._map", "if slot.read_only and fault.access is Access.STORE:", "if slot.read_only and fault.access is Access.LOAD:", topic="reflection"),
    Line("the guest hypervisor's permissions are not looked at", f"{LADDER}.walk", "if not inner.permissions & fault.access:", "if not inner.permissions:", topic="reflection"),
    Line("the guest hypervisor's changed bit is not asked for", f"{LADDER}._set_accessed_dirty", "if not inner.accessed or (store and not inner.dirty):", "if not inner.accessed:", topic="reflection"),
    Line("dirty is set in the shadow alone", f"{LADDER}._set_accessed_dirty", "self.guest.table.add_flags(inner.output_address, accessed=True, dirty=store)", "True", topic="dirty"),
    Line("dirty is set for every access", f"{LADDER}._set_accessed_dirty", "nested.shadow.add_flags(fault.input_address, accessed=True, dirty=store)", "nested.shadow.add_flags(fault.input_address, accessed=True, dirty=True)", topic="dirty"),
    Line("the page beside is composed", f"{LADDER}._host_entry", "outer = guest.table.lookup(target)\n        yield Point.UNLOCK", "outer = guest.table.lookup(target ^ 1 << guest.base_shift)\n        yield Point.UNLOCK", topic="reflection"),
)  # fmt: skip
"""In what the host does."""

LIFE = (
    Line("a removed guest is released while it is held", f"{GUESTS}.put", "last = nested.references == 0", "last = nested.references <= 1", topic="references"),
    Line("a released guest keeps its tag", f"{GUESTS}._release", "self.tags.free(nested.tag)", "pass", topic="references"),
    Line("a guest that is found is not held", f"{GUESTS}._hold", "found.references += 1", "pass", topic="references"),
    Line("a new guest is held once too few", f"{GUESTS}.get", "made.references = 2", "made.references = 1", topic="references"),
    Line("the second of two that make a guest wins", f"{GUESTS}.get", "if found is None:", "if found is None or made:", topic="references"),
    Line("the loser of a race is not released", f"{GUESTS}.get", "if found is not None:\n            self._release(made)", "if found is None and False:\n            self._release(made)", topic="references"),
    Line("a tag beyond the limit", f"{GUESTS}.get", "if assigned >= self.limit():", "if assigned > self.limit():", topic="references"),
    Line("removed twice, let go of twice", f"{GUESTS}.remove", "if there:\n            yield from", "if True:\n            yield from", topic="references"),
    Line("tags are given out twice", "nestmmu.nested_guests:TagAllocator.allocate", "self.used.add(tag)", "pass", topic="references"),
    Line("a shadow that is released is not flushed", "nestmmu.hypervisor:Hypervisor.release_nested", "nested.shadow.flush(Flush(nested.tag, FlushKind.TAG))", "pass", topic="lifetime"),
    Line("a shadow that is emptied is not flushed", f"{GUESTS}.flush", "nested.shadow.flush(Flush(nested.tag, FlushKind.TAG))", "pass", topic="invalidation"),
    Line("another guest's tag is flushed", f"{GUESTS}.flush", "Flush(nested.tag, FlushKind.TAG)", "Flush(nested.tag + 1, FlushKind.TAG)", topic="invalidation"),
    Line("a freed page is not poisoned", "nestmmu.allocator:PageAllocator.free", "self.memory.physical.poison(number)", "pass", topic="lifetime"),
    Line("a vcpu that moves leaves no mark", "nestmmu.placement:Placement.enter", "self.pending.update(self.core(before))", "pass", topic="invalidation"),
    Line("the core that is left flushes nothing", "nestmmu.hypervisor:Hypervisor.arrive", "if todo is Arriving.FLUSH:", "if todo is Arriving.SYNC:", topic="invalidation"),
)  # fmt: skip

DIRTY = (
    Line("the log is taken and not begun anew", f"{UPKEEP}:take_dirty", "guest.table.clear_flags(address, accessed=False, dirty=True)", "pass", topic="dirty"),
    Line("the shadows keep dirty", f"{UPKEEP}:take_dirty", "_clear_shadows(guest, leaf.page_start, leaf, accessed=False, dirty=True)", "pass", topic="dirty"),
    Line("accessed is cleared in place of dirty", f"{UPKEEP}:take_dirty", "guest.table.clear_flags(address, accessed=False, dirty=True)", "guest.table.clear_flags(address, accessed=True, dirty=False)", topic="dirty"),
    Line("the shadows' pages are not flushed", f"{UPKEEP}:_clear_shadows", "nested.shadow.flush(Flush(tag, FlushKind.PAGE, found.page_start, found.page_shift))", "pass", topic="dirty"),
    Line("the shadows' pages are flushed by the wrong tag", f"{UPKEEP}:_clear_shadows", "if guest.habits.flushes_flags_by_assigned_tag else", "if True else", topic="dirty"),
    Line("a fault under way puts dirty back", f"{UPKEEP}:_clear_shadows", "guest.sequence += 1", "pass", topic="dirty"),
    Line("pages that are gone are not reported", f"{UPKEEP}:dirty_log", "bits[[frame - first for frame in written]] = 1", "pass", topic="dirty"),
    Line("pages that are gone are reported for ever", f"{UPKEEP}:dirty_log", "guest.dirty -= written", "pass", topic="dirty"),
    Line("the log is one page off", f"{UPKEEP}:dirty_log", "start = (leaf.page_start >> shift) - first", "start = (leaf.page_start >> shift) - first + 1", topic="dirty"),
    Line("ageing leaves the shadows young", f"{UPKEEP}:age", "_clear_shadows(guest, first, leaf, accessed=True, dirty=False)", "pass", topic="dirty"),
    Line("ageing forgets stores", f"{UPKEEP}:age", "guest.table.clear_flags(address, accessed=True, dirty=False)", "guest.table.clear_flags(address, accessed=True, dirty=True)", topic="dirty"),
    Line("a clean page that is aged is reflected", f"{LADDER}._set_accessed_dirty", "if not inner.accessed or (store and not inner.dirty):", "if not inner.accessed or not inner.dirty:", topic="dirty"),
    Line("the first page of a large one is not logged", f"{UPKEEP}:dirty_log", "max(start, 0)", "max(start, 1)", topic="dirty"),
    Line("a large page is logged twice as large", f"{UPKEEP}:dirty_log", "(1 << leaf.page_shift >> shift)", "(2 << leaf.page_shift >> shift)", topic="dirty"),
    Line("the log has what was before it", f"{UPKEEP}:set_dirty_log", "if not on:", "if False:", topic="dirty"),
    Line("a race is a failure", f"{LADDER}._host_entry", "if error and error != RACED:", "if error:", topic="progress"),
    Line("the guest's own pages stay old", f"{HOST}:HostFaultHandler.handle", "done = guest.table.add_flags(address, accessed=True, dirty=store)", "done = True", topic="progress"),
    Line("read-only memory is not read", f"{HOST}:HostFaultHandler.handle", "if slot.read_only and store:", "if slot.read_only:", topic="progress"),
    Line("a slot that goes keeps its pages", f"{UPKEEP}:replace_slot", "flush_slot(guest, old)", "pass", topic="invalidation"),
    Line("a log begins with large pages", f"{UPKEEP}:set_dirty_log", "flush_slot(guest, slot)", "pass", topic="dirty"),
    Line("the last page of a range stays", f"{UPKEEP}:unmap_range", "range(start, end, 1 << guest.base_shift)", "range(start, end - (1 << guest.base_shift), 1 << guest.base_shift)", topic="reverse_map"),
)  # fmt: skip

CACHES = (
    Line("a TLB that forgets nothing of a page", "nestmmu.tlb:Tlb.flush", "if flush.kind is not FlushKind.WALK_CACHE and", "if flush.kind is FlushKind.TAG and", topic="lifetime"),
    Line("a TLB that forgets the other tags", "nestmmu.tlb:_names", "entry.tag != flush.tag", "entry.tag == flush.tag", topic="lifetime"),
    Line("a TLB that lets store what was kept of a load", "nestmmu.tlb:CachedCpu.access", "else entry.permissions & ~WRITE", "else entry.permissions", topic="shadow"),
    Line("a walk cache that keeps its entries", "nestmmu.walk_cache:WalkCache.flush", "if flush.kind in {FlushKind.WALK_CACHE, FlushKind.TAG} and", "if flush.kind in {FlushKind.TAG} and", topic="lifetime"),
    Line("a walk cache without tags", "nestmmu.walk_cache:WalkCache.lookup", "self._entries.get((owner, depth", "self._entries.get((3, depth", topic="lifetime"),
)  # fmt: skip

TOY = (
    Line("the toy's root of another tag", "toy_arch.cpu:ToyCpu.access", "self.root_table + 4 * self.tag", "self.root_table + 4 * (self.tag & ~1)", topic="references"),
    Line("the toy's fault is the other one", "toy_arch.cpu:ToyCpu.access", "Trap(NAMES[fault.kind], self.tag, address, access)", "Trap(NAMES[fault.kind], self.tag, address ^ 0x1000, access)", topic="references"),
    Line("the toy's trap is a load", "toy_arch.cpu:ToyCpu.access", "self.tag, address, access)", "self.tag, address, type(access).LOAD)", topic="reflection"),
    Line("the toy reflects what it was told", "toy_arch.hypervisor:reflect", "NAMES[fault.kind], trap.tag", "trap.name, trap.tag", topic="reflection"),
    Line("the toy reads another guest's root", "toy_arch.hypervisor:ToyFaults.has_root", "self.guest.root_table + 4 * nested.assigned", "self.guest.root_table + 4 * nested.tag", topic="references"),
)  # fmt: skip

ON_TOY: tuple[Mutant, ...] = (*WALKS, *FORMATS, *COMPOSITION, *SHADOW, *LIFE, *DIRTY, *CACHES, *TOY)
