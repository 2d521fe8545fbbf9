"""A walk by hand: words that were put together from the figures of the manual."""

from __future__ import annotations

from nestmmu.access import Access
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.plugins import Plugins


def test_a_walk_by_hand() -> None:
    memory = PhysicalMemory(1 << 34)
    # VPN[1] = 1, VPN[0] = 3, offset 0x456: 1 << 22 | 3 << 12 | 0x456
    address = 0x0040_3456
    memory.store(0x8000_0000 + 4 * 1, 0x80002 << 10 | 0b1, 4, "little")
    memory.store(0x8000_2000 + 4 * 3, 0x3ABCDE << 10 | 0b1_0011, 4, "little")  # U, R, V
    hart = Plugins().cpu("sv32", {"satp": 1 << 31 | 0x80000}, memory, AccessedDirty.UPDATE)
    assert hart.access(Access.LOAD, address).output_address == 0x3_ABCD_E456
    assert memory.load(0x8000_2000 + 4 * 3, 4, "little") == 0x3ABCDE << 10 | 0b101_0011  # and A
    assert hart.access(Access.STORE, address).cause == 15
    assert hart.access(Access.FETCH, address + (1 << 12)).cause == 12
