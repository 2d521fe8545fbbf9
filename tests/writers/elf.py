"""ELF core files, written word by word (System V ABI, "Object files"; PN_XNUM: Linux's elf.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINES = {"EM_PPC64": 21, "EM_X86_64": 62, "EM_AARCH64": 183, "EM_RISCV": 243, "EM_386": 3}
ET_EXEC, ET_CORE = 2, 4
PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF
HEADER_BYTES, ENTRY_BYTES, SECTION_BYTES = 64, 56, 64


def elf_core(
    segments: Sequence[tuple[int, bytes] | tuple[int, bytes, int]],
    machine: str = "EM_PPC64",
    order: Literal["big", "little"] = "big",
    *,
    kind: int = ET_CORE,
    width: int = 2,
    extended: bool = False,
    note: bytes = b"\0" * 20,
) -> bytes:
    """Return a core file of segments: (physical address, bytes in the file, bytes in memory).

    :param width: EI_CLASS: 1 for 32 bits, 2 for 64.
    :param extended: whether the number of program headers stands in section 0.
    """
    mark = ">" if order == "big" else "<"
    count = len(segments) + 1
    table = HEADER_BYTES
    sections = table + count * ENTRY_BYTES
    at = sections + (SECTION_BYTES if extended else 0)
    entries = [struct.pack(mark + "IIQQQQQQ", PT_NOTE, 0, at, 0, 0, len(note), len(note), 0)]
    parts, end = [note], at + len(note)
    for address, data, *whole in segments:
        size = whole[0] if whole else len(data)
        entries.append(struct.pack(mark + "IIQQQQQQ", PT_LOAD, 7, end, 0, address, len(data), size, 0))
        parts.append(data)
        end += len(data)
    identity = b"\x7fELF" + bytes([width, 2 if order == "big" else 1, 1, 0]) + bytes(8)
    header = identity + struct.pack(
        mark + "HHIQQQIHHHHHH",
        kind, MACHINES[machine], 1, 0, table, sections if extended else 0, 0,
        HEADER_BYTES, ENTRY_BYTES, PN_XNUM if extended else count, SECTION_BYTES, 1 if extended else 0, 0,
    )  # fmt: skip
    zero = struct.pack(mark + "IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, count, 0, 0) if extended else b""
    return header + b"".join([*entries, zero, *parts])
