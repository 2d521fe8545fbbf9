"""POWER9's hash tables, declared to the conformance suite from the ISA: segments of 1 TiB, one for each base page."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.addresses import align_down
from nestmmu.batch import translate_many
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty, InputRule
from nestmmu.mappings import Mapping
from nestmmu.memory import PhysicalMemory
from nestmmu.testing import Architecture, Capabilities, Feature, Table
from nestmmu_ppc64_book3s.interrupts import DSISR_NOHPTE, Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF, Registers
from nestmmu_ppc64_hpt.cpu import VECTOR_MACHINE_CHECK, Power9Hash
from nestmmu_ppc64_hpt.slb import Slb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nestmmu.translations import Translations

SEGMENT_LG2 = 40
_HASH_BITS = 39
_GROUP_BYTES, _ENTRY_BYTES = 128, 16
_PAGES = ((12, 0x000, 0), (16, 0x110, 0x1), (24, 0x100, 0x0), (34, 0x120, 0x3))
"""Log2 of a base page's bytes, its L and LP in the SLB, and the penc of an actual page as large (ISA 3.0B, 5.7.8)."""
_PP = ((1, 3, 1 << 63), (2, 1, 0))
"""pp0 and pp of what may be written, read, and neither, for key 0 and for key 1; the other key may something else."""
_NO_EXECUTE = 1 << 2
_KS, _KP = 0x800, 0x400
_SEGMENT_FAULTS = frozenset({0x380, 0x480})
_NO_TREE = "a hash table is no tree: it has neither levels nor directory entries"
_ONE_STAGE = "hash translation has one stage: an entry leads to a real address of the machine"
_NO_NEST = "the nest of hash guests is not declared to the suite; tests/plugins/ppc64_hpt/test_state_machine.py runs it"


class SegmentTable(Table):
    """A hash table with the pages of one segment, in entries of ISA 3.0's form.

    :param number: which base page: an index in the page sizes.
    """

    partition_table, base, order = 0x10000, 1 << 20, 20

    def __init__(self, policy: AccessedDirty, number: int) -> None:
        self.base_shift, llp, self.penc = _PAGES[number]
        self.key = number & 1
        self.page_shifts = (self.base_shift,)
        self.memory = PhysicalMemory()
        self.vsid = 0x2A_5A5A + number
        self.memory.store(self.partition_table, self.base | self.order - 18, 8, "big")
        word = 1 << 62 | self.vsid << 24 | llp | (_KS if self.key else _KP)
        registers = Registers(ptcr=self.partition_table, msr=MSR_SF | MSR_IR | MSR_DR)
        self.cpu = Power9Hash(registers, self.memory, Slb([(1 << 27, word)]), reference_change=policy)

    def _groups(self, address: int) -> tuple[int, int]:
        """Return the addresses of the primary and the secondary PTEG."""
        hashed = (self.vsid ^ self.vsid << 25 ^ address >> self.base_shift) & (1 << _HASH_BITS) - 1
        mask = (1 << self.order) // _GROUP_BYTES - 1
        return self.base + (hashed & mask) * _GROUP_BYTES, self.base + (~hashed & mask) * _GROUP_BYTES

    def _first_word(self, address: int, *, secondary: bool) -> int:
        """Return doubleword 0: AVPN without B, L, H, V."""
        page = (self.vsid << SEGMENT_LG2 | address) >> self.base_shift << self.base_shift
        large = self.base_shift > 12  # noqa: PLR2004  (4 KiB)
        return page >> 23 << 7 & (1 << 52) - 1 | large << 2 | secondary << 1 | 1

    def _pp(self, rights: int) -> int:
        writable, readable, nothing = _PP[self.key]
        return writable if rights & WRITE else readable if rights & READ else nothing

    def _place(self, address: int) -> int | None:
        """Return where the entry of a page is."""
        for secondary, group in enumerate(self._groups(address)):
            wanted = self._first_word(address, secondary=bool(secondary))
            for at in range(group, group + _GROUP_BYTES, _ENTRY_BYTES):
                if self.memory.load(at, 8, "big") == wanted:
                    return at
        return None

    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> None:
        """Write an entry: in the place that the page has, else in the first free one, primary PTEG first."""
        second = target | self.penc << 12 | 1 << 58 | accessed << 8 | dirty << 7 | self._pp(rights)
        second |= 0 if rights & EXECUTE or not rights else _NO_EXECUTE
        place = self._place(align_down(address, shift))
        if place is None:
            for secondary, group in enumerate(self._groups(address)):
                free = [
                    at
                    for at in range(group, group + _GROUP_BYTES, _ENTRY_BYTES)
                    if not self.memory.load(at, 8, "big") & 1
                ]
                if free:
                    place = free[0]
                    self.memory.store(place, self._first_word(address, secondary=bool(secondary)), 8, "big")
                    break
            else:
                message = f"both PTEGs of {address:#x} are full"
                raise ValueError(message)
        self.memory.store(place + 8, second, 8, "big")

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return R and C of a page's entry; nothing of a page that there is not."""
        place = self._place(align_down(address, self.base_shift))
        word = 0 if place is None else self.memory.load(place + 8, 8, "big")
        return bool(word >> 8 & 1), bool(word >> 7 & 1)

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
        page_shifts=tuple(shift for shift, _, _ in _PAGES),
        rights=(0, READ, READ | WRITE, READ | EXECUTE, READ | WRITE | EXECUTE),
        byteorder="big",
        entry_bytes=_ENTRY_BYTES,
        policies=(AccessedDirty.UPDATE, AccessedDirty.IGNORE),
        above_input=InputRule.ZERO,
        unsupported={
            Feature.LEVELS: _NO_TREE,
            Feature.TWO_STAGES: _ONE_STAGE,
            Feature.COMPOSITION: _NO_NEST,
            Feature.NEST: _NO_NEST,
        },
    )

    @property
    def variants(self) -> range:
        """The numbers of the base pages."""
        return range(len(_PAGES))

    def make_table(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> SegmentTable:
        """Return an empty table, and a segment that is looked up in it."""
        return SegmentTable(policy, variant)
