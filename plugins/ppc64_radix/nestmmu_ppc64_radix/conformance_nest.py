"""KVM, an L1 and its L2s for the conformance suite; L1's tables and its hypercalls' operands are raw words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.errors import NestmmuError
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.points import finish
from nestmmu.slots import Slot
from nestmmu.testing.capabilities import Scope
from nestmmu.testing.nest import TreeNest
from nestmmu.testing.trees import Broken, Leads, Page, Tree, Upwards
from nestmmu.tlb import CachedCpu
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import Registers
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit, decode, reflect
from nestmmu_ppc64_radix.kvm import KvmHostFaults, KvmHv, KvmNestedGuest
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls, RptRequest
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.outcomes import Exit, Outcome
    from nestmmu.testing.architecture import RadixArchitecture
    from nestmmu.testing.trees import Meaning

HOST_PTCR = 0x8_0000_0000 | 4
L1_PARTITION_TABLE = 0x1_0000
L1_TREES, L1_TREE_BYTES = 0x20_0000, 0x20_0000
ROOT_WORD = 1 << 63 | 0b10 << 61 | 0b101 << 5 | 13
"""HR, RTS of 52 bits, RPDS."""
SF = 1 << 63
_AP = {12: 0, 16: 5, 21: 1, 30: 2}
_PAGES = {12: 1, 16: 2, 21: 4, 30: 8}
_TLBIE = 1 << 16
"""RIC 0, PRS 0, R 1."""
_NOEXEC, _PROTFAULT = 0x1000_0000, 0x0800_0000
"""DSISR of what a fetch, and of what a load or store, is not permitted."""
_IS_LPID, _IS_ALL = 0b10 << 10, 0b11 << 10


class KvmWords:
    """The words of L1's trees as KVM's software reads them: what is not aligned, and a leaf of 512 GiB, is refused."""

    def __init__(self, hardware: RadixArchitecture) -> None:
        self.form = hardware.form
        self.hardware = hardware
        self.entry_word, self.table_word = hardware.entry_word, hardware.table_word

    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        """Return what the hardware reads, unless KVM refuses it."""
        meaning = self.hardware.decode(depth, shift, word)
        if isinstance(meaning, Page) and (depth == 0 or word & 0x01FF_FFFF_FFFF_F000 != meaning.target):
            return Broken()
        if isinstance(meaning, Leads) and word & 0x0FFF_FFFF_FFFF_FF00 != meaning.table:
            return Broken()
        return meaning


class PowerNest(TreeNest):
    """Chunks of 2 MiB, unless the nest's largest page is another."""

    host_tables = range(0x9_0000_0000, 0x9_4000_0000)
    tables, tables_at = Slot(0, 0x100_0000), 0x4_0000_0000
    data, data_at = Slot(0x100_0000, 0x80_0000), 0x6_0000_0000
    assigned = (AssignedTag(7), AssignedTag(3))

    def __init__(
        self, architecture: RadixArchitecture, shift: int, variant: int = 0, quirks: Quirk = Quirk.NONE
    ) -> None:
        self.quirks = quirks
        super().__init__(architecture, shift, variant)

    def build(self) -> None:
        """Make KVM, L1, and a CPU without relocation."""
        page_shift = self.levels[-1].shift
        host = KvmHv(self.memory, self.allocator, page_shift=page_shift, ptcr=HOST_PTCR, quirks=self.quirks)
        guest = host.create_guest(HardwareTag(1), self.slots, self.backing)
        guest.ptcr = L1_PARTITION_TABLE
        self.host, self.guest = host, guest
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(host, guest, TagAllocator(3, 64), lambda: 256)
        self.hcalls = NestedHcalls(host, guest, self.guests)
        self.host_faults, self.nested_faults = KvmHostFaults(guest), host.nested_faults(guest)
        self.power9 = Power9Radix(
            Registers(msr=SF, ptcr=HOST_PTCR), self.memory, reference_change=AccessedDirty.FAULT,
            make_walker=self.make_walker,
        )  # fmt: skip
        self.cpu = CachedCpu(self.power9, self.tlb.tlb, self.tlb.stale.append)
        self.trees: dict[AssignedTag, Tree] = {}
        words = KvmWords(self.architecture)
        for number, tag in enumerate(self.assigned):
            upwards = Upwards(L1_TREES + number * L1_TREE_BYTES)
            tree = self.trees[tag] = Tree(words, self.levels, self.word_at, self.put_at, upwards)
            self.put_at(L1_PARTITION_TABLE + 16 * tag, (ROOT_WORD | tree.root).to_bytes(8, "big"))

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> int | Exit:
        """Do one access in guest real mode with that LPID."""
        self.power9.registers.lpidr = tag
        end: Any = self.cpu.access(access, address)
        return decode(HvExit.from_interrupt(end)) if isinstance(end, Interrupt) else int(end.address)

    def probe(self, tag: HardwareTag, access: Access, address: int) -> tuple[int, int] | None:
        """Return (host real address, rights) of what the CPU would do."""
        self.power9.registers.lpidr = tag
        end = self.power9.probe(access, address)
        return None if isinstance(end, Interrupt) else (end.address, end.permissions)

    def reflect(self, outcome: Outcome, exit_: Exit) -> Exit:
        """Return the exit that L1 gets from H_ENTER_NESTED: it reads HDSISR, or for a HISI the MSR in HSRR1."""
        left = reflect(outcome, exit_.record, self.quirks)
        registers = {"hsrr0": left.pc, "hsrr1": left.msr, "hdar": left.dar, "hdsisr": left.dsisr, "asdr": left.asdr}
        seen = decode(HvExit.from_interrupt(Interrupt(left.trap, registers, hv=True)))
        wrong = _PROTFAULT if seen.record.fetch else _NOEXEC
        if seen.fault.kind is FaultKind.PERMISSION and seen.record.dsisr & wrong:
            seen.fault.kind = FaultKind.ATTRIBUTE
        return seen

    def pages(self, assigned: AssignedTag) -> Tree:
        """Return L1's tree for an L2."""
        return self.trees[assigned]

    def invalidate(self, scope: Scope, assigned: AssignedTag, start: int, shift: int) -> None:
        """Do H_TLB_INVALIDATE, or H_RPT_INVALIDATE for a range."""
        if scope is Scope.RANGE:
            self._rpt_invalidate(assigned, shift, start, 1 << shift)
            return
        rb = {Scope.PAGE: start | _AP[shift] << 5, Scope.TAG: _IS_LPID, Scope.ALL: _IS_ALL}[scope]
        code = finish(self.hcalls.tlb_invalidate(_TLBIE, 0 if scope is Scope.ALL else assigned, rb))
        self._accepted(code, f"{scope.value} of {assigned}")

    def invalidate_range(self, assigned: AssignedTag, start: int, size: int) -> None:
        """Do H_RPT_INVALIDATE for base pages."""
        self._rpt_invalidate(assigned, self.small, start, size)

    def _rpt_invalidate(self, assigned: AssignedTag, shift: int, start: int, size: int) -> None:
        request = RptRequest(assigned, 1, 3, _PAGES[shift], start, start + size)
        self._accepted(finish(self.hcalls.rpt_invalidate(request)), f"a range of {assigned}")

    def _accepted(self, code: int, what: str) -> None:
        if code:
            message = f"the host refuses to invalidate {what}: {code}"
            raise NestmmuError(message)
