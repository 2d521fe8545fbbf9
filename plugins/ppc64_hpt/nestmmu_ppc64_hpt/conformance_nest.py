"""KVM, a radix L1 and its hash L2s for the conformance suite; L1's tables and its tlbie are raw words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from nestmmu.addresses import AssignedTag, HardwareTag, low_mask
from nestmmu.errors import NestmmuError
from nestmmu.formats import AccessedDirty
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.points import finish
from nestmmu.slots import Slot
from nestmmu.testing.capabilities import Scope
from nestmmu.testing.nest import Leaf, TreeNest
from nestmmu.tlb import CachedCpu
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF, Registers
from nestmmu_ppc64_hpt.conformance_entries import AUTHORITY, MEMORY, PAGES, ByEntries, Entries, Segment
from nestmmu_ppc64_hpt.cpu import LPCR_VPM1, Power9Hash
from nestmmu_ppc64_hpt.host import HashKvm
from nestmmu_ppc64_hpt.nested import HashExit, decode, exit_of, reflect
from nestmmu_ppc64_hpt.nested_tlbie import emulate
from nestmmu_ppc64_hpt.shadow import HashShadow
from nestmmu_ppc64_hpt.slb import Slb
from nestmmu_ppc64_radix.conformance import Ppc64Radix
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit
from nestmmu_ppc64_radix.exits import decode as decode_radix
from nestmmu_ppc64_radix.kvm import KvmHostFaults, KvmNestedGuest
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.guests import NestedGuest
    from nestmmu.invalidation import Flush
    from nestmmu.outcomes import Exit, Outcome

HOST_PTCR = 0x8_0000_0000 | 4
L1_PARTITION_TABLE = 0x1_0000
L1_TABLES = 0x20_0000
ORDER = 18
KIB64 = 16
_IS_LPID, _IS_ALL = 0x800, 0xC00


def tlbie_rb(segment: Segment, address: int) -> int:
    """Return RB that names the page of 64 KiB at an address: AVA, LP, B, AVAL, L (ISA 3.0B, Book III, 5.9.3.3)."""
    virtual = segment.vsid << segment.lg2 | address
    large, penc = PAGES[KIB64, KIB64]
    return virtual & low_mask(64) & ~0xFFFF | penc << 12 | segment.size << 8 | virtual >> 12 & 0xFE | large


class HashPages(ByEntries):
    """L1's table of an L2: what it maps in one piece of 2 MiB has an entry for each 64 KiB."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.shifts: dict[int, int] = {}
        """Log2 of the bytes of each piece, by its first address."""

    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> None:
        """Write the entries of a piece, those of others that it overlaps taken away."""
        end = address + (1 << shift)
        for start, other in list(self.shifts.items()):
            if start < end and address < start + (1 << other) and (start, other) != (address, shift):
                self.clear(start, other)
        self.shifts[address] = shift
        actual = max(one for one in self.entries.segment.actual_shifts if one <= shift)
        for offset in range(0, 1 << shift, 1 << actual):
            self.entries.map(
                address + offset, target + offset, actual, rights, accessed=accessed, dirty=dirty, cache=MEMORY
            )  # fmt: skip

    def clear(self, address: int, shift: int) -> None:
        """Take the entries of a piece away."""
        self.shifts.pop(address, None)
        for at in range(address, address + (1 << shift), 1 << KIB64):
            self.entries.clear(at)


class HashNest(TreeNest):
    """Chunks of 2 MiB. L1's own table is a radix tree.

    :param segment: that every L2 has: their virtual addresses are the same, and only LPIDs tell them apart.
    """

    host_tables = range(0x9_0000_0000, 0x9_4000_0000)
    tables, tables_at = Slot(0, 0x100_0000), 0x4_0000_0000
    data, data_at = Slot(0x100_0000, 0x80_0000), 0x6_0000_0000
    assigned = (AssignedTag(7), AssignedTag(3))

    def __init__(self, shift: int, segment: Segment) -> None:
        self.segment = segment
        super().__init__(Ppc64Radix(), shift)

    def build(self) -> None:
        """Make KVM, L1, a CPU that translates by radix for L1, and one that does by hash for its L2s."""
        host = HashKvm(self.memory, self.allocator, ptcr=HOST_PTCR, quirks=Quirk.NONE, order=ORDER)
        guest = host.create_guest(HardwareTag(1), self.slots, self.backing)
        guest.ptcr = L1_PARTITION_TABLE
        self.host, self.guest = host, guest
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(host, guest, TagAllocator(3, 64), lambda: 256)
        self.host_faults, self.nested_faults = KvmHostFaults(guest), host.nested_faults(guest)
        self.power9_radix = Power9Radix(
            Registers(msr=MSR_SF, ptcr=HOST_PTCR, lpidr=guest.tag), self.memory,
            reference_change=AccessedDirty.FAULT, make_walker=self.make_walker,
        )  # fmt: skip
        self.power9_hash = Power9Hash(
            Registers(
                msr=MSR_SF | MSR_IR | MSR_DR, ptcr=HOST_PTCR, lpcr=LPCR_VPM1, amr=AUTHORITY[0], iamr=AUTHORITY[1]
            ),
            self.memory,
            Slb([self.segment.slb_entry]),
        )  # fmt: skip
        self.own_cpu = CachedCpu(self.power9_radix, self.tlb.tlb, self.tlb.stale.append)
        self.cpu = CachedCpu(self.power9_hash, self.tlb.tlb, self.tlb.stale.append)
        self.hash_pages: dict[AssignedTag, HashPages] = {}
        for number, tag in enumerate(self.assigned):
            base = L1_TABLES + (number << ORDER)
            self.hash_pages[tag] = HashPages(Entries(self.word_at, self.put_at, base, ORDER, self.segment))
            self.put_at(L1_PARTITION_TABLE + 16 * tag, (base | ORDER - 18).to_bytes(8, "big"))

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> int | Exit:
        """Do one access: of L1 in guest real mode, of an L2 with relocation in its segment."""
        own = tag == self.guest.tag
        self.power9_hash.registers.lpidr = tag
        end: Any = (self.own_cpu if own else self.cpu).access(access, address)
        if not isinstance(end, Interrupt):
            return int(end.address)
        exit_ = decode_radix(HvExit.from_interrupt(end)) if own else decode(end, amr=AUTHORITY[0], iamr=AUTHORITY[1])
        if exit_ is None:
            message = f"interrupt {end.vector:#x} of tag {tag} at {address:#x} does not reach the host"
            raise NestmmuError(message)
        return exit_

    def probe(self, tag: HardwareTag, access: Access, address: int) -> tuple[int, int] | None:
        """Return (host real address, rights) of what the CPU would do."""
        self.power9_hash.registers.lpidr = tag
        end = (self.power9_radix if tag == self.guest.tag else self.power9_hash).probe(access, address)
        return None if isinstance(end, Interrupt) else (end.address, end.permissions)

    def reflect(self, outcome: Outcome, exit_: Exit) -> Exit:
        """Return the exit that L1 gets."""
        record: HashExit = exit_.record
        return exit_of(reflect(outcome, record))

    def named(self, address: int) -> int:
        """Return the effective address of a number of a virtual page: of one segment, whose ESID is 0."""
        return address & low_mask(self.segment.lg2)

    def pages(self, assigned: AssignedTag) -> HashPages:
        """Return L1's table for an L2."""
        return self.hash_pages[assigned]

    def invalidate(self, scope: Scope, assigned: AssignedTag, start: int, shift: int) -> None:
        """Do tlbie with R=0: for a piece, one for each of its pages."""
        pages = [tlbie_rb(self.segment, at) for at in range(start, start + (1 << shift), 1 << KIB64)]
        for rb in {Scope.PAGE: pages, Scope.TAG: [_IS_LPID], Scope.ALL: [_IS_ALL]}[scope]:
            code = finish(emulate(self.guests, 0, 0 if scope is Scope.ALL else assigned, rb))
            if code:
                message = f"the host refuses to invalidate {scope.value} of {assigned}: {code}"
                raise NestmmuError(message)

    def forgets(self, flush: Flush, tag: HardwareTag, leaf: Leaf) -> bool:
        """Tell whether an invalidation reaches all of a page: those of hash guests name it by its virtual address."""
        if tag != self.guest.tag:
            leaf = attrs.evolve(leaf, start=self.segment.vsid << self.segment.lg2 | leaf.start)
        return super().forgets(flush, tag, leaf)

    def _base(self, nested: NestedGuest) -> int:
        shadow = nested.shadow
        return shadow.hash_table.base if isinstance(shadow, HashShadow) else -1

    def host_pages(self, nested: NestedGuest | None) -> list[Leaf]:
        """Return every entry of the shadow of ``nested``; every leaf of L1's own tree for None."""
        if nested is None:
            return super().host_pages(None)
        shadow = Entries(self.memory.read, self.memory.write, self._base(nested), ORDER, self.segment)
        return [Leaf.of(*one) for one in shadow.leaves()]

    def host_table_pages(self) -> list[int]:
        """Return the address of every table of L1's tree, and of every shadow."""
        own = self.host_tree(self.guest.table.table.root.base)
        return [*own.tables(), *(self._base(nested) for nested in self.guest.nested.values())]

    def in_use(self, nested: NestedGuest) -> bool:
        """Tell whether the memory of a shadow is handed out."""
        return self._base(nested) in self.allocator.used
