"""Many accesses of a POWER9 CPU that translates by hash, at once: what :class:`~nestmmu_ppc64_hpt.cpu.Power9Hash` says.

A segment's pages are searched for together, each page once: eight entries of all their primary PTEGs, then of the
secondary PTEGs of those that were not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np

from nestmmu.access import ALL_PERMISSIONS, EXECUTE, Access
from nestmmu.addresses import low_mask
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.translations import fault_code, kind_number
from nestmmu_ppc64_book3s.interrupts import DSISR_KEYFAULT, DSISR_NOEXEC_OR_G, DSISR_PROTFAULT
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_HV, MSR_IR, MSR_PR
from nestmmu_ppc64_book3s.threads import REAL_ADDRESS
from nestmmu_ppc64_hpt.hashing import AVPN_SHIFT, HASH_MASK
from nestmmu_ppc64_hpt.hpte import (
    GROUP_SLOTS,
    R_C,
    R_G,
    R_KEY,
    R_N,
    R_PP,
    R_PP0,
    R_R,
    R_SSIZE,
    R_SSIZE_SHIFT,
    V_COMMON,
    V_NOT_AVPN,
    V_SECONDARY,
    V_SSIZE_SHIFT,
)
from nestmmu_ppc64_hpt.pages import BY_BASE, HPTE_R_RPN, HPTE_V_LARGE, SHIFT_4K
from nestmmu_ppc64_hpt.protection import denial, execute_permissions, key_permissions, page_permissions
from nestmmu_ppc64_hpt.table import GROUP_SHIFT, STAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.batch_memory import WordPool
    from nestmmu.batch_stages import Batch
    from nestmmu.memory import ByteOrder
    from nestmmu.translations import Lanes
    from nestmmu_ppc64_hpt.cpu import Power9Hash
    from nestmmu_ppc64_hpt.hashing import Segment
    from nestmmu_ppc64_hpt.table import HashTable

SEGMENTS, KEYS, BOTH = "segments", "keys", f"{STAGE} and keys"
"""What faults are of, beside the table: the SLB and a segment that nothing is fetched from; virtual page class keys."""
_SMALLEST_SEGMENT = 28
_PROTECTION = R_PP0 | R_KEY | R_N | R_G | R_PP
_WORD = 8


@attrs.frozen
class _Words:
    """How the words of a hash page table are kept."""

    entry_bytes: int = _WORD
    byteorder: ByteOrder = "big"


class _Hits(NamedTuple):
    """What the searches of pages found."""

    offsets: NDArray[np.int64]
    """Of doubleword 1, in the pool's words; -1 where there is no entry."""
    r: NDArray[np.uint64]
    """Doubleword 1 in the older format."""
    shifts: NDArray[np.uint64]
    """Log2 of the actual pages' bytes."""


class HashStage:
    """A CPU in a batch; its registers and segments are read at each chunk.

    A segment interrupt is INPUT_RANGE of :data:`SEGMENTS`; NOHPTE is NOT_PRESENT, a machine check UNREADABLE, of
    the table. What pp, keys, N and G forbid is PERMISSION, as one bit of DSISR is for N and G; the stage tells whether
    it is keys that forbid it.

    :raises NestmmuError: for a CPU whose memory is not the machine's.
    """

    def __init__(self, cpu: Power9Hash, batch: Batch) -> None:
        if not isinstance(cpu.memory, PhysicalMemory):
            message = "a CPU on a translated memory makes one access at a time: use access()"
            raise NestmmuError(message)
        self.cpu = cpu
        self.batch = batch
        self.pool: WordPool = batch.word_pool(cpu.memory, _Words())

    def run(self, lanes: Lanes, access: Access | None) -> None:
        """Make an access to each address; ``None`` makes none, and so is not for a CPU.

        :raises NestmmuError: for no access.
        """
        if access is None:
            message = "a CPU makes accesses; name one"
            raise NestmmuError(message)
        cpu, msr = self.cpu, self.cpu.registers.msr
        addresses = lanes.addresses
        if msr & (MSR_IR if access is Access.FETCH else MSR_DR):
            self._relocated(lanes, access)
        elif msr & MSR_HV:
            real = addresses & np.uint64(REAL_ADDRESS)
            addresses[:] = np.where(addresses >> np.uint64(63), real, real | np.uint64(cpu.registers.hrmor))
        else:
            segment = cpu.real_segment()
            if segment is None:
                self._fail(lanes, np.arange(len(lanes)), FaultKind.UNREADABLE, STAGE)
                return
            self._translate(lanes, access, segment, relocated=False)

    def _relocated(self, lanes: Lanes, access: Access) -> None:
        """Translate effective addresses, segment by segment."""
        esids, inverse = np.unique(lanes.addresses >> np.uint64(_SMALLEST_SEGMENT), return_inverse=True)
        numbers: dict[Segment | None, int] = {}
        found = [self.cpu.slb.lookup(esid << _SMALLEST_SEGMENT) for esid in esids.tolist()]
        places = np.array([numbers.setdefault(segment, len(numbers)) for segment in found])[inverse]
        for segment, number in numbers.items():
            chosen = np.flatnonzero(places == number)
            if segment is None:
                self._fail(lanes, chosen, FaultKind.INPUT_RANGE, SEGMENTS)
                continue
            part = lanes.part(chosen)
            self._translate(part, access, segment, relocated=True)
            lanes.put(chosen, part)

    def _fail(self, lanes: Lanes, chosen: NDArray[np.intp], kind: FaultKind, stage: str) -> None:
        codes = np.full(len(chosen), self._code(kind, stage), np.uint16)
        lanes.fail(chosen, codes, lanes.addresses[chosen])

    def _code(self, kind: FaultKind, stage: str) -> int:
        return fault_code(kind_number(kind), self.batch.names.number(stage))

    def _translate(self, lanes: Lanes, access: Access, segment: Segment, *, relocated: bool) -> None:
        """Translate addresses of one segment."""
        everything = np.arange(len(lanes))
        if access is Access.FETCH and segment.no_execute:
            self._fail(lanes, everything, FaultKind.PERMISSION, SEGMENTS)
            return
        try:
            table = self.cpu.table(access)
        except (OutsideMemoryError, Fault):
            self._fail(lanes, everything, FaultKind.UNREADABLE, STAGE)
            return
        if table is None:
            self._fail(lanes, everything, FaultKind.NOT_PRESENT, STAGE)
            return
        numbers = (lanes.addresses & np.uint64(segment.offset_mask)) >> np.uint64(segment.base_shift)
        pages, inverse = np.unique(numbers, return_inverse=True)
        hits, unreadable = self._search(table, segment, pages)
        found = _Hits(hits.offsets[inverse], hits.r[inverse], hits.shifts[inverse])
        self._settle(lanes, access, segment, found, relocated=relocated)
        self._fail(lanes, np.flatnonzero(unreadable[inverse]), FaultKind.UNREADABLE, STAGE)

    def _search(self, table: HashTable, segment: Segment, pages: NDArray[np.uint64]) -> tuple[_Hits, NDArray[np.bool_]]:
        """Search for base pages, and tell for which a PTEG could not be read."""
        count = len(pages)
        hits = _Hits(np.full(count, -1, np.int64), np.zeros(count, np.uint64), np.zeros(count, np.uint64))
        unreadable = np.zeros(count, np.bool_)
        starts = pages << np.uint64(segment.base_shift)
        hashed = (np.uint64(segment.hash_base & low_mask(64)) ^ pages) & np.uint64(HASH_MASK)
        wanted = np.uint64(segment.avpn) | starts >> np.uint64(AVPN_SHIFT) & ~np.uint64(V_NOT_AVPN)
        form = table.form
        size, left = 0, np.arange(count)
        if form.r_compared:
            size = segment.avpn >> V_SSIZE_SHIFT << R_SSIZE_SHIFT
            wanted &= np.uint64(low_mask(V_SSIZE_SHIFT))
            left = left[wanted <= np.uint64(V_COMMON)]
        mask = np.uint64(table.group_mask)
        for second in (False, True):
            groups = (~hashed[left] & np.uint64(HASH_MASK) if second else hashed[left]) & mask
            offsets = self.pool.offsets(np.uint64(table.base) + (groups << np.uint64(GROUP_SHIFT)))
            bad = offsets < 0
            unreadable[left[bad]] = True
            left, offsets = left[~bad], offsets[~bad]
            sought = wanted[left] | np.uint64(V_SECONDARY if second else 0)
            self._compare(table, segment, hits, left, offsets, sought, np.uint64(size))
            left = left[hits.offsets[left] < 0]
        return hits, unreadable

    def _compare(
        self, table: HashTable, segment: Segment, hits: _Hits, left: NDArray[np.intp], offsets: NDArray[np.int64],
        sought: NDArray[np.uint64], size: np.uint64,
    ) -> None:  # fmt: skip
        """Note the first entry of each PTEG that is the one sought, of a page size that its segment can have."""
        if not len(left):
            return
        form, words = table.form, self.pool.words
        places = offsets[:, None] + np.arange(0, 2 * GROUP_SLOTS, 2)
        v = words[places]
        same = v & np.uint64(form.v_compared) == sought[:, None]
        rows, slots = np.nonzero(same)
        at = places[rows, slots] + 1
        r, v = words[at], v[rows, slots]
        shifts = _actual_shifts(segment.base_shift, v, r)
        good = np.flatnonzero((r & np.uint64(form.r_compared) == size) & (shifts > 0))
        _, first = np.unique(rows[good], return_index=True)
        best = good[first]
        chosen = left[rows[best]]
        hits.offsets[chosen], hits.shifts[chosen] = at[best], shifts[best]
        hits.r[chosen] = r[best] & ~np.uint64(R_SSIZE if form.r_compared else 0)

    def _settle(self, lanes: Lanes, access: Access, segment: Segment, hits: _Hits, *, relocated: bool) -> None:
        """End each access by the entry that was found for it."""
        missing = hits.offsets < 0
        kinds, inverse = np.unique(hits.r & np.uint64(_PROTECTION), return_inverse=True)
        rights, codes = self._rights(kinds.tolist(), access, segment, relocated=relocated)
        denied = codes[inverse]
        denied[missing] = self._code(FaultKind.NOT_PRESENT, STAGE)
        done = np.flatnonzero(denied == 0)
        self._touch(hits.offsets[done], hits.r[done], access)
        lows = (np.uint64(1) << hits.shifts[done]) - np.uint64(1)
        lanes.addresses[done] = hits.r[done] & np.uint64(HPTE_R_RPN) & ~lows | lanes.addresses[done] & lows
        lanes.permissions[done] &= rights[inverse][done]
        sizes = np.minimum(hits.shifts[done], np.uint64(segment.shift)).astype(np.uint8)
        lanes.shifts[done] = np.minimum(lanes.shifts[done], sizes)
        failed = np.flatnonzero(denied)
        lanes.fail(failed, denied[failed], lanes.addresses[failed])

    def _rights(
        self, kinds: list[int], access: Access, segment: Segment, *, relocated: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Return what entries permit, by their bits that say so, and the code of the fault where that is too little."""
        registers = self.cpu.registers
        key = segment.key(problem=bool(registers.msr & MSR_PR))
        rights, codes = [], []
        for r in kinds:
            pages, execution = page_permissions(r, key=key), execute_permissions(r)
            keyed = self.cpu.real_mode_keys or relocated
            keys = key_permissions(r, registers.amr, registers.iamr) if keyed else ALL_PERMISSIONS
            cause = denial(access, pages, execution, keys)
            rights.append(pages & execution & keys & (~EXECUTE if segment.no_execute else ALL_PERMISSIONS))
            codes.append(self._denied(cause) if cause else 0)
        return np.array(rights, np.uint8), np.array(codes, np.uint16)

    def _denied(self, cause: int) -> int:
        stage = STAGE
        if cause & DSISR_KEYFAULT:
            stage = BOTH if cause & (DSISR_NOEXEC_OR_G | DSISR_PROTFAULT) else KEYS
        return self._code(FaultKind.PERMISSION, stage)

    def _touch(self, offsets: NDArray[np.int64], r: NDArray[np.uint64], access: Access) -> None:
        """Set R, and C for a store, where the CPU does that and the batch is to."""
        if not self.batch.update or self.cpu.reference_change is AccessedDirty.IGNORE:
            return
        needed = R_R | (R_C if access is Access.STORE else 0)
        touched = np.unique(offsets[r & np.uint64(needed) != needed])
        if len(touched):
            self.pool.touch(touched, needed)


def _actual_shifts(base_shift: int, v: NDArray[np.uint64], r: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return log2 of the actual pages, as :func:`~nestmmu_ppc64_hpt.pages.actual_shift` does; 0 for none."""
    large = v & np.uint64(HPTE_V_LARGE) != 0
    shifts = np.where(large, np.uint64(0), np.uint64(SHIFT_4K if base_shift == SHIFT_4K else 0))
    for actual, mask, encoding in reversed(BY_BASE[base_shift]):
        shifts[large & (r & np.uint64(mask) == np.uint64(encoding))] = actual
    return shifts
