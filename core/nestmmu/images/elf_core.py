"""Memory in ELF core files, as ``dump-guest-memory`` of QEMU writes them (``pip install nestmmu[elf]``).

A segment (PT_LOAD) says where a piece of the file is in the machine's memory: ``p_paddr``. The registers that such a
file has are those of threads, not those that lead to page tables; these have to be given.
"""

from __future__ import annotations

import importlib
import itertools
from typing import TYPE_CHECKING, Any

import attrs

from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.errors import InputError
from nestmmu.images.documents import open_regular, quoted
from nestmmu.images.file_memory import MemoryFile, Segment

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from nestmmu.memory import ByteOrder

ELF_MAGIC = b"\x7fELF"
SEGMENT_LIMIT = 1 << 16
"""How many program headers a file may have."""
_DUMP = "dump the guest's memory again, without compression (`dump-guest-memory FILE`)"


@attrs.frozen
class ElfCore:
    """An ELF core file."""

    machine: str
    """What it calls its architecture: the name of an ``e_machine``, as ``EM_PPC64``."""
    byteorder: ByteOrder
    """Of the file's own headers."""
    memory: MemoryFile


def _elftools(path: Path) -> Any:  # noqa: ANN401  (a module that may not be there)
    try:
        return importlib.import_module("elftools.elf.elffile")
    except ImportError:
        remedy = "install nestmmu[elf], or give the memory alone as a raw file"
        raise InputError(path, "", "is an ELF file, and pyelftools is not installed", remedy) from None


def read_elf_core(path: Path) -> ElfCore:
    """Read what an ELF core file says of itself; its memory is mapped, not read.

    Segments of which the file holds only a part (``p_filesz`` less than ``p_memsz``) read as zero in the rest.

    :raises InputError: if it is no such file, is damaged or cut short, or its segments overlap or end beyond 2^64; and
        where pyelftools is not installed.
    """
    module = _elftools(path)
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            return _read(path, file, size, module)
        except InputError:
            raise
        # What pyelftools raises on damaged files is anything that its parser of structures meets.
        except Exception as error:  # noqa: BLE001
            problem = f"is a damaged ELF file: {quoted(str(error) or type(error).__name__)}"
            raise InputError(path, "", problem, "copy it again") from None


def _read(path: Path, file: BinaryIO, size: int, module: Any) -> ElfCore:  # noqa: ANN401
    elf = module.ELFFile(file)
    header = elf.header
    if elf.elfclass != 64:  # noqa: PLR2004  (bits)
        raise InputError(path, "EI_CLASS", "is that of a 32-bit machine", "give the memory of a 64-bit one")
    if header["e_type"] != "ET_CORE":
        raise InputError(path, "e_type", f"is {quoted(header['e_type'])}, no core file", _DUMP)
    count = elf.num_segments()
    if count > SEGMENT_LIMIT or count * 56 > size:
        raise InputError(path, "e_phnum", f"claims {count} program headers", f"give a file of at most {SEGMENT_LIMIT}")
    segments = []
    for index in range(count):
        entry = elf.get_segment(index).header
        if entry["p_type"] == "PT_LOAD" and entry["p_filesz"]:
            segments.append(_segment(path, f"p_paddr[{index}]", entry, size))
    if not segments:
        raise InputError(path, "", "holds no memory: it has no PT_LOAD", _DUMP)
    segments.sort(key=lambda one: one.address)
    for one, other in itertools.pairwise(segments):
        if other.address < one.end:
            problem = f"has two segments with {other.address:#x} in them"
            raise InputError(path, "p_paddr", problem, _DUMP)
    order: ByteOrder = "little" if elf.little_endian else "big"
    return ElfCore(str(header["e_machine"]), order, MemoryFile(path, segments))


def _segment(path: Path, field: str, entry: Any, size: int) -> Segment:  # noqa: ANN401
    """Return a segment, as far as the file has it."""
    address, offset, held, whole = (entry[name] for name in ("p_paddr", "p_offset", "p_filesz", "p_memsz"))
    if offset + held > size:
        problem = f"the segment at {address:#x} has {held} bytes from {offset} on, and the file ends after {size}"
        raise InputError(path, field, problem, "copy it again: it is cut short")
    if held > whole or address + whole > ADDRESS_LIMIT:
        problem = f"the segment at {address:#x} has {held} bytes of {whole}, or ends beyond 2^64"
        raise InputError(path, field, problem, _DUMP)
    return Segment(address, offset, held)
