"""The partition table and the process table: PTCR, PATE and PRTE (Power ISA 3.0B, Book III, 5.7.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from nestmmu.memory import Memory

PATE_BYTES = 16
PATE_HR = 1 << 63
"""PATE doubleword 0: the partition's host radix bit."""
PATE_GR = 1 << 63
"""PATE doubleword 1: the kernel sets it for a guest that translates by radix."""
RTS1 = 0x6000000000000000
RTS2 = 0xE0
RTS = RTS1 | RTS2
RPDB = 0x0FFFFFFFFFFFFF00
RPDS = 0x1F
PRTB = 0x0FFFFFFFFFFFF000
PRTS = 0x1F
PATB = 0x0FFFFFFFFFFFF000
PATS = 0x1F
LARGEST_TABLE_FIELD = 24
"""PATS and PRTS above this are refused."""
RTS_52_BITS = 0x4000000000000000 | 0xA0
"""RTS of a tree of 52 bits, in place; the only size that POWER9 has."""
KVM_NESTED_PATS = 4
"""The largest PATS that KVM takes from a guest (12 bits of LPID)."""


@attrs.frozen
class Pate:
    """A partition-table entry, as its two doublewords."""

    dw0: int
    dw1: int

    @property
    def radix(self) -> bool:
        """HR: the partition-scoped table is a radix tree."""
        return bool(self.dw0 & PATE_HR)


def tree_bits(word: int) -> int:
    """Return the address bits that the tree of a root word (PATE or PRTE doubleword 0) translates: RTS + 31."""
    return (word >> 61 & 3) * 8 + (word >> 5 & 7) + 31


def radix_root(word: int) -> tuple[int, int]:
    """Return (RPDB in bytes, RPDS in index bits) of a root word."""
    return word & RPDB, word & RPDS


def root_word(base: int, bits: int = 13) -> int:
    """Return the root word of a radix tree of 52 bits whose root directory lies at ``base``."""
    return RTS_52_BITS | base | bits


def table_bytes(word: int) -> int:
    """Return the bytes of the table that a PTCR or a PATE doubleword 1 describes: 2**(PATS + 12)."""
    return 1 << (word & PATS) + 12


def pate_address(ptcr: int, index: int) -> int | None:
    """Return where the PATE of ``index`` (an LPID) lies, in bytes; None beyond the table, or if its size is illegal."""
    if ptcr & PATS > LARGEST_TABLE_FIELD or index * PATE_BYTES >= table_bytes(ptcr):
        return None
    return (ptcr & PATB) + index * PATE_BYTES


def read_pair(memory: Memory, address: int) -> tuple[int, int]:
    """Return the two big-endian doublewords at ``address``.

    :raises OutsideMemoryError: or a Fault, if they cannot be read.
    """
    raw = memory.read(address, PATE_BYTES)
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")


def write_pair(memory: Memory, address: int, first: int, second: int) -> None:
    """Store two big-endian doublewords at ``address``."""
    memory.write(address, first.to_bytes(8, "big") + second.to_bytes(8, "big"))
