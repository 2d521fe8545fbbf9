"""Pages for tables: zeroed, aligned, and poison once they are freed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.allocator import PageAllocator
from nestmmu.errors import OutOfPagesError, PoisonedError
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from toy_arch.formats import TOY


def test_pages_are_zeroed_even_over_what_was_there() -> None:
    memory = PhysicalMemory()
    memory.write(0x10000, b"\xff" * 0x2000)
    page = PageAllocator(memory, 0x10000, 0x20000).allocate(4096)
    assert page == 0x10000
    assert memory.read(page, 4096) == bytes(4096)
    assert memory.read(page + 4096, 1) == b"\xff"


@pytest.mark.parametrize(
    ("base", "sizes", "addresses"),
    [
        (0x10000, (16, 16, 32), [0x10000, 0x11000, 0x12000]),
        (0x10010, (16,), [0x11000]),
        (0x11000, (4096, 65536, 4096), [0x11000, 0x20000, 0x30000]),
        (0, (8192, 4096), [0, 0x2000]),
    ],
)
def test_each_page_has_frames_of_its_own_and_is_aligned_to_its_size(
    base: int, sizes: tuple[int, ...], addresses: list[int]
) -> None:
    allocator = PageAllocator(PhysicalMemory(), base, 0x100000)
    assert [allocator.allocate(size) for size in sizes] == addresses
    assert allocator.used == {at: max(size, 4096) for at, size in zip(addresses, sizes, strict=True)}


@pytest.mark.parametrize(("limit", "size"), [(0x10FFF, 16), (0x11FFF, 8192), (0x10000, 4096)])
def test_a_full_region(limit: int, size: int) -> None:
    allocator = PageAllocator(PhysicalMemory(), 0x10000, limit)
    with pytest.raises(OutOfPagesError):
        allocator.allocate(size)
    assert allocator.used == {}


def test_the_last_page_of_a_region_and_no_more() -> None:
    allocator = PageAllocator(PhysicalMemory(), 0x10000, 0x12000)
    assert [allocator.allocate(4096) for _ in range(2)] == [0x10000, 0x11000]
    with pytest.raises(OutOfPagesError):
        allocator.allocate(4096)
    allocator.free(0x10000)
    assert allocator.allocate(16) == 0x10000


def test_a_freed_page_is_poison_in_every_frame() -> None:
    memory = PhysicalMemory()
    allocator = PageAllocator(memory, 0x10000, 0x20000)
    page = allocator.allocate(8192)
    allocator.free(page)
    assert allocator.used == {}
    for address in (page, page + 8191):
        with pytest.raises(PoisonedError):
            memory.read(address, 1)
        with pytest.raises(PoisonedError):
            memory.write(address, b"x")
    with pytest.raises(PoisonedError):
        RadixTable(RadixWalker(TOY, memory, "freed"), Root(page, 2)).lookup(0)


def test_a_page_that_is_handed_out_again_is_clean() -> None:
    memory = PhysicalMemory()
    allocator = PageAllocator(memory, 0x10000, 0x20000)
    page = allocator.allocate(4096)
    memory.write(page, b"old")
    allocator.free(page)
    assert allocator.allocate(4096) == page
    assert memory.read(page, 4096) == bytes(4096)


def test_pages_of_another_size_are_not_handed_out() -> None:
    allocator = PageAllocator(PhysicalMemory(), 0x10000, 0x20000)
    large, after = allocator.allocate(8192), allocator.allocate(4096)
    allocator.free(large)
    assert allocator.allocate(4096) == after + 4096
    assert allocator.allocate(8192) == large


@pytest.mark.parametrize("wrong", ["twice", "inside", "never"])
def test_only_what_is_handed_out_is_freed(wrong: str) -> None:
    allocator = PageAllocator(PhysicalMemory(), 0x10000, 0x20000)
    page = allocator.allocate(8192)
    if wrong == "twice":
        allocator.free(page)
    address = {"twice": page, "inside": page + 4096, "never": 0x18000}[wrong]
    with pytest.raises(PoisonedError) as caught:
        allocator.free(address)
    assert caught.value.address == address


def test_pages_of_a_guests_memory_are_poisoned_where_they_really_are() -> None:
    """The guest's second frame is the machine's sixth, through a table with one page of 4096 bytes an entry."""
    machine = PhysicalMemory()
    frames = [0x5000, 0x6000]

    class Frames:
        granule_shift = 12

        def locate(self, address: int, access: object) -> int:
            del access
            return frames[address >> 12] + (address & 0xFFF)

    guest = TranslatedMemory(machine, Frames(), "guest")  # type: ignore[arg-type]
    allocator = PageAllocator(guest, 0x1000, 0x2000)
    machine.write(0x6000, b"old")
    page = allocator.allocate(16)
    assert page == 0x1000
    assert machine.read(0x6000, 3) == bytes(3)
    allocator.free(page)
    with pytest.raises(PoisonedError):
        machine.read(0x6000, 1)
    assert machine.read(0x5000, 1) == b"\0"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([16, 4096, 8192, 16384]), st.integers(0, 30)), max_size=60))
def test_no_two_pages_overlap(steps: list[tuple[bool, int, int]]) -> None:
    allocator = PageAllocator(PhysicalMemory(), 0x3000, 0x20000)
    held: dict[int, int] = {}
    for take, size, which in steps:
        if take:
            try:
                page = allocator.allocate(size)
            except OutOfPagesError:
                continue
            room = max(size, 4096)
            assert page % room == 0
            assert 0x3000 <= page <= 0x20000 - room
            assert all(page + room <= other or other + length <= page for other, length in held.items())
            held[page] = room
        elif held:
            page = sorted(held)[which % len(held)]
            allocator.free(page)
            del held[page]
    assert allocator.used == held
