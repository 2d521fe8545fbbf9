"""Entries: bit 0 present, bit 1 page, bit 2 forbidden, bits 4 to 23 address, and flags above."""

from __future__ import annotations

import attrs

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import Level, Match, RadixFormat

PRESENT, PAGE = 1, 2
LOOK, POKE, RUN = 1 << 24, 1 << 25, 1 << 26
GRUBBY, USED = 1 << 28, 1 << 29
GLITTER = 1 << 30
FORBIDDEN = 4
ADDRESS = 0x00FFFFF0
LARGE_SHIFT, SMALL_SHIFT = 6, 4
WIDTHS = (2, 2)

TOY = RadixFormat(
    name="toy",
    input_bits=8,
    levels=(
        Level("upper", (2,), Match(PAGE, PAGE)),
        Level("lower", (2,), Match(PAGE, PAGE), may_table=False),
    ),
    entry_bytes=4,
    byteorder="little",
    valid=Match(PRESENT, PRESENT),
    output_mask=ADDRESS,
    table_mask=ADDRESS,
    permissions=((Match(LOOK, LOOK), READ), (Match(POKE, POKE), WRITE), (Match(RUN, RUN), EXECUTE)),
    accessed=USED,
    dirty=GRUBBY,
    attributes=GLITTER,
    reserved=(Match(FORBIDDEN, FORBIDDEN),),
)

WIDE_WIDTHS = (4, 4, 4)

WIDE = attrs.evolve(
    TOY,
    name="wide toy",
    input_bits=24,
    levels=(
        Level("top", (4,), Match(PAGE, PAGE)),
        Level("upper", (4,), Match(PAGE, PAGE)),
        Level("lower", (4,), Match(PAGE, PAGE), may_table=False),
    ),
)
"""The toy's entries on three levels, with pages of 1 MiB, 64 KiB and 4 KiB: room for hypervisors upon hypervisors."""
