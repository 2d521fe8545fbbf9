"""The tables of a recorded POWER9 radix nest: where its registers lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.errors import InputError, OutsideMemoryError
from nestmmu.faults import Fault
from nestmmu.memory import TranslatedMemory
from nestmmu.nests import NestTables
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_ppc64_book3s.partition import (
    LARGEST_TABLE_FIELD,
    PATE_HR,
    PATS,
    pate_address,
    radix_root,
    read_pair,
    tree_bits,
)
from nestmmu_ppc64_book3s.registers import LPIDR_LIMIT
from nestmmu_ppc64_radix.formats import INPUT_BITS, POWER9

if TYPE_CHECKING:
    from nestmmu.images import NestImage, Section
    from nestmmu.memory import Memory

HOST, GUEST, SHADOW = "L0's table for L1", "L1's table for L2", "L0's shadow for L2"


def image_root(image: NestImage, memory: Memory, ptcr: int, index: int, field: str) -> tuple[Root, int]:
    """Return the tree that the entry ``index`` of a partition table in an image leads to, and the entry's doubleword 1.

    :raises InputError: naming ``field``, if there is no radix tree of 52 bits.
    """
    where = pate_address(ptcr, index)
    remedy = "take the register and the LPID from the machine that the image is of"
    if where is None:
        raise InputError(image.path, field, f"PTCR {ptcr:#x} has no entry for LPID {index}", remedy)
    try:
        dw0, dw1 = read_pair(memory, where)
    except (OutsideMemoryError, Fault):
        raise InputError(image.path, field, f"the partition table at {where:#x} cannot be read", remedy) from None
    if not dw0 & PATE_HR or tree_bits(dw0) != INPUT_BITS:
        problem = f"the partition-table entry of LPID {index} at {where:#x} is {dw0:#x}, not a radix tree of 52 bits"
        raise InputError(image.path, field, problem, remedy)
    base, bits = radix_root(dw0)
    return Root(base, bits), dw1


def image_ptcr(image: NestImage, level: str, section: Section) -> int:
    """Return the PTCR of a level.

    :raises InputError: if its size is one that the register does not take.
    """
    ptcr = section.number("ptcr")
    if ptcr & PATS > LARGEST_TABLE_FIELD:
        problem = f"size field {ptcr & PATS} of {ptcr:#x} is over {LARGEST_TABLE_FIELD}"
        raise InputError(image.path, f"{level}.ptcr", problem, "give the register as the machine held it")
    return ptcr


def image_tables(image: NestImage, memory: Memory) -> NestTables:
    """Return the partition-scoped tables of an image's nest, as they lie in ``memory``: nothing is set in them.

    :raises InputError: naming the field that leads to no tree.
    """
    l1_ptcr = image_ptcr(image, "l1", image.l1)
    l1_lpid = image.l2.number("l1_lpid", limit=LPIDR_LIMIT)
    if image.l0 is None:
        root, _ = image_root(image, memory, l1_ptcr, l1_lpid, "l1.ptcr, l2.l1_lpid")
        return NestTables(RadixTable(RadixWalker(POWER9, memory, GUEST), root), None, None)
    ptcr = image_ptcr(image, "l0", image.l0)
    lpid = image.l1.number("lpid", limit=LPIDR_LIMIT)
    shadow_lpid = image.l2.number("shadow_lpid", limit=LPIDR_LIMIT)
    host_root, _ = image_root(image, memory, ptcr, lpid, "l0.ptcr, l1.lpid")
    shadow_root, _ = image_root(image, memory, ptcr, shadow_lpid, "l0.ptcr, l2.shadow_lpid")
    host = RadixTable(RadixWalker(POWER9, memory, HOST), host_root)
    guest_memory = TranslatedMemory(memory, host, "L1 real")
    guest_root, _ = image_root(image, guest_memory, l1_ptcr, l1_lpid, "l1.ptcr, l2.l1_lpid")
    return NestTables(
        RadixTable(RadixWalker(POWER9, guest_memory, GUEST), guest_root),
        host,
        RadixTable(RadixWalker(POWER9, memory, SHADOW), shadow_root),
    )
