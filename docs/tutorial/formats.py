"""Sv32, as a program in U-mode meets it (RISC-V privileged architecture 1.13, "Supervisor-Level ISA")."""

from __future__ import annotations

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import Level, Match, RadixFormat, Unlike

# part entry
V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
PPN = 0xFFFF_FC00
LEAF = Unlike(R | W | X, 0)
POINTER = R | W | X
# part format
WIDTHS = (10, 10)
SV32 = RadixFormat(
    name="sv32",
    input_bits=32,
    levels=(
        Level("level 1", (10,), LEAF),
        Level("level 0", (10,), LEAF, may_table=False),
    ),
    entry_bytes=4,
    byteorder="little",
    valid=Match(V, V),
    output_mask=PPN,
    table_mask=PPN,
    address_shift=2,
    permissions=((Match(U | R, U | R), READ), (Match(U | W, U | W), WRITE), (Match(U | X, U | X), EXECUTE)),
    accessed=A,
    dirty=D,
    reserved=(
        Match(R | W, W),  # writable and not readable
        *(Match(POINTER | bit, bit) for bit in (D, A, U)),  # no leaf, and a bit that only a leaf has
    ),
)
# part end
