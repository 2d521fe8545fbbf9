"""The faults of the hash plugin: a line each, in searching, protection, reference and change, batches, and nests."""

from __future__ import annotations

from planting import Line

SEGMENT = "nestmmu_ppc64_hpt.hashing:Segment"
TABLE = "nestmmu_ppc64_hpt.table:HashTable"
FOUND = "nestmmu_ppc64_hpt.table:FoundHpte.output"
PAGES = "nestmmu_ppc64_hpt.pages:actual_shift"
RIGHTS = "nestmmu_ppc64_hpt.protection"
CPU = "nestmmu_ppc64_hpt.cpu:Power9Hash"
SLB = "nestmmu_ppc64_hpt.slb:Slb"
BATCH = "nestmmu_ppc64_hpt.many:HashStage"
SHADOW = "nestmmu_ppc64_hpt.shadow:HashShadow"
LADDER = "nestmmu_ppc64_hpt.nested:HashNestedFaults"
COMPOSER = "nestmmu_ppc64_hpt.nested:HashComposer"
TLBIE = "nestmmu_ppc64_hpt.nested_tlbie:emulate"

SEARCHES = (
    Line("hashed by another page size", f"{SEGMENT}.hash", ">> self.base_shift", ">> 12", topic="geometry"),
    Line("the offset in the segment is not hashed", f"{SEGMENT}.hash", "self.hash_base ^ (address", "self.hash_base | (address", topic="geometry"),
    Line("the AVPN of the page before", f"{SEGMENT}.match", "page >> AVPN_SHIFT", "page - 1 >> AVPN_SHIFT", topic="geometry"),
    Line("the AVPN without its low bits", f"{SEGMENT}.match", "page >> AVPN_SHIFT & ~V_NOT_AVPN", "page >> AVPN_SHIFT & ~0xFFFF", topic="geometry"),
    Line("the PTEG after", f"{TABLE}.search", "group = hashed & self.group_mask", "group = hashed + 1 & self.group_mask", topic="geometry"),
    Line("half of the PTEGs", f"{TABLE}.search", "group = hashed & self.group_mask", "group = hashed & self.group_mask >> 1", topic="geometry"),
    Line("the secondary PTEG is the primary", f"{TABLE}.search", "group = ~hashed & HASH_MASK & self.group_mask", "group = hashed & HASH_MASK & self.group_mask", topic="walks"),
    Line("no entry is looked for as secondary", f"{TABLE}.search", "wanted |= V_SECONDARY", "wanted |= 0", topic="walks"),
    Line("only the first entry of a PTEG", f"{TABLE}.search", "range(0, 2 * GROUP_SLOTS, 2)", "range(0, 2, 2)", topic="walks"),
    Line("the last entry of a PTEG is not looked at", f"{TABLE}.search", "range(0, 2 * GROUP_SLOTS, 2)", "range(0, 2 * GROUP_SLOTS - 2, 2)", topic="walks"),
    Line("the offset in a page loses a bit", FOUND, "(1 << self.page_shift) - 1", "(1 << self.page_shift) - 2", topic="geometry"),
    Line("the key of problem state", f"{SEGMENT}.key", "SLB_KP if problem else SLB_KS", "SLB_KS if problem else SLB_KP", topic="permissions"),
    Line("a segment is looked up by its low bits", f"{SLB}.lookup", "entry.esid == address & ESIDS[entry.segment.shift]", "True", topic="geometry"),
)  # fmt: skip

PROTECTION = (
    Line("the other key's permissions", f"{RIGHTS}:page_permissions", "both[key]", "both[not key]", topic="permissions"),
    Line("reserved pp permits", f"{RIGHTS}:page_permissions", "0 if both is None", "6 if both is None", topic="permissions"),
    Line("N is not looked at", f"{RIGHTS}:execute_permissions", "R_N | R_G", "R_G", topic="permissions"),
    Line("nothing is denied", f"{RIGHTS}:denial", "if access & pages & execution & keys:", "if pages:", topic="permissions"),
    Line("a store needs what a load needs", f"{RIGHTS}:denial", "if access & pages & execution & keys:", "if (access if access is not Access.STORE else Access.LOAD) & pages & execution & keys:", topic="permissions"),
    Line("R and C without a permission", f"{CPU}._translate", "        if cause:", "        self._touch(table, hit, access)\n        if cause:", topic="accessed_dirty"),
)  # fmt: skip

FLAGS = (
    Line("C by a load", f"{CPU}._touch", "access is _STORE and not hit.r & R_C", "not hit.r & R_C", topic="accessed_dirty"),
    Line("C never", f"{CPU}._touch", "access is _STORE and not hit.r & R_C", "False", topic="accessed_dirty"),
    Line("R only by a store", f"{CPU}._touch", "reference=not hit.r & R_R", "reference=access is _STORE", topic="accessed_dirty"),
    Line("R and C where hardware is not to", f"{CPU}._touch", "if self.reference_change is not AccessedDirty.IGNORE:", "if True:", topic="accessed_dirty"),
    Line("R in C's byte", f"{TABLE}.set_flags", "self.memory.store(at + R_BYTE", "self.memory.store(at + C_BYTE", topic="accessed_dirty"),
    Line("R of the entry after", f"{TABLE}.set_flags", "at = self.slot_address(slot)", "at = self.slot_address(slot + 1)", topic="accessed_dirty"),
)  # fmt: skip

BATCHES = (
    Line("a batch searches only primary PTEGs", f"{BATCH}._search", "for second in (False, True):", "for second in (False,):", topic="batch"),
    Line("a batch hashes by another page size", f"{BATCH}._translate", "np.uint64(segment.base_shift)", "np.uint64(12)", topic="batch"),
    Line("a batch takes the last entry", f"{BATCH}._compare", "best = good[first]", "best = good[-1:].repeat(len(first))", topic="batch"),
    Line("a batch sets C for a load", f"{BATCH}._touch", "R_C if access is Access.STORE else 0", "R_C", topic="batch"),
    Line("a batch sets what it is not to set", f"{BATCH}._touch", "not self.batch.update or", "", topic="batch"),
    Line("a batch permits what N forbids", f"{BATCH}._rights", "pages & execution & keys &", "pages & keys &", topic="batch"),
)  # fmt: skip

NESTS = (
    Line("an entry is removed and not flushed", f"{SHADOW}.remove_place", "self.flush(Flush(self.tag, FlushKind.PAGE, place.start, place.shift))", "pass", topic="invalidation"),
    Line("a page is flushed under the guest's tag", f"{SHADOW}.remove_place", "Flush(self.tag, FlushKind.PAGE", "Flush(type(self.tag)(1), FlushKind.PAGE", topic="invalidation"),
    Line("half a page is flushed", f"{SHADOW}.remove_place", "place.start, place.shift))", "place.start, place.shift - 1))", topic="invalidation"),
    Line("an entry is flushed and stays", f"{SHADOW}.remove_place", "self.hash_table.clear(slot)", "pass", topic="invalidation"),
    Line("clearing a flag leaves the entry", f"{SHADOW}.clear_flags", "return self.remove(address)", "return self.lookup(address)", topic="dirty"),
    Line("tlbie removes one entry less", f"{SHADOW}.invalidate", "for slot, v, r in gone:", "for slot, v, r in gone[1:]:", topic="invalidation"),
    Line("tlbie looks in primary groups alone", "nestmmu_ppc64_hpt.hashing:tlbie_groups", "found |= {hashed & group_mask, ~hashed & group_mask}", "found |= {hashed & group_mask}", topic="shadow"),
    Line("tlbie of an LPID is for all", TLBIE, "operands.scope == IS_ALL or one.assigned == AssignedTag(operands.lpid)", "True", topic="invalidation"),
    Line("tlbie of all is for one", TLBIE, "operands.scope == IS_ALL or one.assigned", "one.assigned", topic="invalidation"),
    Line("tlbie of an LPID does nothing", TLBIE, "operands.scope in {IS_LPID, IS_ALL}", "operands.scope in {IS_ALL}", topic="invalidation"),
    Line("tlbie of all does nothing", TLBIE, "operands.scope in {IS_LPID, IS_ALL}", "operands.scope in {IS_LPID}", topic="invalidation"),
    Line("a reference is kept by tlbie", TLBIE, "yield from nested.put(one)", "yield from ()", topic="lifetime"),
    Line("the shadow is emptied but not freed", f"{SHADOW}.free", "self.allocator.free(self.hash_table.base)", "pass", topic="lifetime"),
    Line("the shadow is freed full", f"{SHADOW}.clear_tree", "self.hash_table.clear(slot)", "pass", topic="invalidation"),
    Line("R of L1's entry is not set", f"{LADDER}.walk", "reference=not r & R_R", "reference=False", topic="dirty"),
    Line("C of L1's entry is not set", f"{LADDER}.walk", "change=store and not r & R_C", "change=False", topic="dirty"),
    Line("C of L1's entry by a load", f"{LADDER}.walk", "change=store and not r & R_C", "change=not r & R_C", topic="dirty"),
    Line("L1's protection is not looked at", f"{LADDER}.walk", "if denial(fault.access, *rights(r, record)):", "if False:", topic="reflection"),
    Line("a load makes the host's page dirty", f"{LADDER}.mark", "accessed=True, dirty=store)", "accessed=True, dirty=True)", topic="dirty"),
    Line("C of the host's entry is not set", f"{LADDER}.mark", "self.guest.table.add_flags(outer.input_address, accessed=True, dirty=store)", "self.guest.table.add_flags(outer.input_address, accessed=True, dirty=False)", topic="dirty"),
    Line("writable at once", f"{COMPOSER}.writable", "self.marking is Marking.AT_MAP or access is Access.STORE", "True", topic="dirty"),
    Line("never writable", f"{COMPOSER}.writable", "self.marking is Marking.AT_MAP or access is Access.STORE", "False", topic="progress"),
    Line("the host's write is not asked", f"{COMPOSER}.writable", "if not outer.permissions & page_permissions(inner.entry or 0, key=False) & WRITE:", "if not page_permissions(inner.entry or 0, key=False) & WRITE:", topic="composition"),
    Line("the host's rights are not asked", f"{COMPOSER}.compose", "outer.permissions if dirty else outer.permissions & ~WRITE", "7 if dirty else 5", topic="composition"),
    Line("the host's page, whole", f"{COMPOSER}.compose", "align_down(outer.output_address, inner.page_shift)", "outer.target_start", topic="composition"),
    Line("C without L1's", f"{COMPOSER}.compose", "(preset or (inner.dirty and outer.dirty))", "(preset or outer.dirty)", topic="composition"),
    Line("C without the host's", f"{COMPOSER}.compose", "(preset or (inner.dirty and outer.dirty))", "(preset or inner.dirty)", topic="composition"),
    Line("a page larger than the host's", f"{LADDER}._host_entry", "outer.page_shift < inner.page_shift", "False", topic="shadow"),
    Line("the slot after", f"{LADDER}.walk", "// HPTE_BYTES", "// HPTE_BYTES + 1", topic="dirty"),
    Line("a store is told as a load", "nestmmu_ppc64_hpt.nested:exit_of", "Access.STORE if store else Access.LOAD", "Access.LOAD", topic="reflection"),
    Line("what is not there is told as forbidden", "nestmmu_ppc64_hpt.nested:exit_of", "record.cause & DSISR_NOHPTE", "record.cause & 0", topic="reflection"),
    Line("reflected as forbidden", "nestmmu_ppc64_hpt.nested:reflected_cause", "return DSISR_NOHPTE |", "return 0x08000000 |", topic="reflection"),
    Line("reflected with the hardware's cause", "nestmmu_ppc64_hpt.nested:reflect", "if outcome.fault is None:", "if True:", topic="reflection"),
    Line("the entry stands in the primary PTEG, marked secondary", "nestmmu_ppc64_hpt.shadow:SameSlot.place", "wanted // GROUP_SLOTS != primary // GROUP_SLOTS", "True", topic="shadow"),
    Line("never secondary", "nestmmu_ppc64_hpt.shadow:SameSlot.place", "wanted // GROUP_SLOTS != primary // GROUP_SLOTS", "False", topic="shadow"),
    Line("an entry gives way and is not told of", f"{SHADOW}._evict", "self.remove_place(Place(start, target, page.page_shift, r, self.hash_table.slot_address(slot)))", "self.hash_table.clear(slot)", topic="silence"),
    Line("an old entry stays", f"{SHADOW}.insert", "if old.entry == r:", "if True:", topic="dirty"),
    Line("what is removed is not told", f"{SHADOW}.remove_place", "if self.removed is not None and (self.heard is None or self.heard()):", "if False:", topic="events"),
    Line("the wrong shadow in the partition table", "nestmmu_ppc64_hpt.host:HashKvm.make_shadow", "base | self.order - SMALLEST_ORDER", "base + (1 << 18) | self.order - SMALLEST_ORDER", topic="shadow"),
    Line("L1's table is never read again", "nestmmu_ppc64_radix.kvm:KvmHv.finds_root", "return nested.gr_to_hr != 0", "return False", topic="shadow"),
    Line("L1's PATE of another LPID", "nestmmu_ppc64_radix.kvm:KvmHv.partition_entry", "pate_address(guest.ptcr, nested.assigned)", "pate_address(guest.ptcr, nested.tag)", topic="shadow"),
    Line("VSIDs lose a bit", "nestmmu_ppc64_hpt.virtual:segment_and_address", "address >> shift", "address >> shift & ~1", topic="shadow"),
    Line("the base page is forgotten", "nestmmu_ppc64_hpt.virtual:_number", "base_shift << _BASE_SHIFT", "12 << _BASE_SHIFT", topic="shadow"),
)  # fmt: skip

ON_HASH = (*SEARCHES, *PROTECTION, *FLAGS, *BATCHES, *NESTS)
