"""The faults in the POWER9 radix plugin, and in the core as that uses it: a line each."""

from __future__ import annotations

import attrs

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import Match
from nestmmu_ppc64_radix.formats import EAA_EXEC, EAA_READ, EAA_WRITE, POWER9
from planting import Field, Line, Mutant
from planting.toy import EDIT, LADDER, UPKEEP, WALKER

POWER = "nestmmu_ppc64_radix"
POWER_FORMAT = f"{POWER}.formats:POWER9"
CPU = f"{POWER}.cpu:Power9Radix"

ON_POWER: tuple[Mutant, ...] = (
    Field("POWER9: write does not imply read", POWER_FORMAT, "permissions",
          ((Match(EAA_READ, EAA_READ), READ), (Match(EAA_WRITE, EAA_WRITE), WRITE), (Match(EAA_EXEC, EAA_EXEC), EXECUTE)), topic="entries"),
    Field("POWER9: R and C swapped", POWER_FORMAT, "accessed", POWER9.dirty, topic="accessed_dirty"),
    Field("POWER9: a narrower RPN", POWER_FORMAT, "output_mask", POWER9.output_mask & ~(1 << 56), topic="geometry"),
    Field("POWER9: NLS of four bits", POWER_FORMAT, "width_mask", 0xF, topic="entries"),
    Field("POWER9: 9 bits alone in the last level", POWER_FORMAT, "levels", (*POWER9.levels[:3], attrs.evolve(POWER9.levels[3], index_bits=(9,))), topic="geometry"),
    Field("POWER9: low bits of a table are refused", POWER_FORMAT, "strict_table", value=True, topic="hostile"),
    Field("POWER9: little-endian", POWER_FORMAT, "byteorder", "little", topic="geometry"),
    Line("POWER9: the PATE of the LPID beside", f"{CPU}.pate", "pate_address(self.registers.ptcr, lpid)", "pate_address(self.registers.ptcr, lpid ^ 1)", topic="permissions"),
    Line("POWER9: a fetch needs read", f"{CPU}._partition_scoped", "if not raw[6] & access or", "if not raw[6] & (access if access is not _FETCH else 4) or", topic="permissions"),
    Line("POWER9: C is not needed by a store", f"{CPU}._partition_scoped", "_RC if access is _STORE else REFERENCE", "REFERENCE", topic="accessed_dirty"),
    Line("POWER9: the process scope's permissions are not looked at", f"{CPU}._process_scoped", "if not permissions & access:", "if not permissions:", topic="permissions"),
    Line("POWER9: the page size is the process scope's", f"{CPU}._translate", "min(shift, inner_shift), permissions & inner_permissions", "inner_shift, permissions & inner_permissions", topic="faults"),
    Line("POWER9: the permissions are the partition scope's", f"{CPU}._translate", "permissions & inner_permissions, guest)", "permissions, guest)", topic="permissions"),
    Line("POWER9: a store's interrupt does not say so", f"{CPU}.interrupt", "cause |= HSRR1_HISI_WRITE if fetch else DSISR_ISSTORE", "pass", topic="permissions"),
    Line("POWER9: a table's fault does not say so", f"{CPU}.interrupt", "cause |= DSISR_PRTABLE_FAULT", "pass", topic="accessed_dirty"),
    Line("POWER9: ASDR has the effective address", f"{CPU}.interrupt", "asdr = fault.input_address if partition else None", "asdr = address if partition else None", topic="permissions"),
    Line("POWER9: HDSI for the guest's own fault", f"{CPU}.interrupt", "partition = fault.stage == PARTITION", "partition = True", topic="permissions"),
    Line("KVM: a HISI decodes as a load", f"{POWER}.exits:decode", "Access.FETCH if record.fetch else Access.LOAD", "Access.LOAD", topic="permissions"),
    Line("KVM: the low bits of the address are lost", f"{POWER}.exits:decode", "address += record.dar & 0xFFF", "pass", topic="permissions"),
    Line("KVM: implicit faults decode as explicit", f"{POWER}.exits:decode", "implicit = bool(dsisr & DSISR_PRTABLE_FAULT)", "implicit = False", topic="accessed_dirty"),
    Line("KVM: a store is reflected as a load", f"{POWER}.exits:reflect_flags", "store = record.dsisr & DSISR_ISSTORE", "store = 0", topic="reflection"),
    Line("KVM: the composed leaf permits what L0 does", f"{POWER}.composer:KvmComposer.compose", "entry = outer.entry & ~(_EAA & ~given)", "entry = outer.entry", topic="composition"),
    Line("KVM: R is kept without L1's", f"{POWER}.composer:KvmComposer.compose", "if not inner.entry & REFERENCE:", "if not inner.entry:", topic="composition"),
    Line("KVM: C is kept for a load", f"{POWER}.composer:KvmComposer.compose", "or access is not Access.STORE:", "or access is Access.FETCH:", topic="composition"),
    Line("KVM: the small page leads to the large one's start", f"{POWER}.composer:KvmComposer.compose", "entry |= inner.output_address &", "entry |= 0 &", topic="composition"),
    Line("KVM: the composed page is L0's", f"{POWER}.composer:KvmComposer.shift", "if outer_shift <= inner_shift:", "if True:", topic="composition"),
    Line("KVM: tlbie of a page does one base page", f"{POWER}.nested_tlbie:NestedTlbie.pages", "leaves(start, start + size)", "leaves(start, start + 1)", topic="shadow"),
    Line("KVM: tlbie of a page does the one before", f"{POWER}.nested_tlbie:NestedTlbie.pages", "start = align_down(address & (span - 1), size.bit_length() - 1)", "start = align_down(address & (span - 1), size.bit_length() - 1) - size", topic="lifetime"),
    Line("KVM: tlbie of one LPID flushes no LPID", f"{POWER}.nested_tlbie:NestedTlbie.whole", "yield from self.nested.flush(nested)", "yield from ()", topic="invalidation"),
    Line("KVM: a page too many gets away in a range", f"{POWER}.nested_hcalls:NestedHcalls._rpt_pages", "yield from self.tlbie.pages(nested, address, 1 << shift)", "yield from self.tlbie.pages(nested, address + (1 << shift), 1 << shift)", topic="invalidation"),
    Line("KVM: L1's partition table by the LPID of L0", f"{POWER}.kvm:KvmHv.partition_entry", "pate_address(guest.ptcr, nested.assigned)", "pate_address(guest.ptcr, nested.tag)", topic="references"),
    Line("KVM: the hardware's PATE of a released L2 stays", f"{POWER}.kvm:KvmHv.release_nested", "self.set_pate(nested.tag, 0, 0)", "pass", topic="lifetime"),
    Line("the core on POWER9: a leaf keeps the low bits of its target", f"{WALKER}._node", "return None, output & ~low, shift", "return None, output, shift", topic="entries"),
    Line("the core on POWER9: a table that is not aligned is read where it says", f"{WALKER}._table", "base & ~low, shift - bits", "base, shift - bits + (base & low and 1)", topic="hostile"),
    Line("the core on POWER9: a loop is listed without end", "nestmmu.radix:RadixTable._leaves", "if budget[0] < 0:", "if budget[0] < -(1 << 18):", topic="hostile"),
    Line("the core on POWER9: a page is removed and not flushed", f"{EDIT}.remove_place", "self.flush(Flush(self.tag, FlushKind.PAGE, place.start, place.shift))", "pass", topic="lifetime"),
    Line("KVM: every other page of a range", f"{POWER}.nested_hcalls:NestedHcalls._rpt_pages", "address += 1 << shift", "address += 2 << shift", topic="invalidation"),
    Line("KVM: the last page of a range stays", f"{POWER}.nested_hcalls:NestedHcalls._rpt_pages", "if address >= request.end:", "if address + (1 << shift) >= request.end:", topic="invalidation"),
    Line("KVM: any range is all", f"{POWER}.nested_hcalls:NestedHcalls._rpt_pages", "> MOST_PAGES", ">= 0", topic="invalidation"),
    Line("KVM: a fetch is reflected with the hardware's cause", f"{POWER}.exits:reflect", "msr = record.msr & ~SRR1_CAUSES | image", "msr = record.msr", topic="reflection"),
    Line("the core on POWER9: an off-by-one in the index", f"{WALKER}.descend", "((address >> shift & mask) << scale)", "((address >> shift & mask) + 1 << scale)", topic="geometry"),
    Line("the core on POWER9: the reverse map is not written", f"{LADDER}._shadow", "guest.rmap.insert(frame, ReverseEntry(nested.assigned, start))", "pass", topic="lifetime"),
    Line("the core on POWER9: dirty stays in the shadows", f"{UPKEEP}:take_dirty", "_clear_shadows(guest, leaf.page_start, leaf, accessed=False, dirty=True)", "pass", topic="dirty"),
)  # fmt: skip
