"""Many accesses of a POWER9 CPU at once: what :meth:`~nestmmu_ppc64_radix.cpu.Power9Radix.access` says of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.batch_stages import run_rest
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import Match
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.translations import IMPLICIT, Lanes, fault_code, kind_number
from nestmmu_ppc64_book3s.partition import RPDB, RPDS, RTS, RTS_52_BITS, radix_root
from nestmmu_ppc64_book3s.registers import KEY0_NO_READ, KEY0_NO_WRITE, MSR_DR, MSR_HV, MSR_IR, MSR_PR
from nestmmu_ppc64_book3s.threads import REAL_ADDRESS
from nestmmu_ppc64_radix.cpu import (
    EA_UNUSED,
    EA_WITHOUT_QUADRANT,
    NO_TREE,
    PARTITION,
    PROCESS,
    prte_address,
)
from nestmmu_ppc64_radix.formats import ATT, ATT_NON_IDEMPOTENT, EAA_PRIV, POWER9

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.batch_memory import Stage
    from nestmmu.batch_stages import Batch
    from nestmmu.formats import RadixFormat
    from nestmmu.memory import Memory
    from nestmmu_ppc64_book3s.registers import Registers
    from nestmmu_ppc64_radix.cpu import Power9Radix

_GUARDED = Match(ATT, ATT_NON_IDEMPOTENT)


def process_format(registers: Registers) -> RadixFormat:
    """Return the format of process-scoped trees with permissions as MSR[PR], AMR and IAMR leave them (ISA 5.7.12)."""
    problem = bool(registers.msr & MSR_PR)
    denied = READ if registers.amr & KEY0_NO_READ else 0
    denied |= WRITE if registers.amr & KEY0_NO_WRITE else 0
    denied |= EXECUTE if registers.iamr & KEY0_NO_READ else 0
    rules = []
    for match, granted in POWER9.permissions:
        mask = match.mask | EAA_PRIV
        rules.append((Match(mask, match.value), granted if problem else granted & ~denied))
        if not problem:
            rules.append((Match(mask, match.value | EAA_PRIV), granted))
    return attrs.evolve(POWER9, permissions=tuple(rules))


class CpuStage:
    """A CPU in a batch; its registers are read at each chunk, and tables are remembered as long as they stay.

    An effective address that no tree translates (a segment interrupt) is INPUT_RANGE of the process scope; what a fault
    of that scope is about is the effective address.

    :raises NestmmuError: for a CPU whose walkers are wrapped, or whose updates of R and C are guarded.
    """

    def __init__(self, cpu: Power9Radix, batch: Batch) -> None:
        plain = all(type(walker) is RadixWalker for walker in (cpu.partition_walker, cpu.real_walker))
        if not plain or cpu.guarded_updates or not isinstance(cpu.memory, PhysicalMemory):
            message = "a CPU with wrapped walkers, or guarded updates, makes one access at a time: use access()"
            raise NestmmuError(message)
        self.cpu = cpu
        self.batch = batch
        self._partitions: dict[int, TranslatedMemory] = {}
        self._processes: dict[tuple[int, RadixFormat, int], RadixTable] = {}

    def run(self, lanes: Lanes, access: Access | None) -> None:
        """Make an access to each address; ``None`` makes none, and so is not for a CPU.

        :raises NestmmuError: for no access.
        """
        if access is None:
            message = "a CPU makes accesses; name one, or look addresses up in a table"
            raise NestmmuError(message)
        registers = self.cpu.registers
        hv = bool(registers.msr & MSR_HV)
        addresses = lanes.addresses
        if not registers.msr & (MSR_IR if access is Access.FETCH else MSR_DR):
            if hv:
                real = addresses & np.uint64(REAL_ADDRESS)
                addresses[:] = np.where(addresses >> np.uint64(63), real, real | np.uint64(registers.hrmor))
            else:
                self._group(lanes, access, registers.lpidr, None)
            return
        quadrants = addresses >> np.uint64(62)
        unused = addresses & np.uint64(EA_UNUSED) != 0
        if not hv:
            unused |= (quadrants == 1) | (quadrants == 2)  # noqa: PLR2004  (quadrants)
        self._fail(lanes, np.flatnonzero(unused), FaultKind.INPUT_RANGE, PROCESS)
        for quadrant in range(4):
            chosen = np.flatnonzero((quadrants == quadrant) & ~unused)
            if len(chosen):
                part = lanes.part(chosen)
                lpid = registers.lpidr if not hv or quadrant in {1, 2} else 0
                self._group(part, access, lpid, quadrant)
                lanes.put(chosen, part)

    def _fail(self, lanes: Lanes, chosen: NDArray[np.intp], kind: FaultKind, stage: str) -> None:
        code = fault_code(kind_number(kind), self.batch.names.number(stage))
        lanes.fail(chosen, np.full(len(chosen), code, np.uint16), lanes.addresses[chosen])

    def _group(self, lanes: Lanes, access: Access, lpid: int, quadrant: int | None) -> None:
        """Translate addresses of one quadrant; None: guest real ones."""
        cpu, everything = self.cpu, np.arange(len(lanes))
        try:
            dw0, dw1 = cpu.pate(lpid, 0, access)
        except Fault as fault:
            self._fail(lanes, everything, fault.kind, PARTITION)
            return
        memory = self._partition(dw0)
        partition = self.batch.stage(memory.table)
        effective = lanes.addresses.copy()
        lanes.addresses &= np.uint64(EA_WITHOUT_QUADRANT)
        if quadrant is None:
            partition.run(lanes, access)
            return
        hv = bool(cpu.registers.msr & MSR_HV)
        own = hv and lpid == 0
        holder = cpu.memory if own or (hv and cpu.real_guest_tables) else memory
        self._process_scoped(
            lanes, access, prte_address(dw1, 0 if quadrant in {2, 3} else cpu.registers.pidr), partition, holder
        )
        mine = np.flatnonzero(lanes.faults)
        mine = mine[(lanes.faults[mine] & np.uint16(IMPLICIT)) == 0]
        lanes.addresses[mine] = effective[mine]
        if not own:
            run_rest(partition, lanes, access)

    def _process_scoped(
        self, lanes: Lanes, access: Access, where: int | FaultKind, partition: Stage, holder: Memory
    ) -> None:
        """Translate effective addresses to guest real ones, by the tree that the process-table entry leads to."""
        everything = np.arange(len(lanes))
        if isinstance(where, FaultKind):
            self._fail(lanes, everything, where, PROCESS)
            return
        found = Lanes.begin(np.array([where], np.uint64))
        partition.run(found, Access.LOAD)
        if found.faults[0]:
            codes = np.full(len(lanes), found.faults[0] | np.uint16(IMPLICIT), np.uint16)
            lanes.fail(everything, codes, np.repeat(found.addresses, len(lanes)))
            return
        try:
            word = self.cpu.memory.load(int(found.addresses[0]), 8, "big")
        except OutsideMemoryError:
            self._fail(lanes, everything, FaultKind.UNREADABLE, PROCESS)
            return
        if word & RTS != RTS_52_BITS:
            self._fail(lanes, everything, FaultKind.MALFORMED, PROCESS)
            return
        self.batch.stage(self._process(word, holder), _GUARDED).run(lanes, access)

    def _process(self, word: int, holder: Memory) -> RadixTable:
        """Return a process-scoped tree."""
        form = process_format(self.cpu.registers)
        key = word, form, id(holder)
        found = self._processes.get(key)
        if found is None:
            walker = RadixWalker(form, holder, PROCESS, self.cpu.reference_change)
            found = self._processes[key] = RadixTable(walker, Root(word & RPDB, word & RPDS))
        return found

    def _partition(self, dw0: int) -> TranslatedMemory:
        """Return the guest real memory of a partition; no tree of another size than 52 bits translates anything."""
        found = self._partitions.get(dw0)
        if found is None:
            base, bits = radix_root(dw0)
            root = Root(base, bits if dw0 & RTS == RTS_52_BITS else NO_TREE)
            table = RadixTable(self.cpu.partition_walker, root)
            found = self._partitions[dw0] = TranslatedMemory(self.cpu.memory, table, "guest real")
            self.batch.stage(table, _GUARDED)
        return found
