"""Many accesses of a hart at once: what :meth:`~nestmmu_riscv.cpu.RiscvCpu.access` says of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.access import EXECUTE, READ, Access
from nestmmu.addresses import low_mask
from nestmmu.batch_stages import run_rest
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty, Match
from nestmmu.memory import LazyMemory, PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.translations import KIND_MASK, fault_code, kind_number
from nestmmu_riscv.csrs import HGATP_PPN, MODES, SV39, mode_of, root_of
from nestmmu_riscv.formats import R, U, W, X, root_bits, table_format
from nestmmu_riscv.traps import G_STAGE, S_STAGE, VS_STAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.batch_memory import Stage
    from nestmmu.batch_stages import Batch
    from nestmmu.formats import RadixFormat
    from nestmmu.memory import Memory
    from nestmmu.translations import Lanes
    from nestmmu_riscv.cpu import RiscvCpu
    from nestmmu_riscv.stages import Rights

PHYSICAL = "physical"
"""What a fault is of whose physical address is no memory."""
_PHYSICAL_BITS = 56
_MISSING = kind_number(FaultKind.ACCESSED_DIRTY)


def rights_format(form: RadixFormat, rights: Rights) -> RadixFormat:
    """Return a format of the first stage whose permissions are what a mode may do: U, SUM and MXR are in them."""
    page = U if rights.user else 0
    rules = [(Match(bit | U, bit | page), right) for bit, right in ((R, READ), (W, Access.STORE.value), (X, EXECUTE))]
    readable = [rules[0][0], *([Match(X | U, X | page)] if rights.mxr or rights.vs_mxr else [])]
    writable, fetchable = [rules[1][0]], [rules[2][0]]
    if not rights.user and rights.sum_bit:  # loads and stores of S-mode reach pages with U as well; fetches never do
        readable = [Match(match.mask & ~U, match.value) for match in readable]
        writable = [Match(W, W)]
    granted = [(match, READ) for match in readable] + [(match, Access.STORE.value) for match in writable]
    return attrs.evolve(form, permissions=(*granted, *((match, EXECUTE) for match in fetchable)))


class HartStage:
    """A hart in a batch; its registers are read at each chunk, and tables are remembered as long as they stay.

    Accesses for which the first stage would set A or D by a write that the G-stage has to allow are made one by one.

    :raises NestmmuError: for a hart whose walkers are wrapped.
    """

    def __init__(self, cpu: RiscvCpu, batch: Batch) -> None:
        plain = cpu.ram is not None or isinstance(cpu.memory, PhysicalMemory)
        sample = cpu.make_walker(table_format(SV39), cpu.memory, S_STAGE, AccessedDirty.IGNORE)
        if not plain or type(sample) is not RadixWalker:
            message = "a hart with wrapped walkers, or on a translated memory, makes one access at a time: use access()"
            raise NestmmuError(message)
        self.cpu = cpu
        self.batch = batch
        self._tables: dict[tuple[object, ...], RadixTable] = {}
        self._memories: dict[int, TranslatedMemory] = {}

    def run(self, lanes: Lanes, access: Access | None) -> None:
        """Make an access to each address; ``None`` makes none, and so is not for a hart.

        :raises NestmmuError: for no access.
        """
        if access is None:
            message = "a hart makes accesses; name one, or look addresses up in a table"
            raise NestmmuError(message)
        registers, rights = self.cpu.registers, self.cpu.rights()
        hgatp = registers.hgatp if rights.virtual else 0
        atp = registers.vsatp if rights.virtual else registers.satp
        given = lanes.addresses.copy()
        holder: Memory = self.cpu.memory
        implicit = None
        if mode_of(hgatp) in MODES:
            implicit = self._g_stage(hgatp, mxr=False)
            holder = self._memory(implicit)
        if mode_of(atp) in MODES:
            self._first(rights, atp, holder).run(lanes, access)
        if implicit is not None:
            run_rest(self.batch.stage(self._g_stage(hgatp, mxr=rights.mxr)), lanes, access)
        self._physical(lanes)
        missing = np.flatnonzero((lanes.faults & np.uint16(KIND_MASK)) == _MISSING)
        if len(missing) and self._policy(rights, guest=True) is AccessedDirty.UPDATE:
            self._one_by_one(lanes, missing, given[missing], access, rights)

    def _policy(self, rights: Rights, *, guest: bool) -> AccessedDirty:
        """Return what a stage does with A and D.

        :param guest: whether it is the first one, which is a guest's own where a guest runs; else the G-stage.
        """
        registers = self.cpu.registers
        adue, _ = registers.enabled(stage_of_guest=guest and rights.virtual)
        if self.cpu.silent:
            return AccessedDirty.IGNORE
        return AccessedDirty.UPDATE if adue else AccessedDirty.FAULT

    def _table(self, form: RadixFormat, memory: Memory, stage: str, policy: AccessedDirty, root: int) -> RadixTable:
        key = form, id(memory), stage, policy, root
        found = self._tables.get(key)
        if found is None:
            walker = RadixWalker(form, memory, stage, policy)
            found = self._tables[key] = RadixTable(walker, Root(root, root_bits(form)))
        return found

    def _g_stage(self, hgatp: int, *, mxr: bool) -> RadixTable:
        """Return the G-stage's table for explicit loads under ``mxr``; implicit ones are as without."""
        rights = self.cpu.rights()
        _, pbmt = self.cpu.registers.enabled(stage_of_guest=False)
        form = table_format(mode_of(hgatp), g_stage=True, pbmt=pbmt, napot=self.cpu.napot)
        if mxr:
            form = attrs.evolve(form, permissions=(*form.permissions, (Match(X | U, X | U), READ)))
        policy = self._policy(rights, guest=False)
        return self._table(form, self.cpu.memory, G_STAGE, policy, root_of(hgatp & HGATP_PPN))

    def _memory(self, table: RadixTable) -> TranslatedMemory:
        found = self._memories.get(id(table))
        if found is None:
            found = self._memories[id(table)] = TranslatedMemory(self.cpu.memory, table, "guest physical")
        return found

    def _first(self, rights: Rights, atp: int, holder: Memory) -> Stage:
        """Return the stage of satp or vsatp. What hardware would update there faults, to be looked at again."""
        _, pbmt = self.cpu.registers.enabled(stage_of_guest=rights.virtual)
        form = rights_format(table_format(mode_of(atp), pbmt=pbmt, napot=self.cpu.napot), rights)
        policy = self._policy(rights, guest=True)
        policy = AccessedDirty.FAULT if policy is AccessedDirty.UPDATE else policy
        name = VS_STAGE if rights.virtual else S_STAGE
        return self.batch.stage(self._table(form, holder, name, policy, root_of(atp)))

    def _physical(self, lanes: Lanes) -> None:
        """End in faults what leads to no memory."""
        ram, addresses = self.cpu.ram, lanes.addresses
        outside = addresses >> np.uint64(_PHYSICAL_BITS) != 0
        if ram is not None:
            outside |= (addresses < np.uint64(ram.base)) | (addresses > np.uint64(ram.end - 1))
        chosen = np.flatnonzero(outside & (lanes.faults == 0))
        code = fault_code(kind_number(FaultKind.UNREADABLE), self.batch.names.number(PHYSICAL))
        lanes.fail(chosen, np.full(len(chosen), code, np.uint16), addresses[chosen])

    def _copy(self) -> RiscvCpu:
        """Return a hart whose memory is as this one's, and of which nothing is seen here."""
        cpu = self.cpu
        memory = LazyMemory.over(cpu.memory.physical)
        return type(cpu)(cpu.registers, memory, ram=cpu.ram, napot=cpu.napot, silent=cpu.silent)

    def _one_by_one(
        self, lanes: Lanes, chosen: NDArray[np.intp], given: NDArray[np.uint64], access: Access, rights: Rights
    ) -> None:
        """Make accesses as the scalar path does, each address once; nothing is set where the batch is not to."""
        cpu = self.cpu if self.batch.update else self._copy()
        unique, inverse = np.unique(given, return_inverse=True)
        outputs, rest = unique.copy(), np.zeros((3, len(unique)), np.uint16)
        for index, address in enumerate(unique.tolist()):
            try:
                reached = cpu.translated(access, address, rights)
            except Fault as fault:
                number = self.batch.names.number(fault.stage)
                code = fault_code(kind_number(fault.kind), number, fault.level, implicit=fault.implicit)
                outputs[index], rest[:, index] = fault.input_address & low_mask(64), (code, 0, 0)
                continue
            outputs[index], rest[:, index] = reached.address, (0, reached.page_shift, reached.permissions)
        lanes.addresses[chosen], lanes.faults[chosen] = outputs[inverse], rest[0][inverse]
        lanes.shifts[chosen], lanes.permissions[chosen] = rest[1][inverse], rest[2][inverse]
