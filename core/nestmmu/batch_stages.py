"""The stages of a batch: guests' memories, what translates by itself, and what holds them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from nestmmu.batch_memory import TableMemory, WordPool, granule_shift
from nestmmu.batch_tables import TableStage
from nestmmu.errors import CycleError, NestmmuError, OutsideMemoryError
from nestmmu.faults import Fault
from nestmmu.formats import NEVER, AccessedDirty, Match
from nestmmu.jit import kernels_for
from nestmmu.memory import GuestMemory, PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker
from nestmmu.translations import OUTSIDE, Lanes, StageNames, fault_code, kind_number

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.batch_memory import Stage, Words
    from nestmmu.memory import Memory
    from nestmmu.radix import RadixTable as Table

_MOST_FRAMES = 1 << 15
_MOST_PREFIXES = 1 << 20
"""What a batch keeps between chunks; with more it begins anew."""


@runtime_checkable
class Batchable(Protocol):
    """What takes part in batches by a stage of its own: a CPU, a table of another shape than a tree."""

    def batch_stage(self, batch: Batch) -> Stage:
        """Return what translates lanes: it is called with a chunk after another, and may remember in between.

        The number of a name in codes is ``batch.names.number(name)``. Other tables and memories on the way are
        stages of the batch too: ``batch.stage(table)``. Accessed and dirty are set only where ``batch.update``.
        """
        ...


class Batch:
    """What the stages of one batch share: pools, names, and how it is done.

    :param update: whether accessed and dirty are set.
    :param jit: whether to use numba; None: as :func:`~nestmmu.jit.kernels_for` finds worth it.
    :param total: how many addresses there are.
    """

    def __init__(self, names: StageNames, *, update: bool = False, jit: bool | None = None, total: int = 0) -> None:
        self.names = names
        self.update = update
        self.kernels = kernels_for(total, jit)
        self._pools: dict[tuple[int, int, str], WordPool] = {}
        self._stages: dict[int, Stage] = {}
        self._kept: list[object] = []

    def stage(self, target: Any, refused: Match = NEVER) -> Stage:  # noqa: ANN401  (a table, a memory, a CPU)
        """Return what translates by a table or a memory; the same for the same.

        :param refused: leaves of a table that nothing may be fetched from, because of their attributes; it counts when
            the table is asked for first.
        :raises NestmmuError: for what does not translate.
        """
        found = self._stages.get(id(target))
        if found is None:
            found = self._stages[id(target)] = self._make(target, refused)
            self._kept.append(target)
        return found

    def _make(self, target: Any, refused: Match) -> Stage:  # noqa: ANN401
        if isinstance(target, TranslatedMemory):
            return MemoryStage(target, self)
        if is_plain(target):
            return TableStage(
                target, lambda: self.table_memory(target), self.names.number(target.walker.stage),
                refused=refused, update=self.update, kernels=self.kernels,
            )  # fmt: skip
        if isinstance(target, Batchable):
            return target.batch_stage(self)
        if hasattr(target, "translate"):
            return ScalarStage(target if self.update else without_updates(target), self)
        message = f"{type(target).__name__} does not translate addresses; give a table, a guest's memory or a CPU"
        raise NestmmuError(message)

    def table_memory(self, table: Table) -> TableMemory:
        """Return the memory that holds a table, to be read in this batch."""
        memory = table.walker.memory
        stage = None if isinstance(memory, PhysicalMemory) else self.stage(memory)
        return TableMemory(self.pool(table), stage)

    def pool(self, table: Table) -> WordPool:
        """Return the pool that a table's words are kept in."""
        return self.word_pool(table.walker.memory.physical, table.format)

    def word_pool(self, physical: PhysicalMemory, form: Words) -> WordPool:
        """Return the pool that words of a memory are kept in; what it holds may go between chunks."""
        key = id(physical), form.entry_bytes, form.byteorder
        found = self._pools.get(key)
        if found is None:
            found = self._pools[key] = WordPool(physical, form)
        return found

    def close(self) -> None:
        """End the batch: nothing of it may be used any more."""
        self._stages.clear()
        for pool in self._pools.values():
            pool.close()

    def trim(self) -> None:
        """Forget what was remembered, where it has become much."""
        stages = [stage for stage in self._stages.values() if isinstance(stage, TableStage)]
        frames, prefixes = sum(map(len, self._pools.values())), sum(len(stage.index) for stage in stages)
        if frames > _MOST_FRAMES or prefixes > _MOST_PREFIXES:
            for stage in stages:
                stage.clear()
            for pool in self._pools.values():
                pool.clear()


def is_plain(target: object) -> bool:
    """Tell whether a table is read as its format says and no other way: a wrapped walker has to be asked itself.

    So has a format of which arrays know less than it says.
    """
    if not isinstance(target, RadixTable) or not target.format.plain:
        return False
    if type(target.walker) is not RadixWalker or type(target).translate is not RadixTable.translate:
        return False
    return granule_shift(target.walker.memory) >= target.format.entry_bytes.bit_length() - 1


def without_updates(target: Any, memory: Memory | None = None) -> Any:  # noqa: ANN401  (a Translator)
    """Return what translates as a table does and sets no accessed or dirty, down to the machine's memory.

    What is more than a format says (a walker that is wrapped, a translator of someone else's) is returned as it is.

    :param memory: what the table's words are read from; None: from where they are, nothing set there either.
    """
    if type(target) is not RadixTable or type(target.walker) is not RadixWalker:
        return target
    walker, policy = target.walker, target.walker.accessed_dirty
    if policy is AccessedDirty.UPDATE:
        policy = AccessedDirty.IGNORE
    memory = _memory_without_updates(walker.memory) if memory is None else memory
    return RadixTable(RadixWalker(walker.format, memory, walker.stage, policy), target.root)


def _memory_without_updates(memory: Memory) -> Memory:
    if type(memory) is not TranslatedMemory or not memory.straight:
        return memory
    parent = _memory_without_updates(memory.parent)
    return TranslatedMemory(parent, without_updates(memory.table, parent), memory.name)


class MemoryStage:
    """A guest's memory: its table, and then its parent, down to the machine's memory."""

    def __init__(self, memory: TranslatedMemory, batch: Batch) -> None:
        self.memory = memory
        self.table = batch.stage(memory.table)
        self.batch = batch
        self.outside = fault_code(OUTSIDE, batch.names.number(memory.name)) if isinstance(memory, GuestMemory) else None
        self._busy = False

    def run(self, lanes: Lanes, access: Access | None) -> None:
        """Translate to the machine's addresses; what a :class:`GuestMemory` does not map is OUTSIDE.

        :raises CycleError: if that needs this very memory.
        """
        name = self.memory.name
        if self._busy:
            raise CycleError((name,))
        self._busy = True
        given = None if self.outside is None else lanes.addresses.copy()
        try:
            self._run(lanes, access)
        except CycleError as cycle:
            if len(cycle.names) > 1 and cycle.names[0] == cycle.names[-1]:
                raise
            raise CycleError((name, *cycle.names)) from None
        finally:
            self._busy = False
        if self.outside is not None and given is not None:
            failed = np.flatnonzero(lanes.faults)
            lanes.fail(failed, np.full(len(failed), self.outside, np.uint16), given[failed])

    def _run(self, lanes: Lanes, access: Access | None) -> None:
        self.table.run(lanes, access)
        if not isinstance(self.memory.parent, PhysicalMemory):
            run_rest(self.batch.stage(self.memory.parent), lanes, access)


def run_rest(stage: Stage, lanes: Lanes, access: Access | None) -> None:
    """Run a stage on the lanes that have no fault yet."""
    if not lanes.faults.any():
        stage.run(lanes, access)
        return
    good = np.flatnonzero(lanes.faults == 0)
    if len(good):
        part = lanes.part(good)
        stage.run(part, access)
        lanes.put(good, part)


class ScalarStage:
    """Any translator, asked for one address after the other; each address once."""

    def __init__(self, target: Any, batch: Batch) -> None:  # noqa: ANN401  (a Translator)
        self.target = target
        self.batch = batch
        self.name = str(getattr(target, "name", type(target).__name__))

    def run(self, lanes: Lanes, access: Access | None) -> None:
        """Translate by what ``translate`` says, or ``lookup`` where it is to look up only."""
        if not len(lanes):
            return
        unique, inverse = np.unique(lanes.addresses, return_inverse=True)
        rows = [self._one(address, access) for address in unique.tolist()]
        outputs, shifts, permissions, codes = (np.array(column) for column in zip(*rows, strict=True))
        lanes.addresses[:] = outputs.astype(np.uint64)[inverse]
        np.minimum(lanes.shifts, shifts.astype(np.uint8)[inverse], out=lanes.shifts)
        lanes.permissions &= permissions.astype(np.uint8)[inverse]
        lanes.faults[:] = codes.astype(np.uint16)[inverse]

    def _one(self, address: int, access: Access | None) -> tuple[int, int, int, int]:
        target, number = self.target, self.batch.names.number
        try:
            found = target.lookup(address) if access is None else target.translate(address, access)
        except OutsideMemoryError:
            return address, 0, 0, fault_code(OUTSIDE, number(self.name))
        except Fault as fault:
            code = fault_code(kind_number(fault.kind), number(fault.stage), fault.level, implicit=fault.implicit)
            return fault.input_address, 0, 0, code
        return found.output_address, found.page_shift, found.permissions, 0
