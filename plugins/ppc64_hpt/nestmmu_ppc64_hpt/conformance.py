"""POWER9's hash tables, declared to the conformance suite from the ISA: segments of 1 TiB, one for each base page."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.addresses import align_down, low_mask
from nestmmu.batch import translate_many
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty, InputRule
from nestmmu.mappings import Mapping
from nestmmu.memory import PhysicalMemory
from nestmmu.testing import Architecture, Capabilities, Feature, Scope, Table
from nestmmu_ppc64_book3s.interrupts import DSISR_NOHPTE, Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF, Registers
from nestmmu_ppc64_hpt.conformance_entries import (
    ENTRY_BYTES,
    MEMORY,
    PAGES,
    SEGMENT_LG2,
    Entries,
    first_word,
    page_of,
    second_word,
)
from nestmmu_ppc64_hpt.conformance_nest import HashNest
from nestmmu_ppc64_hpt.cpu import VECTOR_MACHINE_CHECK, Power9Hash
from nestmmu_ppc64_hpt.nested import HashComposer
from nestmmu_ppc64_hpt.slb import Slb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nestmmu.testing.ends import Reached, Refused
    from nestmmu.testing.trees import Page
    from nestmmu.translations import Translations

_KS, _KP = 0x800, 0x400
_SEGMENT_FAULTS = frozenset({0x380, 0x480})
_NO_TREE = "a hash table is no tree: it has neither levels nor directory entries"
_ONE_STAGE = "hash translation has one stage: an entry leads to a real address of the machine"


class SegmentTable(Table):
    """A hash table with the pages of one segment, in entries of ISA 3.0's form.

    :param number: which base page: an index in the page sizes.
    """

    partition_table, base, order = 0x10000, 1 << 20, 20

    def __init__(self, policy: AccessedDirty, number: int) -> None:
        shift, llp, _ = PAGES[number]
        key = number & 1
        self.page_shifts = (shift,)
        self.memory = PhysicalMemory()
        vsid = 0x2A_5A5A + number
        self.entries = Entries(self.memory.read, self.memory.write, self.base, self.order, vsid, number, key)
        self.memory.store(self.partition_table, self.base | self.order - 18, 8, "big")
        word = 1 << 62 | vsid << 24 | llp | (_KS if key else _KP)
        registers = Registers(ptcr=self.partition_table, msr=MSR_SF | MSR_IR | MSR_DR)
        self.cpu = Power9Hash(registers, self.memory, Slb([(1 << 27, word)]), reference_change=policy)

    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> None:
        """Write an entry."""
        self.entries.map(align_down(address, shift), target, rights, accessed=accessed, dirty=dirty)

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return R and C of a page's entry; nothing of a page that there is not."""
        return self.entries.flags(address)

    def places(self, address: int) -> list[int]:
        """Return where the entries of both PTEGs stand."""
        return self.entries.places(address)

    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Search slowly, and refuse what the entry does not permit."""
        return self.entries.allowed(address, access)

    def translate(self, address: int, access: Access) -> Mapping:
        """Do an access by the plugin's CPU, and read its interrupt."""
        end = self.cpu.access(access, address)
        if isinstance(end, Interrupt):
            raise Fault(self._kind(end), "hash", access, address)
        return Mapping(address, end.address, end.page_shift, end.permissions, *self.flags(address))

    @staticmethod
    def _kind(interrupt: Interrupt) -> FaultKind:
        if interrupt.vector in _SEGMENT_FAULTS:
            return FaultKind.INPUT_RANGE
        if interrupt.vector == VECTOR_MACHINE_CHECK:
            return FaultKind.UNREADABLE
        cause = interrupt.registers.get("dsisr", 0) | interrupt.registers.get("srr1", 0)
        return FaultKind.NOT_PRESENT if cause & DSISR_NOHPTE else FaultKind.PERMISSION

    def translate_many(self, addresses: NDArray[np.uint64], access: Access | None, *, update: bool) -> Translations:
        """Do many accesses at once by the plugin's CPU."""
        return translate_many(self.cpu, addresses, access, update=update)


class Ppc64Hpt(Architecture):
    """Bit numbers are the ISA's, counted from the low end. Each form is a segment of another base page."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="ppc64_hpt",
        input_bits=SEGMENT_LG2,
        output_bits=57,
        page_shifts=tuple(shift for shift, _, _ in PAGES),
        rights=(0, READ, READ | WRITE, READ | EXECUTE, READ | WRITE | EXECUTE),
        byteorder="big",
        entry_bytes=ENTRY_BYTES,
        policies=(AccessedDirty.UPDATE, AccessedDirty.IGNORE),
        above_input=InputRule.ZERO,
        scopes=(Scope.PAGE, Scope.TAG, Scope.ALL),
        nest_shifts=(16, 21),
        entry_shifts=(16,),
        shadow_shifts=tuple(shift for shift, _, _ in PAGES),
        whole_pages=True,
        host_sets_flags=True,
        writable_if_dirty=True,
        unsupported={Feature.LEVELS: _NO_TREE, Feature.TWO_STAGES: _ONE_STAGE},
    )

    @property
    def variants(self) -> range:
        """The numbers of the base pages."""
        return range(len(PAGES))

    def make_table(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> SegmentTable:
        """Return an empty table, and a segment that is looked up in it."""
        return SegmentTable(policy, variant)

    def make_nest(self, shift: int) -> HashNest:
        """Return KVM, a radix L1, and L2s that translate by hash."""
        return HashNest(self.capabilities, shift)

    def leaf_mapping(
        self, address: int, output: int, shift: int, rights: int, *, accessed: bool, dirty: bool
    ) -> Mapping:
        """Return an entry as the host reads it of L1's table: doubleword 1, and doubleword 0 among the attributes."""
        number = next(number for number, (base, _, _) in enumerate(PAGES) if base == shift)
        second = second_word(
            align_down(output, shift), number, rights, accessed=accessed, dirty=dirty, cache=MEMORY
        )  # fmt: skip
        return attrs.evolve(
            super().leaf_mapping(address, output, shift, rights, accessed=accessed, dirty=dirty),
            entry=second,
            attributes=first_word(0x2A_5A5A, address, shift) << 64,
        )

    def entry_page(self, leaf: Mapping) -> Page:
        """Return what doubleword 1 of a composed entry says."""
        return page_of((leaf.entry or 0) & low_mask(64), leaf.page_shift)

    def composer(self) -> HashComposer:
        """Return what makes the entries of a shadow."""
        return HashComposer()
