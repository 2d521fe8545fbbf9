"""KVM on KVM, as deep as one likes: each but the first a guest that asks its host by hypercalls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.allocator import PageAllocator
from nestmmu.errors import NestmmuError
from nestmmu.formats import AccessedDirty
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu.slots import Slot, Slots
from nestmmu.stack import Arrival, ChunkBacking, Layout, Left, Level
from nestmmu_ppc64_book3s import hcalls
from nestmmu_ppc64_book3s.interrupts import VECTOR_HDSI, VECTOR_HISI, VECTOR_SC, Interrupt
from nestmmu_ppc64_book3s.partition import KVM_NESTED_PATS, PATS
from nestmmu_ppc64_book3s.registers import MSR_ME, MSR_SF
from nestmmu_ppc64_book3s.tlbie import IS_LPID, IS_PAGE, RIC_ALL, RIC_PWC, RIC_TLB, SHIFT_APS, Tlbie
from nestmmu_ppc64_radix.exit_path import Circumstances, Handler, decide
from nestmmu_ppc64_radix.exits import RESUME_HOST, HvExit, decode, reflect
from nestmmu_ppc64_radix.guest_state import PT_REGS_BYTES, VERSION_BYTES, HvGuestState, PtRegs
from nestmmu_ppc64_radix.kvm import KvmHostFaults, KvmHv, KvmNestedGuest
from nestmmu_ppc64_radix.nested_entry import L1Vcpu, L2Exit, L2Vcpu, NestedEntry
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.access import Access
    from nestmmu.addresses import AssignedTag, HardwareTag
    from nestmmu.events import Event
    from nestmmu.guests import NestedGuest
    from nestmmu.memory import ByteOrder, Memory
    from nestmmu.protocols import CpuFactory

ARCH = "ppc64_radix"
PARTITION_TABLE = 0x1_0000
"""Where each hypervisor has its partition table, of 4,096 LPIDs."""
GUEST_STATE, GUEST_REGISTERS = 0x1000, 0x2000
"""Where a hypervisor that is a guest puts what H_ENTER_NESTED takes."""
LPIDS = 1 << KVM_NESTED_PATS + 8
_H_CEDE = 0xE0
"""With this a program says that it is through."""


@attrs.define(eq=False)
class KvmLevel(Level):
    """A KVM, and the hypercalls that it offers to its guest."""

    hcalls: NestedHcalls = attrs.field(kw_only=True)
    entry: NestedEntry = attrs.field(kw_only=True)

    def handle(self, nested: NestedGuest | None, exit_: Exit) -> Outcome:
        """Handle an exit; one from further in by what the exit path decides of it."""
        if nested is not None:
            decision = decide(exit_.record, Circumstances())
            if decision.handler is not Handler.PAGE_FAULT:
                return Outcome(Verdict.REFLECT)
        return Level.handle(self, nested, exit_)


class KvmOnKvm(KvmHv):
    """A KVM that is a guest itself (``kvmhv_on_pseries``): what it flushes, its host flushes for it."""

    def __init__(
        self, memory: Memory, allocator: PageAllocator, *, page_shift: int, ptcr: int, quirks: Quirk, parent: KvmLevel
    ) -> None:
        super().__init__(memory, allocator, page_shift=page_shift, ptcr=ptcr, quirks=quirks)
        self.parent = parent
        self.listeners.append(self._ask)
        if parent.hcalls.set_partition_table(ptcr) != hcalls.H_SUCCESS:
            message = "the parent refuses the partition table"
            raise NestmmuError(message)

    def set_pate(self, tag: HardwareTag, dw0: int, dw1: int) -> None:
        """Write an entry of its own partition table, and have it read again (``kvmhv_set_ptbl_entry``)."""
        super().set_pate(tag, dw0, dw1)
        self.flush(Flush(tag, FlushKind.TAG))

    def _ask(self, flush: Flush) -> None:
        """Do H_TLB_INVALIDATE, as ``kvmppc_radix_tlbie_page``, ``_flush_pwc`` and ``kvmhv_flush_lpid`` do."""
        if flush.kind is FlushKind.PAGE:
            operands = Tlbie(RIC_TLB, 0, 1, IS_PAGE, SHIFT_APS[flush.page_shift], flush.address >> 12, flush.tag)
        else:
            ric = RIC_PWC if flush.kind is FlushKind.WALK_CACHE else RIC_ALL
            operands = Tlbie(ric, 0, 1, IS_LPID, 0, 0, flush.tag)
        self.parent.requests += 1
        code = finish(self.parent.hcalls.tlb_invalidate(*operands.encode()))
        if code != hcalls.H_SUCCESS:
            message = f"the parent refuses {operands}: {code}"
            raise NestmmuError(message)


class PowerMachine:
    """A POWER9, and KVM for each level.

    :param make_cpu: makes the CPU, its caches included: :meth:`~nestmmu.plugins.Plugins.cpu`.
    :param announce: is told of events.
    :param page_shift: log2 of every kernel's base page: 16 or 12.
    """

    layout = Layout(low=0x2_0000, tables=16 << 20, chunk=2 << 20, work=8 << 20)
    page_shifts: tuple[int, ...] = (16, 21)
    """Log2 of the pages with which a level may map its guest."""

    def __init__(
        self,
        make_cpu: CpuFactory,
        announce: Callable[[Event], None] | None = None,
        *,
        page_shift: int = 16,
        quirks: Quirk = Quirk.NONE,
        byteorder: ByteOrder = "little",
    ) -> None:
        self.make_cpu = make_cpu
        self.announce = announce
        self.page_shift = page_shift
        self.quirks = quirks
        self.byteorder: ByteOrder = byteorder
        self.levels: list[KvmLevel] = []

    def level(self, number: int, memory: Memory, backing: ChunkBacking, slot: Slot, parent: Level | None) -> KvmLevel:
        """Return a KVM in ``memory`` that runs one guest."""
        low = self.layout.low
        allocator = PageAllocator(memory, low, low + self.layout.tables)
        ptcr = PARTITION_TABLE | KVM_NESTED_PATS
        host = KvmHv(memory, allocator, page_shift=self.page_shift, ptcr=ptcr, quirks=self.quirks)
        if isinstance(parent, KvmLevel):
            host = KvmOnKvm(memory, allocator, page_shift=self.page_shift, ptcr=ptcr, quirks=self.quirks, parent=parent)
        else:
            registers = {"msr": MSR_SF, "ptcr": ptcr}
            self.cpu = self.make_cpu(ARCH, registers, memory, AccessedDirty.FAULT)
        host.announce = self.announce
        tags = TagAllocator(1, LPIDS)
        tag = tags.allocate()
        if tag is None:
            message = "there is no LPID for a guest"
            raise NestmmuError(message)
        guest = host.create_guest(tag, Slots((slot,)), backing)
        nested = NestedGuests[KvmNestedGuest](host, guest, tags, lambda: 1 << (guest.ptcr & PATS) + 8)
        vcpu = L1Vcpu(msr=MSR_SF, byteorder=self.byteorder)
        made = KvmLevel(
            number, host, guest, nested, backing, KvmHostFaults(guest), host.nested_faults(guest),
            hcalls=NestedHcalls(host, guest, nested),
            entry=NestedEntry(host, guest, nested, vcpu, byteorder=self.byteorder),
        )  # fmt: skip
        self.levels.append(made)
        return made

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> Left:
        """Do one access in guest real mode with that LPID."""
        self.cpu.registers.lpidr = tag
        result = self.cpu.access(access, address)
        if isinstance(result, Interrupt):
            return decode(HvExit.from_interrupt(result))
        return Arrival(result.address)

    def enter(self, parent: Level, tag: AssignedTag, serve: Callable[[NestedGuest], Left]) -> Left:
        """Do H_ENTER_NESTED, both structures in the guest's memory, and read from them how what ran has left."""
        child, host = self.levels[parent.number + 1], self.levels[parent.number]
        memory, order = child.hypervisor.memory, self.byteorder
        memory.write(GUEST_STATE, HvGuestState(lpid=tag).to_bytes(order))
        memory.write(GUEST_REGISTERS, PtRegs(msr=MSR_SF | MSR_ME).to_bytes(order))
        ends: list[Arrival] = []

        def run(cpu: L2Vcpu) -> L2Exit:
            left = serve(cpu.nested)
            if isinstance(left, Exit):
                return L2Exit(RESUME_HOST, left.record)
            ends.append(left)
            if left.outcome is not None and left.outcome.verdict is Verdict.EMULATE:
                return L2Exit(RESUME_HOST, HvExit(0, cpu.regs.msr, 0, 0, 0, cpu.regs.nip), mmio=True)
            through = decide(HvExit(VECTOR_SC, cpu.regs.msr, 0, 0, 0, cpu.regs.nip), Circumstances(gpr3=_H_CEDE))
            return L2Exit(through.resume, through.seen)

        code = finish(host.entry.enter(GUEST_STATE, GUEST_REGISTERS, run)).code
        if ends and code in {VECTOR_SC, hcalls.H_TOO_HARD}:
            return ends[-1]
        if code not in {VECTOR_HDSI, VECTOR_HISI}:
            message = f"L{parent.number} returns {code} from H_ENTER_NESTED of LPID {tag}"
            raise NestmmuError(message)
        state = HvGuestState.from_bytes(memory.read(GUEST_STATE, VERSION_BYTES[2]), order)
        regs = PtRegs.from_bytes(memory.read(GUEST_REGISTERS, PT_REGS_BYTES), order)
        registers = {"hsrr0": regs.nip, "hsrr1": regs.msr}
        registers |= {"hdar": state.hdar, "hdsisr": state.hdsisr, "asdr": state.asdr}
        return decode(HvExit.from_interrupt(Interrupt(code, registers, hv=True)))

    def reflect(self, level: Level, outcome: Outcome, exit_: Exit) -> Exit:
        """Return an exit as the next KVM sees it."""
        del level
        record = reflect(outcome, exit_.record, self.quirks)
        return decode(record)
