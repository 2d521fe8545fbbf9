"""One table in a batch: it remembers where the last entries of each prefix are, so that a translation is two reads.

All that depends on an address's upper bits, the prefix, is walked once: what is left is to read one entry at
``offset + (address >> shift & mask)`` of the pool's words, and to decode it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from nestmmu.access import Access
from nestmmu.addresses import low_mask
from nestmmu.batch_formats import LEAF, MALFORMED, TABLE, matches
from nestmmu.batch_walk import REDO, TableWalk, prefix_shift
from nestmmu.faults import FaultKind
from nestmmu.formats import NEVER, AccessedDirty, Match
from nestmmu.prefixes import PrefixIndex
from nestmmu.translations import LEVEL_SHIFT, kind_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nestmmu.batch_memory import TableMemory
    from nestmmu.jit import Kernels
    from nestmmu.radix import RadixTable
    from nestmmu.translations import Lanes

_INPUT_RANGE = kind_number(FaultKind.INPUT_RANGE)
_PERMISSION = kind_number(FaultKind.PERMISSION)
_ATTRIBUTE = kind_number(FaultKind.ATTRIBUTE)
_ACCESSED_DIRTY = kind_number(FaultKind.ACCESSED_DIRTY)
_ONE = np.uint64(1)
ROWS = 3
"""Of :attr:`TableStage.slots`: offset in the pool's words; mask of the index; shift of the index and of the page, with
the depth from bit DEPTH on, and the code of a fault from bit CODE on. A column is a prefix."""
DEPTH, CODE = 8, 16


@attrs.frozen
class Checks:
    """What one kind of access asks of a leaf."""

    permission: int
    """The permission that it needs; 0 for none."""
    needed: int
    """Accessed and dirty bits that it sets, or faults without; 0 where it does neither."""
    fault: bool
    """Whether it faults where one of these is missing."""
    refused: Match
    """Leaves whose attributes forbid it."""


class TableStage:
    """Translates lanes by one table.

    :param memory: gives the memory that holds the table.
    :param number: the place of the stage's name.
    :param refused: leaves that nothing may be fetched from, because of their attributes.
    :param update: whether accessed and dirty are set where the walker's policy is to update them.
    """

    def __init__(
        self,
        table: RadixTable,
        memory: Callable[[], TableMemory],
        number: int,
        *,
        refused: Match = NEVER,
        update: bool = False,
        kernels: Kernels | None = None,
    ) -> None:
        self.table = table
        self.walk = TableWalk(table, number, memory)
        self.entries = self.walk.entries
        self.refused = refused
        self.update = update
        self.kernels = kernels if kernels is not None and kernels.can(self.entries) else None
        self._input_mask = np.uint64(low_mask(table.format.input_bits))
        self._shift = prefix_shift(table, self.entries.scale)
        self._last = len(table.format.levels) - 1
        self.grouped = [depth for depth, level in enumerate(table.format.levels) if level.groups]
        """Levels whose leaves may stand for groups of entries."""
        self.clear()

    def clear(self) -> None:
        """Forget all prefixes: what they lead to is in no pool any more."""
        self.index = PrefixIndex()
        self.slots = np.zeros((ROWS, 0), np.uint64)
        self.alike = False

    def checks(self, access: Access | None) -> Checks:
        """Return what an access asks of a leaf."""
        form, policy = self.table.format, self.table.walker.accessed_dirty
        if access is None:
            return Checks(0, 0, fault=False, refused=NEVER)
        needed = form.accessed | (form.dirty if access is Access.STORE else 0)
        fault = policy is AccessedDirty.FAULT
        if not fault and not (self.update and policy is AccessedDirty.UPDATE):
            needed = 0
        return Checks(int(access), needed, fault, self.refused if access is Access.FETCH else NEVER)

    def run(self, lanes: Lanes, access: Access | None) -> None:
        """Translate the addresses of ``lanes``, none of which has a fault yet, in place."""
        if not len(lanes):
            return
        if self.table.walker.bounded:
            beyond = np.flatnonzero(self.entries.canonical(lanes.addresses) != lanes.addresses)
            if len(beyond):
                codes = np.full(len(beyond), self.walk.code(_INPUT_RANGE, None), np.uint16)
                lanes.fail(beyond, codes, lanes.addresses[beyond])
                rest = np.flatnonzero(lanes.faults == 0)
                part = lanes.part(rest)
                self._run(part, access)
                lanes.put(rest, part)
                return
        self._run(lanes, access)

    def _run(self, lanes: Lanes, access: Access | None) -> None:
        """Translate addresses that the format takes."""
        if not len(lanes):
            return
        if self.walk.malformed_root:
            everything = np.arange(len(lanes))
            codes = np.full(len(lanes), self.walk.code(MALFORMED, None), np.uint16)
            lanes.fail(everything, codes, lanes.addresses)
            return
        numbers = self._numbers(lanes.addresses)
        checks = self.checks(access)
        memory = self.walk.memory()
        if self.kernels is not None and memory.pool.words.size:
            bad, touched = self.kernels.step(self, lanes, numbers, memory.pool.words, checks)
        else:
            bad, touched = self._step(lanes, numbers, memory.pool.words, checks)
        if len(bad):
            self._judge(lanes, bad, numbers, checks)
        if len(touched):
            memory.pool.touch(np.unique(touched), checks.needed)

    def _numbers(self, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the number of each address's prefix; those that are new are walked."""
        if self.kernels is not None and self.index.dense:
            numbers = self.kernels.find(addresses, self._input_mask, self._shift, self.index)
        else:
            numbers = self.index.find((addresses & self._input_mask) >> np.uint64(self._shift))
        if numbers.min() >= 0:
            return numbers
        unknown = (addresses[numbers < 0] & self._input_mask) >> np.uint64(self._shift)
        self._resolve(np.unique(unknown))
        return self.index.find((addresses & self._input_mask) >> np.uint64(self._shift))

    def _resolve(self, prefixes: NDArray[np.uint64]) -> None:
        """Walk to the last level for new prefixes."""
        walked = self.walk.walk(prefixes << np.uint64(self._shift), whole=False)
        spread = np.uint64(self._shift) - np.minimum(walked.shifts, np.uint64(self._shift))
        masks = np.where(walked.depths == self._last, (_ONE << spread) - _ONE, np.uint64(0))
        codes = walked.codes.astype(np.uint64)
        meta = walked.shifts | walked.depths << np.uint64(DEPTH) | codes << np.uint64(CODE)
        fresh = np.stack((np.where(codes == 0, walked.offsets, 0).view(np.uint64), masks, meta))
        self.slots = np.concatenate((self.slots, fresh), axis=1)
        self.index.add(prefixes)
        self.alike = bool((self.slots[1:] == self.slots[1:, :1]).all())

    def _step(
        self, lanes: Lanes, numbers: NDArray[np.int32], words: NDArray[np.uint64], checks: Checks
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Read and decode one entry for each lane; return the lanes that are no plain success, and what was touched."""
        offsets = self.slots[0][numbers].view(np.int64)
        masks, meta = self.slots[1:, 0] if self.alike else self.slots[1:, numbers]
        shifts = meta & np.uint64(low_mask(DEPTH))
        offsets += (lanes.addresses >> shifts & masks).view(np.int64)
        entries = words[offsets] if words.size else np.zeros(len(lanes), np.uint64)
        lows = (_ONE << shifts) - _ONE
        depths = ((meta >> np.uint64(DEPTH)) & np.uint64(low_mask(CODE - DEPTH))).astype(np.intp)
        good = self._leaves(entries, depths, lows)
        if not self.alike or int(meta) >> CODE:
            good &= meta >> np.uint64(CODE) == 0
        outputs = self.entries.outputs(entries)
        if self.grouped:
            shifts = shifts + self._groups(entries, depths)
            lows = (_ONE << shifts) - _ONE
        permissions = self.entries.permissions(entries)
        if checks.permission:
            good &= permissions & np.uint8(checks.permission) != 0
        if checks.refused is not NEVER:
            good &= ~matches(checks.refused, entries)
        missing = good & (entries & np.uint64(checks.needed) != np.uint64(checks.needed)) if checks.needed else None
        if missing is not None and checks.fault:
            good &= ~missing
        outputs &= ~lows
        outputs |= lanes.addresses & lows
        bad = np.flatnonzero(~good)
        if len(bad):
            outputs[bad] = lanes.addresses[bad]
        lanes.addresses[:] = outputs
        lanes.permissions &= permissions
        np.minimum(lanes.shifts, shifts.astype(np.uint8), out=lanes.shifts)
        return bad, offsets[:0] if missing is None or checks.fault else offsets[missing]

    def _leaves(
        self,
        entries: NDArray[np.uint64],
        depths: Any,  # noqa: ANN401  (an array, or what all have alike)
        lows: Any,  # noqa: ANN401  (likewise)
    ) -> NDArray[np.bool_]:
        """Tell which entries are well-formed leaves."""
        good: NDArray[np.bool_]
        if not self.table.format.simple:
            # Entries of the levels above were told to be leaves when their prefix was walked.
            good = self.entries.leaves(entries, self._last, lows) | (depths != self._last)
            return good
        tests = self.entries.tests[depths]
        good = (entries & tests[..., 0]) == tests[..., 1]
        for match in self.table.format.reserved:
            good &= ~matches(match, entries)
        if self.table.format.strict_output:
            good &= self.entries.outputs(entries) & lows == 0
        return good

    def _groups(self, entries: NDArray[np.uint64], depths: Any) -> NDArray[np.uint64]:  # noqa: ANN401  (as above)
        """Return log2 of how many entries each leaf stands for."""
        found = np.zeros(len(entries), np.uint64)
        for depth in self.grouped:
            found = np.where(depths == depth, self.entries.groups(entries, depth), found)
        return found

    def _judge(self, lanes: Lanes, bad: NDArray[np.intp], numbers: NDArray[np.int32], checks: Checks) -> None:
        """End the lanes that are no plain success in their faults."""
        walk = self.walk
        addresses, rows = lanes.addresses[bad], self.slots[:, numbers[bad]]
        codes = (rows[2] >> np.uint64(CODE)).astype(np.uint16)
        here = np.flatnonzero(codes == 0)
        masks, meta = rows[1, here], rows[2, here]
        shifts = meta & np.uint64(low_mask(DEPTH))
        offsets = rows[0, here].view(np.int64) + (addresses[here] >> shifts & masks).view(np.int64)
        depths = meta >> np.uint64(DEPTH) & np.uint64(low_mask(CODE - DEPTH))
        codes[here] = self._leaf_codes(walk.memory().pool.words[offsets], depths, shifts, checks)
        if walk.late and self.table.format.levels[-1].may_table:
            codes[codes == walk.code(MALFORMED, self._last)] = REDO
        redo = np.flatnonzero(codes == REDO)
        if len(redo):
            walked = walk.walk(addresses[redo], whole=True)
            codes[redo], addresses[redo] = walked.codes, walked.addresses
        lanes.fail(bad, codes, addresses)

    def _leaf_codes(
        self, entries: NDArray[np.uint64], depths: NDArray[np.uint64], shifts: NDArray[np.uint64], checks: Checks
    ) -> NDArray[np.uint16]:
        """Return the faults of entries that walks ended at, none of which is a plain success."""
        lows = (_ONE << shifts) - _ONE
        kinds = self.entries.classify(entries, self._last, lows)
        kinds[depths != self._last] = LEAF
        kinds[kinds == TABLE] = MALFORMED
        plain = kinds == LEAF
        denied = self.entries.permissions(entries) & np.uint8(checks.permission) == 0
        late = np.where(denied & bool(checks.permission), np.uint8(_PERMISSION), np.uint8(_ACCESSED_DIRTY))
        late[matches(checks.refused, entries)] = _ATTRIBUTE
        kinds[plain] = late[plain]
        base = np.uint16(self.walk.code(0, 0))
        return kinds + base + (depths.astype(np.uint16) << np.uint16(LEVEL_SHIFT))
