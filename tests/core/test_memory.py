"""Memory: sparse, by byte order, poisoned, journaled, and seen through a table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import ALL_PERMISSIONS, Access
from nestmmu.errors import CycleError, OutsideMemoryError, PoisonedError
from nestmmu.faults import Fault, FaultKind
from nestmmu.mappings import Mapping
from nestmmu.memory import GuestMemory, JournaledMemory, PhysicalMemory, TranslatedMemory


class Shift:
    """A table that adds a number to every address below a limit."""

    granule_shift = 12

    def __init__(self, by: int, limit: int = 1 << 20) -> None:
        self.by = by
        self.limit = limit

    def translate(self, address: int, access: Access) -> Mapping:
        return Mapping(address, self.locate(address, access), 12, ALL_PERMISSIONS, accessed=True, dirty=True)

    def locate(self, address: int, access: Access) -> int:
        if address >= self.limit:
            raise Fault(FaultKind.NOT_PRESENT, "shift", access, address)
        return address + self.by

    def locator(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  (as the protocol has it)
        return self.locate


def test_what_was_never_written_is_zero() -> None:
    memory = PhysicalMemory()
    assert memory.read((1 << 64) - 5, 5) == bytes(5)
    assert memory.load(0x1234, 8, "big") == 0
    assert memory.frame_numbers() == []


@pytest.mark.parametrize(
    ("order", "raw"), [("big", b"\x11\x22\x33\x44\x55\x66\x77\x88"), ("little", b"\x88\x77\x66\x55\x44\x33\x22\x11")]
)
@pytest.mark.parametrize("address", [0x1000, 0x1FFC, 0x1FFF])
def test_each_load_and_store_names_its_byte_order(order: str, raw: bytes, address: int) -> None:
    memory = PhysicalMemory()
    memory.storer(8, order)(address, 0x1122334455667788)  # type: ignore[arg-type]
    assert memory.read(address, 8) == raw
    assert memory.load(address, 8, order) == 0x1122334455667788  # type: ignore[arg-type]
    assert memory.loader(8, order)(address) == 0x1122334455667788  # type: ignore[arg-type]


@given(writes=st.lists(st.tuples(st.integers(0, 0x3100), st.binary(max_size=0x1100)), max_size=6))
def test_memory_is_one_array_of_bytes(writes: list[tuple[int, bytes]]) -> None:
    memory, model = PhysicalMemory(), bytearray(0x5000)
    for address, data in writes:
        memory.write(address, data)
        model[address : address + len(data)] = data
    assert memory.read(0, 0x5000) == bytes(model)


@pytest.mark.parametrize(("address", "size"), [(0xFF9, 8), (0x1000, 1), (-1, 1), (1 << 64, 1)])
def test_outside(address: int, size: int) -> None:
    memory = PhysicalMemory(0x1000)
    with pytest.raises(OutsideMemoryError):
        memory.read(address, size)
    with pytest.raises(OutsideMemoryError):
        memory.write(address, bytes(size))
    with pytest.raises(OutsideMemoryError):
        memory.loader(8, "big")(0x1000)
    assert memory.read(0, 0x1000) == bytes(0x1000)


def test_frames_are_taken_as_they_are() -> None:
    data = np.zeros((2, 4096), np.uint8)
    data[1, 5] = 7
    memory = PhysicalMemory.from_frames(np.array([9, 3], np.uint64), data)
    assert memory.frame_numbers() == [3, 9]
    assert memory.read(3 * 4096 + 5, 1) == b"\x07"
    memory.write(9 * 4096, b"\x01")
    assert data[0, 0] == 1


def test_a_freed_frame_is_poison_until_it_is_cleared() -> None:
    memory = PhysicalMemory()
    memory.write(0x5000, b"\x01")
    load, store = memory.loader(8, "big"), memory.storer(8, "big")
    memory.poison(5)
    for use in (lambda: load(0x5008), lambda: store(0x5008, 1), lambda: memory.read(0x4FFF, 2)):
        with pytest.raises(PoisonedError):
            use()
    memory.clear(5)
    assert memory.read(0x5000, 1) == b"\x00"


def test_a_journal_knows_what_changed_and_goes_back() -> None:
    memory = JournaledMemory()
    memory.store(0x1000, 0x11, 8, "big")
    memory.commit()
    memory.storer(8, "big")(0x1000, 0x22)
    memory.store(0x2008, 0x33, 8, "big")
    memory.write(0x3007, b"\x05")
    memory.store(0x4000, 0x44, 8, "big")
    memory.store(0x4000, 0, 8, "big")
    assert memory.changes(8, "big") == [(0x1000, 0x22), (0x2008, 0x33), (0x3000, 0x05)]
    memory.rollback()
    assert [memory.load(address, 8, "big") for address in (0x1000, 0x2008, 0x3000)] == [0x11, 0, 0]
    assert memory.changes(8, "big") == []


class TestTranslated:
    def test_every_page_is_translated_for_itself(self) -> None:
        class Swap(Shift):
            def locate(self, address: int, access: Access) -> int:
                return super().locate(address ^ 0x1000, access)

        host = PhysicalMemory()
        memory = TranslatedMemory(host, Swap(0), "guest")
        memory.write(0x0FFE, b"abcd")
        assert host.read(0x1FFE, 2) + host.read(0x0000, 2) == b"abcd"
        assert memory.read(0x0FFE, 4) == b"abcd"
        memory.storer(4, "little")(0x10, 0x01020304)
        assert memory.loader(4, "little")(0x10) == 0x01020304
        assert host.load(0x1010, 4, "little") == 0x01020304

    def test_nothing_is_written_where_a_part_does_not_translate(self) -> None:
        host = PhysicalMemory()
        memory = TranslatedMemory(host, Shift(0, 0x2000), "guest")
        with pytest.raises(Fault):
            memory.write(0x1FFE, b"abcd")
        assert host.frame_numbers() == []

    def test_hosts_software_finds_nothing_where_nothing_translates(self) -> None:
        memory = GuestMemory(PhysicalMemory(), Shift(0, 0x2000), "guest")
        with pytest.raises(OutsideMemoryError):
            memory.read(0x2000, 1)

    def test_levels_add_up(self) -> None:
        host = PhysicalMemory()
        first = TranslatedMemory(host, Shift(0x1000), "L1")
        second = TranslatedMemory(first, Shift(0x20000), "L2")
        assert second.locate(0x5, Access.LOAD) == 0x21005
        assert second.physical is host
        assert (first.rank, second.rank) == (1, 2)

    def test_a_cycle_is_named(self) -> None:
        """Each table lies in the memory that the other one translates."""

        class Through(Shift):
            memory: TranslatedMemory

            def locate(self, address: int, access: Access) -> int:
                return self.memory.locate(address, access)

        host = PhysicalMemory()
        one, two = Through(0), Through(0)
        first, second = TranslatedMemory(host, one, "first"), TranslatedMemory(host, two, "second")
        one.memory, two.memory = second, first
        with pytest.raises(CycleError, match="first -> second -> first") as caught:
            first.read(0, 1)
        assert caught.value.names == ("first", "second", "first")
        one.memory = TranslatedMemory(host, Shift(0x7000), "other")
        assert first.locate(1, Access.LOAD) == 0x7001

    def test_a_memory_that_needs_itself_is_named(self) -> None:
        class Itself(Shift):
            memory: TranslatedMemory

            def locate(self, address: int, access: Access) -> int:
                return self.memory.locate(address, access)

        table = Itself(0)
        table.memory = TranslatedMemory(PhysicalMemory(), table, "alone")
        with pytest.raises(CycleError, match="alone -> alone"):
            table.memory.read(0, 1)
