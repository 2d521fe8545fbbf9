"""Which addresses of a guest are memory, and what lies behind them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import Access
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.memory import GuestMemory, PhysicalMemory
from nestmmu.slots import HostPage, LinearBacking, Slot, Slots, SlotTranslator, congruent, fits

LOAD, STORE = Access.LOAD, Access.STORE


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0x0FFF, None),
        (0x1000, "low"),
        (0x1FFF, "low"),
        (0x2000, "next"),
        (0x2001, "next"),
        (0x2002, None),
        (0x7FFF, None),
        (0x8000, "high"),
        ((1 << 64) - 1, "high"),
        (-1, None),
    ],
)
def test_find(address: int, name: str | None) -> None:
    slots = Slots(
        (
            Slot(0x8000, (1 << 64) - 0x8000, name="high"),
            Slot(0x1000, 0x1000, name="low"),
            Slot(0x2000, 2, name="next"),
        )
    )
    found = slots.find(address)
    assert (None if found is None else found.name) == name


def test_slots_are_in_order_of_address() -> None:
    slots = Slots((Slot(0x300, 16), Slot(0x100, 16), Slot(0x200, 16)))
    assert [slot.base for slot in slots] == [0x100, 0x200, 0x300]
    slots.remove(Slot(0x200, 16))
    assert [slot.base for slot in slots] == [0x100, 0x300]
    assert slots.find(0x205) is None
    slots.add(Slot(0x1F0, 0x110))
    assert [slot.end for slot in slots] == [0x110, 0x300, 0x310]


def test_no_slots() -> None:
    assert Slots().find(0) is None
    assert list(Slots()) == []


@pytest.mark.parametrize(
    "slot",
    [
        Slot(0x100, 0),
        Slot(0x100, -16),
        Slot(-16, 32),
        Slot(1 << 64, 1),
        Slot((1 << 64) - 1, 2),
        Slot(0x1F0, 0x11),
        Slot(0x2FF, 1),
        Slot(0x210, 0x10),
        Slot(0x200, 0x100),
        Slot(0x100, 0x300),
    ],
)
def test_what_is_no_range_or_overlaps_is_refused(slot: Slot) -> None:
    slots = Slots((Slot(0x200, 0x100),))
    with pytest.raises(NestmmuError):
        slots.add(slot)
    assert list(slots) == [Slot(0x200, 0x100)]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=12), st.integers(-2, 80))
def test_slots_are_ranges_that_do_not_overlap(ranges: list[tuple[int, int]], address: int) -> None:
    slots, taken = Slots(), dict[int, int]()
    for base, size in ranges:
        covered = range(base, base + size)
        if any(byte in taken for byte in covered):
            with pytest.raises(NestmmuError):
                slots.add(Slot(base, size))
        else:
            slots.add(Slot(base, size))
            taken.update(dict.fromkeys(covered, base))
    found = slots.find(address)
    assert (None if found is None else found.base) == taken.get(address)


@pytest.mark.parametrize(
    ("address", "shift", "inside"),
    [
        (0x40, 6, True),
        (0x7F, 6, True),
        (0x3F, 6, False),
        (0x30, 4, True),
        (0x2F, 4, False),
        (0xA5, 6, False),
        (0x9F, 5, True),
        (0xA0, 4, True),
        (0xB0, 4, False),
    ],
)
def test_a_page_fits_into_a_slot_or_does_not(address: int, shift: int, inside: bool) -> None:
    """The slot is 0x30 to 0xAF."""
    assert fits(Slot(0x30, 0x80), address, shift) is inside


@pytest.mark.parametrize(
    ("address", "target", "shift", "alike"),
    [(0x45, 0x1045, 12, True), (0x45, 0x1085, 6, True), (0x45, 0x1085, 7, False), (0x45, 0x44, 0, True)],
)
def test_congruent(address: int, target: int, shift: int, alike: bool) -> None:
    assert congruent(address, target, shift) is alike


def test_a_linear_backing() -> None:
    slot = Slot(0, 0x1000)
    assert LinearBacking(0x5000, 6).page(slot, 0x123, write=True) == HostPage(0x5123, 6, writable=True)
    read_only = LinearBacking(0x5000, 4, writable=False)
    assert read_only.page(slot, 0x123, write=False) == HostPage(0x5123, 4, writable=False)
    assert read_only.page(slot, 0x123, write=True) is None


class Holes:
    """A backing without pages at odd sixteens; the others are far apart and in reverse order."""

    def page(self, slot: Slot, address: int, *, write: bool) -> HostPage | None:
        del slot, write
        number, offset = divmod(address, 16)
        return None if number % 2 else HostPage(0x10000 - number * 0x100 + offset, 4)


def test_a_guests_memory_is_found_by_slot_and_backing() -> None:
    slots = Slots((Slot(0, 0x40), Slot(0x40, 0x40, read_only=True)))
    translator = SlotTranslator(slots, Holes(), 4)
    assert translator.locate(0x25, STORE) == translator.locator()(0x25, LOAD) == 0xFE05
    assert translator.locate(0x45, LOAD) == 0xFC05
    for address, access in ((0x45, STORE), (0x80, LOAD), (0x15, LOAD)):
        with pytest.raises(OutsideMemoryError) as caught:
            translator.locate(address, access)
        assert caught.value.address == address
    found = translator.translate(0x25, LOAD)
    assert (found.input_address, found.output_address, found.page_shift) == (0x25, 0xFE05, 4)


def test_memory_behind_slots_is_read_page_by_page() -> None:
    class Apart:
        def page(self, slot: Slot, address: int, *, write: bool) -> HostPage:
            del slot, write
            return HostPage(address * 16 - address % 16 * 15, 4)

    memory = PhysicalMemory()
    guest = GuestMemory(memory, SlotTranslator(Slots((Slot(0, 0x100),)), Apart(), 4), "guest")
    guest.write(0x1E, b"abcd")
    # Page 1 is at 0x100, page 2 at 0x200.
    assert (memory.read(0x10E, 3), memory.read(0x1FF, 4)) == (b"ab\0", b"\0cd\0")
    assert guest.read(0x1D, 6) == b"\0abcd\0"
