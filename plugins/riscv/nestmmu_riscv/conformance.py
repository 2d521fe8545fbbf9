"""RISC-V, declared to the conformance suite from the privileged manual: the G-stage's x4 forms, and a nest of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import AccessedDirty, InputRule
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
from nestmmu_riscv.composer import RiscvComposer
from nestmmu_riscv.conformance_nest import RiscvNest
from nestmmu_riscv.csrs import SV39, SV48, SV57
from nestmmu_riscv.formats import table_format

if TYPE_CHECKING:
    from nestmmu.memory import Memory
    from nestmmu.testing import Meaning

_SHIFTS = (48, 39, 30, 21, 12)
_RIGHTS = (0, READ, READ | WRITE, EXECUTE, READ | EXECUTE, READ | WRITE | EXECUTE)
_PPN_BITS = (1 << 44) - 1
_RECORD: dict[str, str] = dict.fromkeys(("PERMISSION", "MALFORMED", "ACCESSED_DIRTY", "INPUT_RANGE"), "NOT_PRESENT")
"""A guest-page fault says that there is one, and not what is wrong."""


def _tree(count: int) -> tuple[LevelShape, ...]:
    shifts = _SHIFTS[-count:]
    return tuple(LevelShape(f"{count - 1 - at}", shift, 9 if at else 11) for at, shift in enumerate(shifts))


class RiscvSv39x4(RadixArchitecture):
    """Bit numbers are the manual's. A word of the upper levels with N, and every N but 64 KiB, is reserved."""

    mode: ClassVar[int] = SV39
    svadu: ClassVar[bool] = False
    """Whether the nest's harts set A and D by themselves."""
    capabilities: ClassVar[Capabilities] = Capabilities(
        name="riscv",
        input_bits=41,
        output_bits=56,
        page_shifts=(30, 21, 12),
        rights=_RIGHTS,
        byteorder="little",
        entry_bytes=8,
        trees=(_tree(3),),
        policies=(AccessedDirty.UPDATE, AccessedDirty.FAULT, AccessedDirty.IGNORE),
        above_input=InputRule.ZERO,
        scopes=(Scope.PAGE, Scope.TAG, Scope.ALL),
        nest_shifts=(12, 21),
        shadow_shifts=(12, 21, 30),
        attributes=(0, 1 << 61, 2 << 61),
        most_faults=3,
        same_record=_RECORD,
    )

    def entry_word(
        self, tree: tuple[LevelShape, ...], depth: int, target: int, rights: int, *, accessed: bool, dirty: bool
    ) -> int:
        """Return V, R, W, X, U, A, D and PPN; a page that permits nothing has R and no U."""
        del tree, depth
        encoded = sum(1 << bit for bit, right in ((1, READ), (2, WRITE), (3, EXECUTE)) if rights & right)
        encoded = encoded | 1 << 4 if rights else 1 << 1
        return target >> 12 << 10 | dirty << 7 | accessed << 6 | encoded | 1

    def other_words(self, word: int) -> tuple[int, ...]:
        """Return the word with either bit of RSW, which is the owner's, and with G."""
        return word | 1 << 8, word | 1 << 9, word | 1 << 5

    def table_word(self, tree: tuple[LevelShape, ...], depth: int, table: int) -> int:
        """Return V and PPN."""
        del tree, depth
        return table >> 12 << 10 | 1

    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        """Read V, the reserved bits and encodings, then a pointer or a leaf."""
        last = depth == len(self.capabilities.trees[0]) - 1
        if not word & 1:
            return Nothing()
        rwx, pbmt, napot = word >> 1 & 7, word >> 61 & 3, word >> 63
        address = (word >> 10 & _PPN_BITS) << 12
        if word >> 54 & 0x7F or rwx & 3 == 2 or pbmt == 3 or (napot and not last):  # noqa: PLR2004  (W alone; no type)
            return Broken()
        if not rwx:
            attributes = word & 0b1101_0000 or pbmt or napot
            return Broken() if last or attributes else Leads(address, 9)
        if napot:
            return Broken()
        if address % (1 << shift):
            return Broken()
        rights = sum(right for bit, right in ((1, READ), (2, WRITE), (3, EXECUTE)) if word >> bit & 1)
        return Page(address, rights if word >> 4 & 1 else 0, bool(word >> 6 & 1), bool(word >> 7 & 1))

    def translator(
        self, memory: Memory, root: int, index_bits: int, policy: AccessedDirty, stage: str = "tree"
    ) -> RadixTable:
        """Return the hardware's walk of one tree."""
        walker = RadixWalker(table_format(self.mode, g_stage=True), memory, stage, policy)
        return RadixTable(walker, Root(root, index_bits))

    def make_nest(self, shift: int) -> RiscvNest:
        """Return L0 and an L1."""
        return RiscvNest(self, shift, self.mode, svadu=self.svadu)

    def composer(self) -> RiscvComposer:
        """Return the composer of a shadow in this mode for harts as the nest's are."""
        widths = tuple(level.index_bits for level in self.capabilities.trees[0])
        return RiscvComposer(table_format(self.mode, g_stage=True, pbmt=True), widths, svadu=self.svadu)

    def composed_attributes(self, inner: int, outer: int) -> int:
        """Return L1's PBMT, unless that says to take the type of what lies behind: then L0's."""
        return inner or outer


class RiscvSvadu(RiscvSv39x4):
    """Harts that set A and D by themselves: for L1's tables L0 does what they would do."""

    svadu: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = attrs.evolve(
        RiscvSv39x4.capabilities, name="riscv_svadu", host_sets_flags=True, writable_if_dirty=True
    )


class RiscvSv39(RiscvSv39x4):
    """Sv39 of S-mode: U is the mode's to judge, so no permission of the table; addresses are signed."""

    capabilities: ClassVar[Capabilities] = attrs.evolve(
        RiscvSv39x4.capabilities,
        name="riscv_sv39",
        input_bits=39,
        rights=_RIGHTS[1:],
        trees=((LevelShape("2", 30, 9), LevelShape("1", 21, 9), LevelShape("0", 12, 9)),),
        above_input=InputRule.SIGN,
        scopes=(),
        nest_shifts=(),
        shadow_shifts=(),
        unsupported=dict.fromkeys(
            (Feature.NEST, Feature.COMPOSITION, Feature.TWO_STAGES),
            "what lies behind a table of S-mode is in one of the x4 forms, which are shadowed: riscv runs them",
        ),
    )

    def entry_word(
        self, tree: tuple[LevelShape, ...], depth: int, target: int, rights: int, *, accessed: bool, dirty: bool
    ) -> int:
        """Return V, R, W, X, A, D and PPN, of a page without U; nothing where nothing is permitted."""
        word = super().entry_word(tree, depth, target, rights, accessed=accessed, dirty=dirty)
        return word & ~(1 << 4) if rights else 0

    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        """Read a leaf without regard to U."""
        rwx = word & 0b1110
        return super().decode(depth, shift, word | 1 << 4 if rwx else word)

    def translator(
        self, memory: Memory, root: int, index_bits: int, policy: AccessedDirty, stage: str = "tree"
    ) -> RadixTable:
        """Return the hardware's walk of one tree, as a table of no mode in particular."""
        return RadixTable(RadixWalker(table_format(SV39), memory, stage, policy), Root(root, index_bits))


def _wider(name: str, count: int, bits: int) -> Capabilities:
    return attrs.evolve(
        RiscvSv39x4.capabilities, name=name, input_bits=bits, page_shifts=_SHIFTS[-count:], trees=(_tree(count),),
        shadow_shifts=_SHIFTS[-count:],
    )  # fmt: skip


class RiscvSv48x4(RiscvSv39x4):
    """Four levels."""

    mode: ClassVar[int] = SV48
    capabilities: ClassVar[Capabilities] = _wider("riscv_sv48x4", 4, 50)


class RiscvSv57x4(RiscvSv39x4):
    """Five levels."""

    mode: ClassVar[int] = SV57
    capabilities: ClassVar[Capabilities] = _wider("riscv_sv57x4", 5, 59)
