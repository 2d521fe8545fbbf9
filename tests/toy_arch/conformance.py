"""The toy, declared: every number here is written down a second time, from the package's own description of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.compose import RadixComposer
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
    Scope,
)
from toy_arch.conformance_nest import WideToyNest
from toy_arch.formats import TOY, WIDE

if TYPE_CHECKING:
    from nestmmu.formats import RadixFormat
    from nestmmu.memory import Memory
    from nestmmu.testing import Meaning

NO_NEST = "a guest of 256 bytes has no room for what the suite builds; the wide toy has it"
TREE = (LevelShape("upper", 6, 2), LevelShape("lower", 4, 2))
WIDE_TREE = (LevelShape("top", 20, 4), LevelShape("upper", 16, 4), LevelShape("lower", 12, 4))
POLICIES = (AccessedDirty.UPDATE, AccessedDirty.FAULT, AccessedDirty.IGNORE)


class Toy(RadixArchitecture):
    """Two levels, pages of 16 and 64 bytes."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="toy",
        input_bits=8,
        output_bits=24,
        page_shifts=(6, 4),
        rights=(0, READ, WRITE, READ | WRITE, EXECUTE, READ | EXECUTE, WRITE | EXECUTE, READ | WRITE | EXECUTE),
        byteorder="little",
        entry_bytes=4,
        trees=(TREE,),
        policies=POLICIES,
        unsupported={Feature.NEST: NO_NEST, Feature.COMPOSITION: NO_NEST},
    )
    table_format: ClassVar[RadixFormat] = TOY

    def entry_word(
        self, tree: tuple[LevelShape, ...], depth: int, target: int, rights: int, *, accessed: bool, dirty: bool
    ) -> int:
        del tree, depth
        word = 0b11 | target
        for right, bit in ((READ, 24), (WRITE, 25), (EXECUTE, 26)):
            word |= bool(rights & right) << bit
        return word | dirty << 28 | accessed << 29

    def table_word(self, tree: tuple[LevelShape, ...], depth: int, table: int) -> int:
        del tree, depth
        return 0b01 | table

    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        address = word & 0x00FF_FFF0
        if not word & 1:
            return Nothing()
        if word & 4:
            return Broken()
        if not word & 2:
            below = self.capabilities.trees[0][depth + 1 :]
            if not below or address % (4 << below[0].index_bits):
                return Broken()
            return Leads(address, below[0].index_bits)
        if address % (1 << shift):
            return Broken()
        rights = sum(right for right, bit in ((READ, 24), (WRITE, 25), (EXECUTE, 26)) if word >> bit & 1)
        return Page(address, rights, bool(word >> 29 & 1), bool(word >> 28 & 1))

    def translator(
        self, memory: Memory, root: int, index_bits: int, policy: AccessedDirty, stage: str = "tree"
    ) -> RadixTable:
        walker = RadixWalker(self.table_format, memory, stage, policy)
        return RadixTable(walker, Root(root, index_bits))


class WideToy(Toy):
    """Three levels, pages of 4 KiB, 64 KiB and 1 MiB."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="wide toy",
        input_bits=24,
        output_bits=24,
        page_shifts=(20, 16, 12),
        rights=Toy.capabilities.rights,
        byteorder="little",
        entry_bytes=4,
        trees=(WIDE_TREE,),
        policies=POLICIES,
        scopes=(Scope.PAGE, Scope.TAG),
        nest_shifts=(12, 16),
        shadow_shifts=(12, 16, 20),
        attributes=(0, 1 << 30),
        most_faults=2,
    )
    table_format: ClassVar[RadixFormat] = WIDE

    def make_nest(self, shift: int) -> WideToyNest:
        return WideToyNest(self, shift)

    def composer(self) -> RadixComposer:
        return RadixComposer(WIDE, (4, 4, 4))
