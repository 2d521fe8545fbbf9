"""Which frames of a machine hold the tables of a POWER9 radix nest: what is worth keeping of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nestmmu.batch import translate_many
from nestmmu.errors import OutsideMemoryError, TooLargeError
from nestmmu.extract import extract
from nestmmu.faults import Fault
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_ppc64_book3s.partition import PATE_BYTES, RPDB, RPDS, pate_address, read_pair, table_bytes
from nestmmu_ppc64_book3s.registers import LPIDR_LIMIT, PIDR_LIMIT
from nestmmu_ppc64_radix.cpu import PROCESS, prte_address
from nestmmu_ppc64_radix.formats import POWER9

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.images import NestImage
    from nestmmu.memory import Memory, PhysicalMemory
    from nestmmu.nests import NestTables

_ONE = np.uint64(1)
_MOST_PAGES = 1 << 20
"""Table pages of all processes together, beside those that the memory has."""


class _Found:
    """Frames of the machine's memory, gathered by whoever's addresses."""

    def __init__(self) -> None:
        self.numbers: list[NDArray[np.uint64]] = []

    def add(self, memory: Memory, starts: NDArray[np.uint64], sizes: NDArray[np.uint64]) -> None:
        """Add what lies in ranges of a memory, as far as they lead anywhere."""
        first = starts >> np.uint64(FRAME_SHIFT)
        counts = ((starts + sizes - _ONE >> np.uint64(FRAME_SHIFT)) - first + _ONE).astype(np.int64)
        ends = np.cumsum(counts)
        inside = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
        pages = np.unique(np.repeat(first, counts) + inside.astype(np.uint64)) << np.uint64(FRAME_SHIFT)
        if isinstance(memory, TranslatedMemory):
            found = translate_many(memory, pages, None)
            pages = found.outputs[found.complete]
        self.numbers.append(np.unique(pages >> np.uint64(FRAME_SHIFT)))

    def add_range(self, memory: Memory, start: int, size: int) -> None:
        """Add what lies in one range of a memory."""
        self.add(memory, np.array([start], np.uint64), np.array([size], np.uint64))

    def add_tables(self, table: RadixTable) -> None:
        """Add the pages of a tree."""
        pages = extract(table, words=False).tables
        self.add(table.walker.memory, pages.address, pages.size)


def table_frames(image: NestImage, memory: PhysicalMemory, tables: NestTables) -> NDArray[np.uint64]:
    """Return the numbers of the frames that translating reads, rising: L0's, L1's and L2's tables, all levels of them.

    :param memory: the image's.
    :raises Fault: MALFORMED, where the root of a partition-scoped tree is.
    :raises TooLargeError: where processes' trees have more pages than the memory could hold.
    """
    found = _Found()
    for table in (tables.inner, tables.outer, tables.shadow):
        if table is not None:
            found.add_tables(table)
    holder = tables.inner.walker.memory
    inner = TranslatedMemory(holder, tables.inner, "L2 real")
    # (partition table, where that lies, LPID, the memory that the processes of that partition have)
    partitions: list[tuple[int, Memory, int, Memory]] = [
        (image.l1.number("ptcr"), holder, image.l2.number("l1_lpid", limit=LPIDR_LIMIT), inner)
    ]
    if image.l0 is not None:
        ptcr = image.l0.number("ptcr")
        partitions.append((ptcr, memory, image.l1.number("lpid", limit=LPIDR_LIMIT), holder))
        partitions.append((ptcr, memory, image.l2.number("shadow_lpid", limit=LPIDR_LIMIT), inner))
    budget = 2 * memory.frame_count() + _MOST_PAGES
    for ptcr, where, lpid, real in partitions:
        place = pate_address(ptcr, lpid)
        if place is None:
            continue
        found.add_range(where, place, PATE_BYTES)
        budget -= _processes(found, real, read_pair(where, place)[1], budget)
    return np.unique(np.concatenate(found.numbers))


def _processes(found: _Found, real: Memory, dw1: int, budget: int) -> int:
    """Add a process table, and the trees that it leads to; return how many pages these have."""
    base = prte_address(dw1, 0)
    if not isinstance(base, int) or not dw1:
        return 0
    size = min(table_bytes(dw1), PIDR_LIMIT * PATE_BYTES)
    found.add_range(real, base, size)
    roots = set()
    for start in range(base, base + size, FRAME_BYTES):
        try:
            words = np.frombuffer(real.read(start, FRAME_BYTES), ">u8")[::2]
        except (Fault, OutsideMemoryError):
            continue
        roots.update(words[words != 0].tolist())
    pages = 0
    walker = RadixWalker(POWER9, real, PROCESS)
    for word in sorted(roots):
        try:
            tree = extract(RadixTable(walker, Root(word & RPDB, word & RPDS)), words=False).tables
        except Fault:
            continue
        found.add(real, tree.address, tree.size)
        pages += len(tree.address)
        if pages > budget:
            message = f"the process table at {base:#x} leads to more table pages than the memory holds"
            raise TooLargeError(message)
    return pages
