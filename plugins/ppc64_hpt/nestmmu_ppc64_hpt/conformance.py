"""POWER9's hash tables, declared to the conformance suite from the ISA: one segment, of each base page."""

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
from nestmmu_ppc64_hpt.conformance_entries import AUTHORITY, ENTRY_BYTES, MEMORY, ByEntries, Entries, Segment, page_of
from nestmmu_ppc64_hpt.conformance_nest import HashNest
from nestmmu_ppc64_hpt.cpu import VECTOR_MACHINE_CHECK, Power9Hash
from nestmmu_ppc64_hpt.nested import HashComposer
from nestmmu_ppc64_hpt.slb import Slb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nestmmu.testing.trees import Page
    from nestmmu.translations import Translations

_VSID = 0x2A_5A5B
_PAGE_KEYS = (0, 15, 22, 29)
_WIM, _OTHER_CACHING = 0x70, (0x00, 0x20, 0x30, 0x40, 0x60)
_SEGMENT_FAULTS = frozenset({0x380, 0x480})
_NO_TREE = "a hash table is no tree: it has neither levels nor directory entries"
_ONE_STAGE = "hash translation has one stage: an entry leads to a real address of the machine"


class SegmentTable(ByEntries, Table):
    """A hash table with the pages of one segment, in entries of ISA 3.0's form."""

    partition_table, base, order = 0x10000, 1 << 20, 20

    def __init__(self, policy: AccessedDirty, segment: Segment) -> None:
        self.page_shifts = segment.actual_shifts
        self.memory = PhysicalMemory()
        self.entries = Entries(self.memory.read, self.memory.write, self.base, self.order, segment)
        self.memory.store(self.partition_table, self.base | self.order - 18, 8, "big")
        amr, iamr = AUTHORITY
        registers = Registers(ptcr=self.partition_table, msr=MSR_SF | MSR_IR | MSR_DR, amr=amr, iamr=iamr)
        self.cpu = Power9Hash(registers, self.memory, Slb([segment.slb_entry]), reference_change=policy)

    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> None:
        """Write the entries of a page."""
        self.entries.map(align_down(address, shift), target, shift, rights, accessed=accessed, dirty=dirty)

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
    """Bit numbers are the ISA's, counted from the low end. Each form is a segment of 1 TiB of another base page."""

    segment_lg2: ClassVar[int] = 40
    base_pages: ClassVar[tuple[int, ...]] = (12, 16, 24, 34)
    """Log2 of the bytes of each; the segment of every other one has key 1."""
    nest_key: ClassVar[int] = 0
    """The storage key of L2s."""
    capabilities: ClassVar[Capabilities] = Capabilities(
        name="ppc64_hpt",
        input_bits=segment_lg2,
        output_bits=57,
        page_shifts=base_pages,
        rights=(0, READ, READ | WRITE, READ | EXECUTE, READ | WRITE | EXECUTE),
        byteorder="big",
        entry_bytes=ENTRY_BYTES,
        policies=(AccessedDirty.UPDATE, AccessedDirty.IGNORE),
        above_input=InputRule.ZERO,
        scopes=(Scope.PAGE, Scope.TAG, Scope.ALL),
        nest_shifts=(16, 21),
        entry_shifts=(16, 24),
        shadow_shifts=base_pages,
        attributes=(MEMORY, _WIM, *_OTHER_CACHING),
        most_faults=1,
        whole_pages=True,
        host_sets_flags=True,
        writable_if_dirty=True,
        unsupported={Feature.LEVELS: _NO_TREE, Feature.TWO_STAGES: _ONE_STAGE},
    )

    @property
    def variants(self) -> range:
        """The numbers of the base pages."""
        return range(len(self.base_pages))

    def segment(self, number: int) -> Segment:
        """Return the segment of a form."""
        return Segment(self.segment_lg2, _VSID + number, self.base_pages[number], number & 1, _PAGE_KEYS[number])

    def make_table(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> SegmentTable:
        """Return an empty table, and a segment that is looked up in it."""
        return SegmentTable(policy, self.segment(variant))

    def make_nest(self, shift: int) -> HashNest:
        """Return KVM, a radix L1, and L2s that translate by hash."""
        return HashNest(shift, Segment(self.segment_lg2, _VSID, 16, self.nest_key, _PAGE_KEYS[2]))

    def leaf_mapping(
        self, address: int, output: int, shift: int, rights: int, *, accessed: bool, dirty: bool
    ) -> Mapping:
        """Return an entry as the host reads it of L1's table: doubleword 1, and doubleword 0 among the attributes."""
        segment = Segment(self.segment_lg2, _VSID, shift)
        target = align_down(output, shift)
        return attrs.evolve(
            super().leaf_mapping(address, output, shift, rights, accessed=accessed, dirty=dirty),
            entry=segment.second(target, shift, rights, accessed=accessed, dirty=dirty, cache=MEMORY),
            attributes=segment.first(address, shift) << 64,
        )

    def with_attributes(self, leaf: Mapping, attributes: int) -> Mapping:
        """Return an entry with W, I and M."""
        return attrs.evolve(leaf, entry=(leaf.entry or 0) & ~_WIM | attributes)

    def composed_attributes(self, inner: int, outer: int) -> int:
        """Return L1's, if memory can have it, as for KVM's H_ENTER: M, or W, I and M; else M."""
        del outer
        return inner if inner in {MEMORY, _WIM} else MEMORY

    def entry_page(self, leaf: Mapping) -> Page:
        """Return what doubleword 1 of a composed entry says."""
        return page_of((leaf.entry or 0) & low_mask(64), leaf.page_shift)

    def composer(self) -> HashComposer:
        """Return what makes the entries of a shadow."""
        return HashComposer()


class Ppc64Hpt256M(Ppc64Hpt):
    """Segments of 256 MiB, whose VSIDs are hashed otherwise, and in which no page of 16 GiB has room."""

    segment_lg2: ClassVar[int] = 28
    base_pages: ClassVar[tuple[int, ...]] = (12, 16, 24)
    nest_key: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = attrs.evolve(
        Ppc64Hpt.capabilities, name="ppc64_hpt_256m", input_bits=segment_lg2, page_shifts=base_pages,
        shadow_shifts=base_pages,
    )  # fmt: skip
