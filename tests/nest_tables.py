"""The tables of a recorded nest, ready to be walked: found by the registers that the image gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nestmmu.images import read_nest_image, shipped_image
from nestmmu.memory import TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_ppc64_book3s.partition import pate_address, radix_root, read_pair
from nestmmu_ppc64_radix.formats import POWER9

if TYPE_CHECKING:
    from nestmmu.images import NestImage
    from nestmmu.memory import Memory, PhysicalMemory

DATA = Path(__file__).parent / "data"
IMAGES = ("nest-64k-64k", "nest-4k-64k", "l1-64k", "l1-4k")


def table_of(memory: Memory, ptcr: int, lpid: int, stage: str) -> RadixTable:
    where = pate_address(ptcr, lpid)
    assert where is not None
    return RadixTable(RadixWalker(POWER9, memory, stage), Root(*radix_root(read_pair(memory, where)[0])))


@attrs.define
class NestTables:
    """L0's table for L1 and its shadow for L2 are None where the image has no L0."""

    image: NestImage
    memory: PhysicalMemory
    l0: RadixTable | None
    shadow: RadixTable | None
    l1: RadixTable
    l2_real: TranslatedMemory

    def all(self) -> list[RadixTable]:
        return [table for table in (self.l0, self.shadow, self.l1) if table is not None]


def nest_tables(name: str) -> NestTables:
    image = read_nest_image(shipped_image() if name == "nest-64k-64k" else DATA / f"{name}.json")
    memory = image.memory()
    l0 = shadow = None
    l1_real: Memory = memory
    if image.l0 is not None:
        ptcr = image.l0.number("ptcr")
        l0 = table_of(memory, ptcr, image.l1.number("lpid"), "L0's table for L1")
        shadow = table_of(memory, ptcr, image.l2.number("shadow_lpid"), "L0's shadow for L2")
        l1_real = TranslatedMemory(memory, l0, "L1 real")
    l1 = table_of(l1_real, image.l1.number("ptcr"), image.l2.number("l1_lpid"), "L1's table for L2")
    return NestTables(image, memory, l0, shadow, l1, TranslatedMemory(l1_real, l1, "L2 real"))
