"""How many table entries a translation reads: section 2.5 of the reference."""

from __future__ import annotations

import struct

from ppc64_fixture import GPA_TO_HPA, HOST_PTCR, PUD, SHADOW_LPID, CountingMemory, Fixture

from nestmmu.access import Access
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.outcomes import Verdict
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF, Registers
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit
from nestmmu_ppc64_radix.formats import POWER9

PATE_WORDS = 2


class Builder:
    """Trees of 4 KiB pages by raw words, in memory that ``offset`` away from its real place."""

    def __init__(self, memory: PhysicalMemory, offset: int, tables: int) -> None:
        self.memory = memory
        self.offset = offset
        self.next = tables

    def word(self, address: int, value: int) -> None:
        self.memory.write(address + self.offset, struct.pack(">Q", value))

    def read(self, address: int) -> int:
        return int(struct.unpack(">Q", self.memory.read(address + self.offset, 8))[0])

    def table(self, size: int = 4096) -> int:
        self.next = -(-self.next // size) * size
        self.next += size
        return self.next - size

    def map(self, root: int, address: int, target: int) -> None:
        base = root
        for shift, bits in ((39, 13), (30, 9), (21, 9)):
            at = base + (address >> shift & (1 << bits) - 1) * 8
            if not self.read(at):
                self.word(at, 1 << 63 | self.table() | 9)
            base = self.read(at) & 0x0FFFFFFFFFFFFF00
        self.word(base + (address >> 12 & 511) * 8, 3 << 62 | target | 0x187)


def map_span(builder: Builder, root: int, start: int, end: int, offset: int) -> None:
    for page in range(start, end, 4096):
        builder.map(root, page, page + offset)


def test_one_scope_reads_4() -> None:
    memory = CountingMemory()
    builder = Builder(memory, 0, 0x100000)
    root = builder.table(1 << 16)
    builder.map(root, 0x5000, 0x9000)
    table = RadixTable(RadixWalker(POWER9, memory, "host", AccessedDirty.IGNORE), Root(root, 13))
    assert table.translate(0x5678, Access.LOAD).output_address == 0x9678
    assert len(memory.loads) == 4


GUEST = 0x4000_0000
GUEST_TABLES, GUEST_END, DATA = 0x100000, 0x130000, 0x800000
PROCESS_TABLE = 0x0300_0000
"""Of the fixture's L2, in L2's memory."""


def two_dimensional(memory: PhysicalMemory) -> Registers:
    """Build a guest with one process that maps 0x5000 to DATA; return the registers of its CPU."""
    guest = Builder(memory, GUEST, GUEST_TABLES)
    process_table, process_root = guest.table(1 << 16), guest.table(1 << 16)
    guest.word(process_table + 16 * 3, 0x4000_0000_0000_00AD | process_root)
    guest.map(process_root, 0x5000, DATA)
    host = Builder(memory, 0, 0x1000_0000)
    partition_table, root = host.table(1 << 16), host.table(1 << 16)
    host.word(partition_table + 16, 0xC000_0000_0000_00AD | root)
    host.word(partition_table + 24, process_table | 4)
    map_span(host, root, GUEST_TABLES, GUEST_END, GUEST)
    host.map(root, DATA, GUEST + DATA)
    return Registers(msr=MSR_SF | MSR_IR | MSR_DR, ptcr=partition_table | 4, lpidr=1, pidr=3)


def test_two_scopes_with_the_process_table_read_29_tn15() -> None:
    memory = CountingMemory()
    cpu = Power9Radix(two_dimensional(memory), memory)
    memory.loads.clear()
    result = cpu.access(Access.LOAD, 0x5678)
    assert isinstance(result, Reached)
    assert result.address == GUEST + DATA + 0x678
    assert len(memory.loads) - PATE_WORDS == (1 + 4) * (4 + 1) + 4 == 29


def test_l2_with_a_shadow_reads_29_again() -> None:
    """L1 maps L2's first GiB in one page, L0 in pages of 64 KiB: so the shadow's walks have four levels."""
    memory = CountingMemory()
    nest = Fixture(memory=memory)
    nest.word(PUD, 3 << 62 | GUEST | 0x187)
    process = Builder(memory, GPA_TO_HPA + GUEST, PROCESS_TABLE + 0x10000)
    process_root = process.table(1 << 16)
    process.word(PROCESS_TABLE + 16 * 3, 0x4000_0000_0000_00AD | process_root)
    process.map(process_root, 0x5000, DATA)
    nest.host.update_ptbl_cache(nest.guest, nest.nested)  # as L2's entry does
    registers = Registers(msr=MSR_SF | MSR_IR | MSR_DR, ptcr=HOST_PTCR, lpidr=SHADOW_LPID, pidr=3)
    cpu = Power9Radix(registers, memory)
    faults = 0
    while isinstance(result := cpu.access(Access.LOAD, 0x5678), Interrupt):
        assert nest.handle(HvExit.from_interrupt(result)).verdict is Verdict.RESUME
        faults += 1
    assert result.address == GPA_TO_HPA + GUEST + DATA + 0x678
    assert faults == 4  # one for each page of 64 KiB: the process table, the root, the tables after it, the data
    memory.loads.clear()
    cpu.access(Access.LOAD, 0x5678)
    assert len(memory.loads) - PATE_WORDS == (1 + 4) * (4 + 1) + 4 == 29


def test_l2_without_a_shadow_reads_149() -> None:
    """L2's CPU works on L1's memory, whose every word L0's table for L1 finds: 5 * 25 + 24 reads."""
    below = 0x40_0000_0000
    memory = CountingMemory()
    l1 = PhysicalMemory()
    registers = two_dimensional(l1)
    for number in l1.frame_numbers():
        memory.write((number << 12) + below, l1.read(number << 12, 4096))
    host = Builder(memory, 0, 0x80_0000_0000)
    root = host.table(1 << 16)
    for number in l1.frame_numbers():
        host.map(root, number << 12, (number << 12) + below)
    host.map(root, GUEST + DATA, GUEST + DATA + below)
    l0_table = RadixTable(RadixWalker(POWER9, memory, "L0's table for L1"), Root(root, 13))
    l1_memory = TranslatedMemory(memory, l0_table, "L1 real")
    cpu = Power9Radix(registers, l1_memory)
    memory.loads.clear()
    result = cpu.access(Access.LOAD, 0x5678)
    assert isinstance(result, Reached)
    # The CPU's answer is L1 real; what it reaches in L0 takes the last four reads of 24.
    final = l0_table.translate(result.address, Access.LOAD)
    assert final.output_address == GUEST + DATA + 0x678 + below
    pate_reads = PATE_WORDS * 5
    assert len(memory.loads) - pate_reads == 5 * 25 + 24 == 149
