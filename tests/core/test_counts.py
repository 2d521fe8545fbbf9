"""How many words a walk reads: g levels over h levels are (g + 1)(h + 1) - 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nestmmu.access import Access
from nestmmu.faults import Fault, FaultKind
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from toy_arch.formats import LOOK, PAGE, PRESENT, TOY

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.memory import ByteOrder, Memory

TABLES = 0x20
"""In the memory of each level, tables for the level above lie here: 16 bytes for the upper, 64 for the lower ones."""
APART = 0x100
"""L1's memory is the machine's from here on, 256 bytes; a further level has the same memory as L1."""


class CountingMemory(PhysicalMemory):
    """Notes the address of every word that a walk loads."""

    def __init__(self) -> None:
        super().__init__(1 << 24)
        self.loads: list[int] = []

    def loader(self, size: int, byteorder: ByteOrder) -> Callable[[int], int]:
        load = super().loader(size, byteorder)

        def noted(address: int) -> int:
            self.loads.append(address)
            return load(address)

        return noted


def plant(machine: CountingMemory, rank: int, large: int | None = None) -> None:
    """Write the table that maps level ``rank`` + 1 into level ``rank``: the machine's adds APART, L1's nothing.

    :param large: the entry of the upper table that is a page.
    """
    base, target = (TABLES, APART) if rank == 0 else (APART + TABLES, 0)
    for index in range(4):
        entry = PRESENT | TABLES + 16 + 16 * index
        if index == large:
            entry = PRESENT | PAGE | LOOK | target + 64 * index
        machine.write(base + 4 * index, entry.to_bytes(4, "little"))
        for below in range(4):
            page = PRESENT | PAGE | LOOK | target + 64 * index + 16 * below
            machine.write(base + 16 + 16 * index + 4 * below, page.to_bytes(4, "little"))


def table_in(memory: Memory, base: int = TABLES) -> RadixTable:
    return RadixTable(RadixWalker(TOY, memory, f"table in {memory.name}"), Root(base, 2))


def test_one_table_of_two_levels_reads_2_words() -> None:
    machine = CountingMemory()
    plant(machine, 0)
    table = table_in(machine)
    assert table.translate(0xA7, Access.LOAD).output_address == 0x1A7
    # 0xA7 is page 10: entry 2 of the upper table, entry 2 of the third lower one.
    assert machine.loads == [TABLES + 4 * 2, TABLES + 16 + 16 * 2 + 4 * 2]


def test_a_large_page_reads_1_word() -> None:
    machine = CountingMemory()
    plant(machine, 0, large=2)
    assert table_in(machine).translate(0xA7, Access.LOAD).output_address == 0x1A7
    assert machine.loads == [TABLES + 4 * 2]


def test_a_walk_that_ends_at_the_root_reads_1_word() -> None:
    machine = CountingMemory()
    with pytest.raises(Fault) as caught:
        table_in(machine).translate(0xA7, Access.LOAD)
    assert caught.value.kind is FaultKind.NOT_PRESENT
    assert machine.loads == [TABLES + 4 * 2]


@pytest.mark.parametrize(
    ("guest_levels", "host_levels"), [(2, 2), (1, 2), (2, 1), (1, 1)], ids=lambda levels: f"{levels}-levels"
)
def test_two_tables(guest_levels: int, host_levels: int) -> None:
    """A large page spares a level. The host's has to hold both the guest's tables, below 0x80, and its data."""
    machine = CountingMemory()
    plant(machine, 0)
    if host_levels == 1:
        for index in range(4):
            entry = PRESENT | PAGE | LOOK | APART + 64 * index
            machine.write(TABLES + 4 * index, entry.to_bytes(4, "little"))
    plant(machine, 1, large=2 if guest_levels == 1 else None)
    host = table_in(machine)
    inner = TranslatedMemory(machine, host, "L1")
    outer = TranslatedMemory(inner, table_in(inner), "L2")
    assert outer.locate(0xA7, Access.LOAD) == 0x1A7
    assert len(machine.loads) == (guest_levels + 1) * (host_levels + 1) - 1


def test_the_order_of_the_8_reads() -> None:
    machine = CountingMemory()
    plant(machine, 0)
    plant(machine, 1)
    inner = TranslatedMemory(machine, table_in(machine), "L1")
    outer = TranslatedMemory(inner, table_in(inner), "L2")
    outer.locate(0xA7, Access.LOAD)

    def walked(page: int) -> list[int]:
        return [TABLES + 4 * (page >> 2), TABLES + 16 + 4 * page]

    # L1's entries lie at L1's 0x28 (page 2) and 0x58 (page 5), and lead to page 10 of L1.
    upper, lower = TABLES + 4 * 2, TABLES + 16 + 4 * 10
    assert (upper, lower) == (0x28, 0x58)
    assert machine.loads == [*walked(2), APART + upper, *walked(5), APART + lower, *walked(10)]


def test_three_tables_of_two_levels_read_26_words() -> None:
    """(2 + 1) ** 3 - 1. L1 and L2 share one table: at 0x20 of L1's memory it maps each page of L2 to itself."""
    machine = CountingMemory()
    plant(machine, 0)
    plant(machine, 1)
    memory: Memory = machine
    for level in (1, 2, 3):
        memory = TranslatedMemory(memory, table_in(memory), f"L{level}")
    assert memory.locate(0xA7, Access.LOAD) == 0x1A7
    assert len(machine.loads) == 26
