"""L0: guests behind a G-stage table, and guests of theirs (HS-mode in VS-mode) behind a shadow of L1's.

L1's hypervisor CSRs are virtual: its accesses to hgatp and its fences trap, and L0 does what hardware would have done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from nestmmu.access import ALL_PERMISSIONS, Access
from nestmmu.addresses import ADDRESS_BITS, AssignedTag, HardwareTag, align_down
from nestmmu.edit import Insertion, TableEditor
from nestmmu.guests import Guest, NestedGuest
from nestmmu.hypervisor import Hypervisor
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.mappings import Mapping
from nestmmu.memory import GuestMemory
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.slots import SlotTranslator
from nestmmu_riscv import fences
from nestmmu_riscv.composer import RiscvComposer, span_of
from nestmmu_riscv.csrs import (
    BARE,
    HSTATUS_GVA,
    HSTATUS_SPV,
    HSTATUS_SPVP,
    MODES,
    STATUS_MXR,
    SV48,
    VMID_BITS,
    Registers,
    hgatp,
    legal_hgatp,
    mode_of,
    root_of,
    vmid_of,
)
from nestmmu_riscv.fences import Fence, FenceKind
from nestmmu_riscv.formats import root_bits, table_format
from nestmmu_riscv.nested_faults import RiscvNestedFaults
from nestmmu_riscv.traps import G_STAGE, Trap

if TYPE_CHECKING:
    from nestmmu.allocator import PageAllocator
    from nestmmu.memory import Memory
    from nestmmu.points import Steps
    from nestmmu.shadow import GuestTable
    from nestmmu.slots import Backing, Slots


class BareTable:
    """hgatp.MODE Bare: guest physical addresses are L1's physical addresses."""

    def lookup(self, address: int, access: Access = Access.LOAD) -> Mapping:
        """Return the mapping of ``address``: to itself, and all of it one page."""
        del access
        return Mapping(address, address, ADDRESS_BITS, ALL_PERMISSIONS, accessed=True, dirty=True)


class ShadowEditor(TableEditor):
    """A shadow table on harts that may set A and D by themselves.

    A flag that is cleared has to be missed at the next access, in every table: so the whole leaf goes.
    """

    spans: frozenset[int] = frozenset()
    """How large L1's pages were that leaves were made of, log2 of the bytes at most."""

    def insert(self, address: int, entry: int, depth: int, spares: dict[int, int]) -> Insertion:
        """Put the leaf ``entry`` at level ``depth`` for ``address``."""
        self.spans |= {span_of(entry)}
        return super().insert(address, entry, depth, spares)

    def forget(self, address: int) -> None:
        """Remove every leaf that may have been made of L1's page around a guest physical address.

        That page may have been larger than the shadow's, and is no longer there to be looked at.
        """
        for span in self.spans:
            start = align_down(address, span)
            for leaf in list(self.table.leaves(start, start + (1 << span))):
                if leaf.entry is not None and span_of(leaf.entry) == span:
                    self.remove(leaf.page_start)

    def clear_flags(self, address: int, *, accessed: bool, dirty: bool) -> Mapping | None:
        """Remove the leaf of ``address``; return it as it was."""
        del accessed, dirty
        return self.remove(address)


class RiscvNestedGuest(NestedGuest):
    """L2, by the VMID that L1 gave it."""

    hgatp: int | None = None
    """L1's hgatp when it was last entered; None: never."""


class RiscvGuest(Guest):
    """L1, with the registers as it believes them to be: ``virtual`` is whether L2 runs."""

    registers: Registers

    @property
    def hardware_sets_flags(self) -> bool:
        """Whether L1's machine sets A and D in L1's G-stage tables (Svadu), or faults (Svade)."""
        return self.registers.enabled(stage_of_guest=False)[0]


class RiscvHypervisor(Hypervisor):
    """The host.

    :param memory: the host's.
    :param allocator: pages of it for tables.
    :param mode: of its own hgatp; L1 is offered this one and the narrower ones, which a shadow in it can hold.
    :param menvcfg: of the machine: ADUE and PBMTE are what hardware does at the G-stage.
    """

    nested_type = RiscvNestedGuest

    def __init__(self, memory: Memory, allocator: PageAllocator, *, mode: int = SV48, menvcfg: int = 0) -> None:
        self.mode = mode
        self.machine = Registers(menvcfg=menvcfg)
        form = table_format(mode, g_stage=True, pbmt=self.machine.enabled(stage_of_guest=False)[1])
        super().__init__(memory, allocator, form, tuple(level.index_bits[0] for level in form.levels))
        self.tags = TagAllocator(1, 1 << VMID_BITS)

    def create_guest(self, tag: HardwareTag, slots: Slots, backing: Backing) -> RiscvGuest:
        """Begin to keep an L1, in HS-mode as it believes; its ADUE and PBMTE are at most the machine's."""
        table = self.edit(self.new_root(), tag)
        memory = GuestMemory(self.memory, SlotTranslator(slots, backing, self.base_shift), "L1 physical")
        guest = RiscvGuest(tag, table, memory, slots, backing, self.base_shift)
        guest.registers = Registers(menvcfg=self.machine.menvcfg, virtual=False)
        table.removed = guest.page_removed
        return guest

    def make_shadow(self, tag: HardwareTag) -> ShadowEditor:
        """Return an empty shadow table.

        :raises OutOfPagesError: if there is no page for it.
        """
        table = RadixTable(self.walker, self.new_root())
        return ShadowEditor(table, self.widths, self.allocator, tag, self.flush)

    def nested_guests(self, guest: RiscvGuest) -> NestedGuests[RiscvNestedGuest]:
        """Return what keeps the guests of ``guest``."""
        return NestedGuests(self, guest, self.tags, lambda: 1 << VMID_BITS)

    def handler(self, guest: RiscvGuest) -> RiscvNestedFaults:
        """Return the handler of faults of ``guest``'s guests."""
        svadu = self.machine.enabled(stage_of_guest=False)[0]
        return RiscvNestedFaults(guest, RiscvComposer(self.walker.format, self.widths, svadu=svadu), self.tell)

    def write_hgatp(self, guest: RiscvGuest, value: int) -> None:
        """Do L1's write to its hgatp."""
        modes = (BARE, *(mode for mode in MODES if mode <= self.mode))
        guest.registers.hgatp = legal_hgatp(value, guest.registers.hgatp, modes)

    def enter(self, guest: RiscvGuest, guests: NestedGuests[RiscvNestedGuest]) -> Steps[RiscvNestedGuest | None]:
        """Enter L2, for an SRET of L1 with hstatus.SPV: find or make the guest of hgatp.VMID, and hold it.

        Of a VMID whose table is another than before, nothing is kept, whether or not L1 made the fence for it.

        :returns: None where there is no memory or no VMID for it.
        """
        registers = guest.registers
        nested = yield from guests.get(AssignedTag(vmid_of(registers.hgatp)), create=True)
        if nested is None:
            return None
        if nested.hgatp not in {None, registers.hgatp}:
            yield from guests.flush(nested)
        nested.hgatp, nested.table = registers.hgatp, self.guest_table(guest)
        registers.virtual, registers.user = True, not registers.hstatus & HSTATUS_SPVP
        return nested

    def guest_table(self, guest: RiscvGuest) -> GuestTable:
        """Return L1's table for L2, as L1's hgatp has it; nothing is updated by reading it."""
        value = guest.registers.hgatp
        mode = mode_of(value)
        if mode == BARE:
            return BareTable()
        pbmt = guest.registers.enabled(stage_of_guest=False)[1]
        form = table_format(mode, g_stage=True, pbmt=pbmt)
        return RadixTable(RadixWalker(form, guest.memory, G_STAGE), Root(root_of(value), root_bits(form)))

    def registers_of(self, guest: RiscvGuest, nested: RiscvNestedGuest | None = None) -> Registers:
        """Return the hart's registers while L1 runs, or L2 (``nested``).

        L1's satp and sstatus are the hart's vsatp and vsstatus. While L2 runs these are L2's, and L1's MXR, which acts
        at both stages of L2, has to be the hart's own.
        """
        own = guest.registers
        table = guest.table if nested is None else nested.tree
        tag = guest.tag if nested is None else nested.tag
        made = Registers(
            hgatp=hgatp(self.mode, tag, table.table.root.base),
            menvcfg=self.machine.menvcfg,
            user=own.user,
        )
        if nested is None:
            made.vsatp, made.vsstatus, made.henvcfg = own.satp, own.mstatus, own.menvcfg
        else:
            made.vsatp, made.vsstatus, made.henvcfg = own.vsatp, own.vsstatus, own.henvcfg & own.menvcfg
            made.mstatus, made.hstatus = own.mstatus & STATUS_MXR, own.hstatus
        return made

    def deliver(self, guest: RiscvGuest, trap: Trap) -> dict[str, int]:
        """Let L1 take an exception of L2 into its HS-mode; return what it finds in its registers."""
        registers = guest.registers
        registers.hstatus &= ~(HSTATUS_GVA | HSTATUS_SPV | HSTATUS_SPVP)
        registers.hstatus |= (HSTATUS_GVA if trap.gva else 0) | HSTATUS_SPV | (0 if trap.user else HSTATUS_SPVP)
        registers.virtual = registers.user = False
        return {**trap.written("hs"), "hstatus": registers.hstatus}

    def fence(self, guest: RiscvGuest, fence: Fence) -> None:
        """Do an HFENCE of L1: of an HFENCE.VVMA, for the VMID that L1's hgatp has now.

        :param fence: with L1's VMIDs and, of an HFENCE.GVMA, guest physical addresses of L2.
        :raises ValueError: for an SFENCE.VMA, which hardware does without a trap.
        """
        if fence.kind is FenceKind.SFENCE_VMA:
            message = "SFENCE.VMA of L1, and of L2, is the hart's to do"
            raise ValueError(message)
        scope = fences.decode(attrs.evolve(fence, vmid=vmid_of(guest.registers.hgatp)))[0]
        chosen = guest.nested.values() if scope.every else [guest.nested.get(AssignedTag(int(scope.tag)))]
        for nested in list(chosen):
            if nested is None:
                continue
            if fence.kind is FenceKind.HFENCE_VVMA:
                self.flush(Flush(nested.tag, scope.kind, scope.address, scope.page_shift, process=scope.process))
            elif scope.kind is FlushKind.PAGE:
                cast("ShadowEditor", nested.shadow).forget(scope.address)
            else:
                nested.shadow.clear_tree()
                self.flush(Flush(nested.tag, FlushKind.TAG))
