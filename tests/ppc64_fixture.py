"""The canonical POWER9 nest of the reference, section 0, built by raw words."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.memory import PhysicalMemory
from nestmmu.points import finish
from nestmmu.slots import LinearBacking, Slot, Slots
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.kvm import KvmHv
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from nestmmu.outcomes import Exit, Outcome

GPA_TO_HPA = 0x4_0000_0000
SLOT_BYTES = 0x2_0000_0000
L1_PTCR = 0x0100_0004
PATE_ADDRESS = 0x0100_0050
PATE_DW0 = 0xC000_0000_0200_00AD
PATE_DW1 = 0x0000_0000_0300_0004
N = 0x1_2345_6789
ROOT, PUD, PMD, PTE = 0x0200_0000, 0x0201_0000, 0x0201_1000, 0x0201_2000
ROOT_ENTRY, PUD_ENTRY, PMD_ENTRY, PTE_ENTRY = 0x0200_0000, 0x0201_0020, 0x0201_18D0, 0x0201_2028
PTE_ENTRY_4K = 0x0201_22B0
TO_PUD, TO_PMD, TO_PTE = 0x8000_0000_0201_0009, 0x8000_0000_0201_1009, 0x8000_0000_0201_2005
TO_PTE_4K = 0x8000_0000_0201_2009
LEAF_64K = 0xC000_0001_8005_0187
LEAF_2M = LEAF_1G = 0xC000_0001_8000_0187
HDAR = 0xC000_0000_0A5E_6789
ASDR = 0x1_2345_6000
PC = 0xC000_0000_0001_2789
HSRR1_FETCH = 0x8000_0000_4000_9033
"""The MSR image of section 6: SF, the cause "no translation", and EE, ME, IR, DR, RI, LE."""
MSR = 0x8000_0000_0000_9033
L1_LPID, L1_LPID_OF_L2, SHADOW_LPID = 1, 5, 7
HOST_PTCR = 0x8_0000_0000 | 4
HOST_TABLES = 0x9_0000_0000
NOHPTE, PROTFAULT, ISSTORE, SET_RC = 0x4000_0000, 0x0800_0000, 0x0200_0000, 0x0004_0000


class CountingMemory(PhysicalMemory):
    """A memory that notes the address of every word that a walk loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[int] = []

    def loader(self, size, byteorder):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  (as its base has it)
        load = super().loader(size, byteorder)

        def noted(address: int) -> int:
            self.loads.append(address)
            return load(address)

        return noted


class Fixture:
    """L0, L1 and L2 of section 0, with L1's tree for L2 as ``leaf`` says."""

    def __init__(
        self,
        quirks: Quirk = Quirk.LINUX_6_1,
        page_shift: int = 16,
        backing_shift: int = 16,
        *,
        read_only: bool = False,
        writable: bool = True,
        table_bytes: int = 1 << 30,
        memory: PhysicalMemory | None = None,
    ) -> None:
        self.memory = PhysicalMemory() if memory is None else memory
        self.allocator = PageAllocator(self.memory, HOST_TABLES, HOST_TABLES + table_bytes)
        self.host = KvmHv(self.memory, self.allocator, page_shift=page_shift, ptcr=HOST_PTCR, quirks=quirks)
        self.slots = Slots((Slot(0, SLOT_BYTES, read_only=read_only),))
        self.backing = LinearBacking(GPA_TO_HPA, backing_shift, writable)
        self.guest = self.host.create_guest(HardwareTag(L1_LPID), self.slots, self.backing)
        self.guest.ptcr = L1_PTCR
        self.nested = self.host.add_nested(self.guest, AssignedTag(L1_LPID_OF_L2), HardwareTag(SHADOW_LPID))
        self.handler = self.host.nested_faults(self.guest)
        self.flushes = self.host.flushes
        self.word(PATE_ADDRESS, PATE_DW0)
        self.word(PATE_ADDRESS + 8, PATE_DW1)
        self.word(ROOT_ENTRY, TO_PUD)
        self.word(PUD_ENTRY, TO_PMD)
        self.word(PMD_ENTRY, TO_PTE)
        self.leaf(LEAF_64K)

    def word(self, gpa: int, value: int) -> None:
        """Store a big-endian doubleword in L1's memory."""
        self.memory.write(gpa + GPA_TO_HPA, struct.pack(">Q", value))

    def read_word(self, gpa: int) -> int:
        """Return a big-endian doubleword of L1's memory."""
        return int(struct.unpack(">Q", self.memory.read(gpa + GPA_TO_HPA, 8))[0])

    def leaf(self, entry: int, size: str = "64K") -> None:
        """Give L1's tree a leaf for N, of one of the sizes that POWER9 has."""
        self.word(PUD_ENTRY, entry if size == "1G" else TO_PMD)
        if size != "1G":
            tables = {"2M": entry, "64K": TO_PTE, "4K": TO_PTE_4K}
            self.word(PMD_ENTRY, tables[size])
        if size == "64K":
            self.word(PTE_ENTRY, entry)
        if size == "4K":
            self.word(PTE_ENTRY_4K, entry)

    def _words(self, root: int, address: int) -> list[tuple[int, int]]:
        """Walk a tree of the host by hand: (address of the entry, entry), root first."""
        remaining, base, bits, seen = 52, root, 13, []
        while True:
            remaining -= bits
            at = base + (address >> remaining & (1 << bits) - 1) * 8
            entry = int(struct.unpack(">Q", self.memory.read(at, 8))[0])
            seen.append((at, entry))
            if not entry >> 63 or entry >> 62 & 1:
                return [*seen, (remaining, 0)]
            base, bits = entry & 0x0FFFFFFFFFFFFF00, entry & 0x1F

    def shadow(self, address: int = N) -> tuple[int, int] | None:
        """Return (entry, page shift) of the shadow's leaf for an address of L2, or None."""
        *seen, (shift, _) = self._words(self.nested.tree.table.root.base, address)
        entry = seen[-1][1]
        return (entry, shift) if entry >> 62 == 3 else None

    def l0_leaf(self, gpa: int) -> tuple[int, int] | None:
        """Return (entry, page shift) of L0's leaf for an address of L1, or None."""
        *seen, (shift, _) = self._words(self.guest.table.table.root.base, gpa)
        entry = seen[-1][1]
        return (entry, shift) if entry >> 62 == 3 else None

    def plant(self, editor, address: int, entry: int, shift: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Put a leaf into a table of L0's, the tables above it made by the editor, the leaf itself by a raw word."""
        depth = editor.shifts.index(shift)
        spares = editor.prepare(address, depth)
        editor.insert(address >> shift << shift, entry, depth, spares)
        editor.release(spares)

    def plant_l0(self, gpa: int, entry: int, shift: int = 16) -> None:
        """Put a leaf into L0's table for L1."""
        self.plant(self.guest.table, gpa, entry, shift)

    def plant_shadow(self, address: int, entry: int, shift: int = 16) -> None:
        """Put a leaf into the shadow."""
        self.plant(self.nested.shadow, address, entry, shift)

    def load(self, dsisr: int = NOHPTE, asdr: int = ASDR, hdar: int = HDAR) -> HvExit:
        """Return the exit of a load of N."""
        return HvExit(0xE00, MSR, hdar, dsisr, asdr, PC)

    def store(self, dsisr: int = NOHPTE | ISSTORE, asdr: int = ASDR, hdar: int = HDAR) -> HvExit:
        """Return the exit of a store to N."""
        return HvExit(0xE00, MSR, hdar, dsisr, asdr, PC)

    def fetch(self, msr: int = HSRR1_FETCH) -> HvExit:
        """Return the exit of a fetch from N; the instruction's address has N's low bits."""
        dsisr = msr & 0x582E0000 | (ISSTORE if msr & 0x10000 else 0)
        return HvExit(0xE20, msr, PC, dsisr, ASDR, PC)

    def handle(self, record: HvExit) -> Outcome:
        """Handle an exit to the end."""
        return self.handle_exit(decode(record))

    def handle_exit(self, exit_: Exit) -> Outcome:
        """Handle a decoded exit to the end."""
        return finish(self.handler.handle(self.nested, exit_))

    def flush_log(self) -> list[tuple[int, str, int, int]]:
        """Return the emitted flushes: (tag, kind, address, page shift)."""
        return [(int(one.tag), one.kind.value, one.address, one.page_shift) for one in self.flushes]

    def rmap(self, frame: int) -> list[tuple[int, int]]:
        """Return the reverse map of a frame of L1: (LPID of L1's, address in L2), newest first."""
        return [(int(entry.tag), entry.address) for entry in self.guest.rmap.entries(frame)]
