"""The faults of the hash plugin: a line each, in hashing, searching, protection, reference and change, and batches."""

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

ON_HASH = (*SEARCHES, *PROTECTION, *FLAGS, *BATCHES)
