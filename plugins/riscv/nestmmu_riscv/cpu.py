"""A hart with the hypervisor extension, RV64: one load, store or fetch of VS, VU, HS or U-mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nestmmu.access import ALL_PERMISSIONS, Access
from nestmmu.addresses import HardwareTag
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.invalidation import HOST_OWN
from nestmmu.memory import GuestMemory
from nestmmu.radix import RadixWalker
from nestmmu.slots import LinearBacking, Slot, Slots, SlotTranslator
from nestmmu.tlb import Translation, page_of
from nestmmu_riscv.csrs import (
    ENVCFG_ADUE,
    HSTATUS_SPVP,
    MODES,
    PAGE_SHIFT,
    STATUS_MXR,
    STATUS_SUM,
    Registers,
    asid_of,
    mode_of,
    root_of,
    vmid_of,
)
from nestmmu_riscv.formats import PBMT, G, root_bits
from nestmmu_riscv.stages import Rights, Tables, permits, settle
from nestmmu_riscv.traps import PSEUDO_READ, PSEUDO_WRITE, S_STAGE, VS_STAGE, Trap, trap_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from nestmmu.batch_memory import Stage
    from nestmmu.batch_stages import Batch
    from nestmmu.memory import Memory
    from nestmmu.protocols import WalkerFactory
    from nestmmu.radix import Step

PHYSICAL_BITS = 56
_NO_PAGE = 64
_MOST_TABLES = 1024


class Reached(NamedTuple):
    """An access that ended in a supervisor physical address."""

    address: int
    """In bytes."""
    page_shift: int
    """Log2 of the bytes over which the same translation holds; 64 where there is none."""
    permissions: int
    """Which accesses would pass, of the same mode."""
    guest: int | None = None
    """The guest physical address, in bytes; None where no guest runs."""
    input_shift: int = _NO_PAGE
    """Log2 of the bytes of the page of S-stage or VS-stage."""
    guest_shift: int = _NO_PAGE
    """Log2 of the bytes of the G-stage's page."""
    is_global: bool = False
    """Whether the leaf of S-stage or VS-stage is in every address space (G)."""
    pbmt: int = 0
    """The memory type that counts, as an entry has it: the VS-stage's where it has one, else the G-stage's; 0: that
    of the physical address."""


class RiscvCpu:
    """A hart.

    :param memory: the physical addresses.
    :param ram: which of them are memory; None: all. Whatever lies elsewhere, a table or the access, is an access fault.
    :param napot: whether there is Svnapot.
    :param silent: A and D are neither set nor missed.
    :param make_walker: what to walk with; a hook may have wrapped it.
    """

    def __init__(
        self,
        registers: Registers,
        memory: Memory,
        *,
        ram: Slot | None = None,
        napot: bool = True,
        silent: bool = False,
        make_walker: WalkerFactory = RadixWalker,
    ) -> None:
        self.registers = registers
        self.memory = memory
        self.ram = ram
        if ram is not None:
            self.memory = GuestMemory(memory, SlotTranslator(Slots((ram,)), LinearBacking(0, PAGE_SHIFT)), "RAM")
        self.napot = napot
        self.silent = silent
        self.make_walker = make_walker
        self._tables: dict[Hashable, Tables] = {}
        self._steps: list[Step] | None = None

    def trace(self, steps: list[Step] | None) -> None:
        """Add the steps of every walk to ``steps`` from now on; None: stop."""
        self._steps = steps
        for tables in self._tables.values():
            tables.trace(steps)

    def access(self, access: Access, address: int) -> Reached | Trap:
        """Do one access of the mode that the hart is in.

        :param address: virtual, in bytes.
        :returns: where it ended, or the exception with every register that it writes.
        """
        return self._do(access, address, self.rights())

    def execute(self, access: Access, address: int, at: int) -> Reached | Trap:
        """Fetch a load or store instruction from ``at``, then do its access; a fetch is its own instruction."""
        if access is not Access.FETCH:
            fetched = self.access(Access.FETCH, at)
            if isinstance(fetched, Trap):
                return fetched
        return self.access(access, address)

    def as_guest(self, access: Access, address: int, *, execute: bool = False) -> Reached | Trap:
        """Do one HLV (a load), HSV (a store) or HLVX (``execute``) of HS-mode, as VS-mode or VU-mode: hstatus.SPVP.

        :raises ValueError: for a fetch, and for HLVX that stores.
        """
        if access is Access.FETCH or (execute and access is not Access.LOAD):
            message = f"no instruction makes a {access.label} as a guest{' with HLVX' if execute else ''}"
            raise ValueError(message)
        user = not self.registers.hstatus & HSTATUS_SPVP
        return self._do(access, address, self.rights(virtual=True, user=user, execute=execute))

    def probe(self, access: Access, address: int) -> Reached | Trap:
        """Return what :meth:`access` would, and change nothing: neither A nor D."""
        silent = RiscvCpu(self.registers, self.memory, napot=self.napot, silent=True)
        silent.ram = self.ram
        return silent.access(access, address)

    def batch_stage(self, batch: Batch) -> Stage:
        """Return what makes many accesses at once (:mod:`nestmmu.batch`)."""
        from nestmmu_riscv.many import HartStage  # noqa: PLC0415  (numpy, and only for batches)

        return HartStage(self, batch)

    def context(self, access: Access, address: int) -> tuple[HardwareTag, Hashable] | None:
        """Return the VMID, and what else a translation hangs on: ASID, privilege, SUM, MXR; None without a table."""
        del access, address
        rights, registers = self.rights(), self.registers
        atp = registers.vsatp if rights.virtual else registers.satp
        hgatp = registers.hgatp if rights.virtual else 0
        if mode_of(atp) not in MODES and mode_of(hgatp) not in MODES:
            return None
        return HardwareTag(vmid_of(hgatp)) if rights.virtual else HOST_OWN, (asid_of(atp), rights)

    def translation(self, access: Access, address: int, result: Reached | Trap) -> Translation | None:
        """Return a result as something for a TLB to keep; None for a trap, and for what no table translated."""
        place = self.context(access, address)
        if place is None or isinstance(result, Trap):
            return None
        guest = address if result.guest is None else result.guest
        start, output, guest_start = page_of(address, result.address, guest, result.page_shift)
        atp = self.registers.vsatp if self.registers.virtual else self.registers.satp
        process = asid_of(atp) if mode_of(atp) in MODES and not result.is_global else None
        return Translation(
            *place, start, result.page_shift, output, guest_start, result.permissions, process,
            input_shift=None if result.input_shift == _NO_PAGE else result.input_shift,
            guest_shift=None if result.guest_shift == _NO_PAGE else result.guest_shift,
        )  # fmt: skip

    def on_table(self, result: Reached | Trap) -> bool:
        """Tell whether a result is a guest-page fault on a table of the VS-stage."""
        return isinstance(result, Trap) and result.tinst in {PSEUDO_READ, PSEUDO_WRITE}

    def reached(self, translation: Translation, address: int) -> Reached:
        """Return a kept translation as an access would have ended; the memory type is not kept."""
        offset = address - translation.input_start
        guest = translation.guest_start + offset if translation.tag != HOST_OWN else None
        real = translation.output_start + offset
        return Reached(real, translation.page_shift, translation.permissions, guest)

    def rights(self, *, virtual: bool | None = None, user: bool | None = None, execute: bool = False) -> Rights:
        """Return under which privilege an access of the hart's own mode is made, or one of another mode."""
        registers = self.registers
        virtual = registers.virtual if virtual is None else virtual
        user = registers.user if user is None else user
        status = registers.vsstatus if virtual else registers.mstatus
        mxr = bool(registers.mstatus & STATUS_MXR)
        vs_mxr = virtual and bool(registers.vsstatus & STATUS_MXR)
        return Rights(virtual, user, bool(status & STATUS_SUM), mxr, vs_mxr, execute)

    def _do(self, access: Access, address: int, rights: Rights) -> Reached | Trap:
        try:
            return self.translated(access, address, rights)
        except Fault as fault:
            if fault.original_address is None:
                fault.original_address, fault.original_access = address, access
            return trap_of(fault, access, address, virtual=rights.virtual, user=rights.user)

    def translated(self, access: Access, address: int, rights: Rights) -> Reached:
        """Return where an access ends.

        :raises Fault: if it does not end in an address.
        """
        registers = self.registers
        tables = self._tables_for(rights)
        atp = registers.vsatp if rights.virtual else registers.satp
        target, first_shift, entry, first_permissions = address, _NO_PAGE, 0, ALL_PERMISSIONS
        if mode_of(atp) in MODES:
            walker = tables.walker(mode_of(atp))
            raw = walker.find_raw(root_of(atp), root_bits(walker.format), address, access)
            target, first_shift, entry, *_, first_permissions = raw
            permitted = rights.first(entry, first_permissions, access)
            guard = tables.writable if rights.virtual else None
            settle(walker, raw, address, access, permitted=permitted, guard=guard)
        pbmt = entry & PBMT
        final, shift, last, g_permissions = target, _NO_PAGE, 0, ALL_PERMISSIONS
        if tables.g_stage is not None:
            raw = tables.g_stage.raw(target, access, mxr=rights.mxr, execute=rights.execute)
            final, shift, last, *_, g_permissions = raw
            pbmt = pbmt or last & PBMT
        self._physical(final, access)
        passing = sum(
            one for one in Access
            if (first_shift == _NO_PAGE or rights.first(entry, first_permissions, one))
            and permits(g_permissions, one, mxr=rights.mxr, execute=rights.execute and one is access)
        )  # fmt: skip
        guest = target if rights.virtual else None
        return Reached(final, min(first_shift, shift), passing, guest, first_shift, shift, bool(entry & G), pbmt)

    def _physical(self, address: int, access: Access) -> None:
        """Fault where a physical address is no memory."""
        outside = address >> PHYSICAL_BITS or (self.ram is not None and not self.ram.base <= address < self.ram.end)
        if outside:
            raise Fault(FaultKind.UNREADABLE, "physical", access, address)

    def _tables_for(self, rights: Rights) -> Tables:
        registers = self.registers
        hgatp = registers.hgatp if rights.virtual else 0
        g_stage = registers.enabled(stage_of_guest=False)
        first = registers.enabled(stage_of_guest=True) if rights.virtual else g_stage
        key = hgatp, g_stage, first, rights.virtual
        tables = self._tables.get(key)
        if tables is None:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            tables = self._tables[key] = Tables(
                self.memory, hgatp, g_stage, first, VS_STAGE if rights.virtual else S_STAGE,
                napot=self.napot, silent=self.silent, make_walker=self.make_walker, steps=self._steps,
            )  # fmt: skip
        if tables.g_stage is not None:
            tables.g_stage.walker.owner = vmid_of(hgatp)
        return tables


def hart(
    registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty, make_walker: WalkerFactory
) -> RiscvCpu:
    """Return a hart by the names and values of its registers; a guest runs, in VS-mode, if they do not say otherwise.

    :param accessed_dirty: UPDATE: it has Svadu, and ADUE of menvcfg and henvcfg says where it is on; everywhere, if
        neither register is given. FAULT: it has not, and ADUE is zero. IGNORE: A and D do not count.
    :raises ValueError: for a register that there is not.
    """
    made = Registers.from_recorded(registers)
    if accessed_dirty is AccessedDirty.FAULT:
        made.menvcfg &= ~ENVCFG_ADUE
    elif not registers.keys() & {"menvcfg", "henvcfg"}:
        made.menvcfg = made.henvcfg = ENVCFG_ADUE
    return RiscvCpu(made, memory, silent=accessed_dirty is AccessedDirty.IGNORE, make_walker=make_walker)
