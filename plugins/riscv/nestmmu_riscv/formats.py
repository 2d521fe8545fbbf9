"""Page tables: Sv39, Sv48 and Sv57, and the x4 forms of the G-stage (privileged architecture, "Supervisor")."""

from __future__ import annotations

import functools

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.addresses import low_mask
from nestmmu.formats import InputRule, Level, Match, RadixFormat, Unlike
from nestmmu_riscv.csrs import MODES, SV39, SV48, SV57

V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
RSW_SHIFT = 8
RSW = 0b11 << RSW_SHIFT
"""Software's."""
PPN = low_mask(44) << 10
PBMT = 0b11 << 61
PBMT_NC, PBMT_IO = 1 << 61, 2 << 61
N = 1 << 63
"""Svnapot: the entry is one of 16 that are one page of 64 KiB."""
RESERVED_BITS = range(54, 61)
NAPOT_PPN, NAPOT_64K, NAPOT_LG2 = 0b1111 << 10, 0b1000 << 10, 4

NAMES = {SV39: "sv39", SV48: "sv48", SV57: "sv57"}
_LEVELS = {SV39: 3, SV48: 4, SV57: 5}
_INDEX_BITS = 9
WIDENED = 2
"""More index bits of the G-stage's root: 16 KiB in place of 4."""

_RWX = R | W | X
_LEAF = Unlike(_RWX, 0)
_RIGHTS = ((R, READ), (W, WRITE), (X, EXECUTE))


def _reserved(*, pbmt: bool, napot: bool) -> tuple[Match, ...]:
    single = [1 << bit for bit in RESERVED_BITS]
    if not pbmt:
        single += [PBMT_NC, PBMT_IO]
    if not napot:
        single.append(N)
    matches = [Match(bit, bit) for bit in single]
    matches.append(Match(R | W, W))
    matches.append(Match(PBMT, PBMT))
    matches += [Match(_RWX | bit, bit) for bit in (D, A, U, PBMT_NC, PBMT_IO, N)]
    return tuple(matches)


def _levels(count: int, widened: int) -> tuple[Level, ...]:
    upper = Match(N, N)
    wrong = [Match(N | bit, N | bit) for bit in (1 << 10, 1 << 11, 1 << 12)]
    wrong.append(Match(N | NAPOT_64K, N))
    group = Match(N | NAPOT_PPN, N | NAPOT_64K), NAPOT_LG2
    first = _INDEX_BITS + widened
    above = [
        Level(f"level {number}", (_INDEX_BITS if number < count - 1 else first,), _LEAF, reserved=(upper,))
        for number in range(count - 1, 0, -1)
    ]
    last = Level("level 0", (_INDEX_BITS,), _LEAF, may_table=False, reserved=tuple(wrong), groups=(group,))
    return (*above, last)


@functools.cache
def table_format(mode: int, *, g_stage: bool = False, pbmt: bool = True, napot: bool = True) -> RadixFormat:
    """Return the format of a MODE.

    U is no permission of a VS-stage's or HS-mode's entry: what it means hangs on the mode and on SUM, which the CPU
    looks at. In the G-stage every access counts as one of U-mode, so nothing is permitted without it.

    :param g_stage: the x4 form.
    :param pbmt: whether Svpbmt is enabled for the stage.
    :param napot: whether there is Svnapot.
    :raises KeyError: for a MODE that is not Sv39, Sv48 or Sv57.
    """
    count, widened = _LEVELS[mode], WIDENED if g_stage else 0
    needed = U if g_stage else 0
    name = f"riscv_{NAMES[mode]}{'x4' if g_stage else ''}{'' if pbmt else '_no_pbmt'}{'' if napot else '_no_napot'}"
    return RadixFormat(
        name=name,
        input_bits=12 + _INDEX_BITS * count + widened,
        levels=_levels(count, widened),
        entry_bytes=8,
        byteorder="little",
        valid=Match(V, V),
        output_mask=PPN,
        table_mask=PPN,
        permissions=tuple((Match(bit | needed, bit | needed), right) for bit, right in _RIGHTS),
        accessed=A,
        dirty=D,
        attributes=PBMT if pbmt else 0,
        address_shift=2,
        reserved=_reserved(pbmt=pbmt, napot=napot),
        input_rule=InputRule.ZERO if g_stage else InputRule.SIGN,
    )


def every_format() -> list[RadixFormat]:
    """Return the formats by which a CPU with Svnapot may read a table."""
    return [
        table_format(mode, g_stage=g_stage, pbmt=pbmt)
        for mode in MODES
        for g_stage in (False, True)
        for pbmt in (True, False)
    ]


def root_bits(form: RadixFormat) -> int:
    """Return the index bits of a root table."""
    return form.levels[0].index_bits[0]
