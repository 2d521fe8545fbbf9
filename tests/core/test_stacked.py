"""Memories seen through tables that lie in memories seen through tables: bytes, faults on the way, and cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from nestmmu.access import ALL_PERMISSIONS, Access
from nestmmu.errors import CycleError, OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu.memory import GuestMemory, PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from toy_arch.formats import GRUBBY, LOOK, PAGE, POKE, PRESENT, TOY, USED

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.formats import RadixFormat
    from nestmmu.memory import Memory

LOAD, STORE = Access.LOAD, Access.STORE
PLAIN = PRESENT | PAGE | LOOK | POKE | USED | GRUBBY


@attrs.define
class Pages:
    """A table that is a dict of page numbers; loads and stores alike."""

    pages: dict[int, int]
    granule_shift: int = 12

    def locate(self, address: int, access: Access) -> int:
        number, offset = address >> self.granule_shift, address & (1 << self.granule_shift) - 1
        if number not in self.pages:
            raise Fault(FaultKind.NOT_PRESENT, "pages", access, address)
        return (self.pages[number] << self.granule_shift) + offset

    def translate(self, address: int, access: Access) -> Mapping:
        target = self.locate(address, access)
        return Mapping(address, target, self.granule_shift, ALL_PERMISSIONS, accessed=True, dirty=True)

    def locator(self) -> Callable[[int, Access], int]:
        return self.locate


def toy_table(memory: Memory, base: int = 0, form: RadixFormat = TOY, stage: str = "inner") -> RadixTable:
    bits = form.levels[0].index_bits[0]
    return RadixTable(RadixWalker(form, memory, stage, AccessedDirty.UPDATE), Root(base, bits))


def word(memory: PhysicalMemory, address: int, value: int) -> None:
    memory.write(address, value.to_bytes(4, "little"))


def test_a_parent_with_smaller_pages() -> None:
    machine = PhysicalMemory()
    guest = TranslatedMemory(machine, Pages({16: 0x77, 17: 0x30}, granule_shift=4), "guest")
    nested = TranslatedMemory(guest, Pages({0: 1}, granule_shift=8), "nested")
    nested.write(0xE, b"abcd")
    assert (machine.read(0x77E, 2), machine.read(0x300, 2)) == (b"ab", b"cd")
    assert nested.read(0xE, 4) == b"abcd"
    assert (nested.rank, nested.physical) == (2, machine)


class TestCycles:
    """A memory that is read through a table which lies in that memory."""

    def test_of_one(self) -> None:
        memory = TranslatedMemory(PhysicalMemory(), Pages({}), "A")
        memory.table = toy_table(memory)
        with pytest.raises(CycleError, match="A -> A") as caught:
            memory.read(0, 1)
        assert caught.value.names == ("A", "A")

    def test_of_two_from_either_and_from_a_third(self) -> None:
        machine = PhysicalMemory()
        one, two = TranslatedMemory(machine, Pages({}), "A"), TranslatedMemory(machine, Pages({}), "B")
        one.table, two.table = toy_table(two), toy_table(one)
        three = TranslatedMemory(machine, toy_table(one), "C")
        for memory, names in ((one, ("A", "B", "A")), (two, ("B", "A", "B")), (three, ("A", "B", "A"))):
            with pytest.raises(CycleError) as caught:
                memory.load(0, 4, "little")
            assert caught.value.names == names

    def test_of_a_parent(self) -> None:
        """B lies in A, and A is read through a table that lies in B."""
        one = TranslatedMemory(PhysicalMemory(), Pages({}), "A")
        two = TranslatedMemory(one, Pages({0: 0}), "B")
        one.table = toy_table(two)
        with pytest.raises(CycleError) as caught:
            two.read(0, 1)
        assert caught.value.names == ("B", "A", "B")

    def test_of_leaves(self) -> None:
        memory = TranslatedMemory(PhysicalMemory(), Pages({}), "A")
        memory.table = toy_table(memory)
        with pytest.raises(CycleError):
            list(toy_table(memory).leaves())

    def test_afterwards_the_memory_can_be_used(self) -> None:
        machine = PhysicalMemory()
        memory = TranslatedMemory(machine, Pages({}), "A")
        memory.table = toy_table(memory)
        with pytest.raises(CycleError):
            memory.read(0, 1)
        memory.table = Pages({0: 1})
        machine.write(0x1000, b"k")
        with pytest.raises(Fault):
            memory.read(0x1000, 1)
        assert memory.read(0, 1) == b"k"

    def test_a_table_may_map_its_own_page(self) -> None:
        """The table lies in the machine's memory; that the guest sees it too is no cycle."""
        machine = PhysicalMemory()
        word(machine, 0, PLAIN)
        guest = TranslatedMemory(machine, toy_table(machine), "guest")
        assert guest.load(0, 4, "little") == PLAIN
        assert guest.locator()(8, STORE) == 8


class TestTablesOfAGuest:
    """A guest's table at 0x40 of its memory, which the host's table at 0x800 maps to the machine's 0x1000 and on."""

    def build(self, *, host_flags: int = PLAIN, form: RadixFormat = TOY) -> tuple[PhysicalMemory, RadixTable]:
        machine = PhysicalMemory(1 << 16)
        for index in range(3):
            word(machine, 0x800 + 4 * index, host_flags | 0x1000 + 64 * index)
        guest = TranslatedMemory(machine, toy_table(machine, 0x800, stage="outer"), "guest")
        word(machine, 0x1040 + 4, PRESENT | 0x60)
        word(machine, 0x1060 + 8, PLAIN | 0x90)
        return machine, toy_table(guest, 0x40, form)

    def test_a_walk_in_two_dimensions(self) -> None:
        machine, table = self.build()
        found = table.translate(0x6A, STORE)
        assert (found.output_address, found.page_shift, found.entry_address) == (0x9A, 4, 0x68)
        guest = table.walker.memory
        nested = TranslatedMemory(guest, table, "nested")
        assert nested.locate(0x6A, LOAD) == 0x109A
        nested.write(0x6A, b"here")
        assert machine.read(0x109A, 4) == b"here"

    def test_flags_are_stored_where_the_entry_really_is(self) -> None:
        machine, table = self.build()
        word(machine, 0x1060 + 8, PRESENT | PAGE | LOOK | POKE | 0x90)
        table.translate(0x6A, LOAD)
        assert machine.load(0x1068, 4, "little") == PRESENT | PAGE | LOOK | POKE | USED | 0x90
        table.translate(0x6A, STORE)
        assert machine.load(0x1068, 4, "little") == PLAIN | 0x90
        assert machine.load(0x68, 4, "little") == 0

    @pytest.mark.parametrize(
        ("below", "kind"),
        [
            (0, FaultKind.NOT_PRESENT),
            (PRESENT | PAGE | POKE | USED | 0x1040, FaultKind.PERMISSION),
            (PLAIN | 0x1050, FaultKind.MALFORMED),
            (PRESENT | 0xFFFF0, FaultKind.UNREADABLE),
        ],
    )
    def test_what_the_host_refuses_is_an_implicit_load_of_the_entry(self, below: int, kind: FaultKind) -> None:
        machine, table = self.build()
        word(machine, 0x1040 + 4, PRESENT | 0x40)
        word(machine, 0x804, below)
        for use in (
            lambda: table.translate(0x6A, STORE),
            lambda: table.lookup(0x6A, STORE),
            lambda: table.locate(0x6A, STORE),
            lambda: list(table.walk(0x6A, STORE)),
        ):
            with pytest.raises(Fault) as caught:
                use()
            fault = caught.value
            # 0x6A is entry 1 of the guest's root, at 0x44; entry 1 of the host's own table does not lead there.
            assert (fault.kind, fault.stage, fault.implicit) == (kind, "outer", True)
            assert (fault.access, fault.input_address) == (LOAD, 0x44)

    def test_the_fault_of_the_last_step_is_not_implicit(self) -> None:
        """The page itself is not the guest's table: who translates it for the program sees an ordinary fault."""
        machine, table = self.build()
        word(machine, 0x1060 + 8, PLAIN | 0xC0)
        nested = TranslatedMemory(table.walker.memory, table, "nested")
        with pytest.raises(Fault) as caught:
            nested.locate(0x6A, STORE)
        fault = caught.value
        assert (fault.kind, fault.stage, fault.implicit) == (FaultKind.NOT_PRESENT, "outer", False)
        assert (fault.access, fault.input_address) == (STORE, 0xCA)

    def test_to_software_a_table_outside_is_unreadable(self) -> None:
        machine, _ = self.build()
        guest = GuestMemory(machine, toy_table(machine, 0x800, stage="outer"), "guest")
        table = toy_table(guest, 0x40)
        word(machine, 0x1044, PRESENT | 0xC0)
        with pytest.raises(Fault) as caught:
            table.lookup(0x6A, STORE)
        fault = caught.value
        assert (fault.kind, fault.stage, fault.level, fault.entry_address) == (
            FaultKind.UNREADABLE, "inner", 1, 0xC8,
        )  # fmt: skip
        assert (fault.access, fault.input_address, fault.implicit) == (STORE, 0x6A, False)
        with pytest.raises(OutsideMemoryError):
            guest.read(0xC8, 4)

    @pytest.mark.parametrize("late", [False, True])
    def test_an_illegal_width_found_late(self, *, late: bool) -> None:
        """Its entry would lie where the host maps nothing: hardware that looks there first faults there."""
        wide = attrs.evolve(
            TOY, name="wide", width_mask=8, late_geometry=late,
            levels=(TOY.levels[0], attrs.evolve(TOY.levels[1], index_bits=(8,))),
        )  # fmt: skip
        machine, table = self.build(form=wide)
        word(machine, 0x1044, PRESENT | 0xC0)
        with pytest.raises(Fault) as caught:
            table.lookup(0x6A)
        fault = caught.value
        if late:
            assert (fault.kind, fault.stage, fault.implicit) == (FaultKind.NOT_PRESENT, "outer", True)
            assert fault.input_address == 0xC0
        else:
            assert (fault.kind, fault.stage, fault.implicit) == (FaultKind.MALFORMED, "inner", False)
