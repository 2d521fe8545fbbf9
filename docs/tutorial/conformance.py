"""Sv32, declared from the manual; no number of `formats` is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import AccessedDirty
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.testing import (
    Broken,
    Capabilities,
    Feature,
    Leads,
    LevelShape,
    Nothing,
    Page,
    RadixArchitecture,
)
from nestmmu_sv32.formats import SV32

if TYPE_CHECKING:
    from nestmmu.memory import Memory
    from nestmmu.testing import Meaning

# part declaration
ONE_STAGE = "Sv32 is one stage; the hypervisor extension has the other"
RIGHTS = ((READ, 1 << 1), (WRITE, 1 << 2), (EXECUTE, 1 << 3))


class Sv32(RadixArchitecture):
    """Two levels of 1024 words; pages of 4 KiB and 4 MiB."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="sv32",
        input_bits=32,
        output_bits=34,
        page_shifts=(22, 12),
        rights=(0, READ, READ | WRITE, EXECUTE, READ | EXECUTE, READ | WRITE | EXECUTE),
        byteorder="little",
        entry_bytes=4,
        trees=((LevelShape("level 1", 22, 10), LevelShape("level 0", 12, 10)),),
        policies=(AccessedDirty.UPDATE, AccessedDirty.FAULT, AccessedDirty.IGNORE),
        unsupported={Feature.NEST: ONE_STAGE, Feature.COMPOSITION: ONE_STAGE, Feature.TWO_STAGES: ONE_STAGE},
    )

    # part words
    def entry_word(
        self, tree: tuple[LevelShape, ...], depth: int, target: int, rights: int, *, accessed: bool, dirty: bool
    ) -> int:
        """Return a leaf: without any right, it is a page of the supervisor's that it can read."""
        del tree, depth
        word = 1 | target >> 12 << 10 | accessed << 6 | dirty << 7
        if not rights:
            return word | 1 << 1
        return word | 1 << 4 | sum(bit for right, bit in RIGHTS if rights & right)

    def table_word(self, tree: tuple[LevelShape, ...], depth: int, table: int) -> int:
        """Return a pointer to the next level: V and the PPN."""
        del tree, depth
        return 1 | table >> 12 << 10

    # part decode
    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        """Return what a word says, in the order of the manual's algorithm."""
        readable, writable, executable, user, accessed, dirty = (bool(word >> bit & 1) for bit in (1, 2, 3, 4, 6, 7))
        address = word >> 10 << 12
        if not word & 1:
            return Nothing()
        if writable and not readable:
            return Broken()
        if not readable and not executable:
            return Broken() if depth == 1 or accessed or dirty or user else Leads(address, 10)
        if address % (1 << shift):
            return Broken()
        rights = READ * readable | WRITE * writable | EXECUTE * executable
        return Page(address, rights if user else 0, accessed, dirty)

    # part translator
    def translator(
        self, memory: Memory, root: int, index_bits: int, policy: AccessedDirty, stage: str = "tree"
    ) -> RadixTable:
        """Return the plugin's own translator: what is under test."""
        return RadixTable(RadixWalker(SV32, memory, stage, policy), Root(root, index_bits))


# part end
