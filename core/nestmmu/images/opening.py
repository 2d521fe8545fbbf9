"""Images of whatever kind: a nest-image/1, an ELF core file, or raw memory with what describes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from nestmmu.errors import InputError
from nestmmu.images.documents import Field, number, open_regular, quoted, read_json
from nestmmu.images.elf_core import ELF_MAGIC, ElfCore, read_elf_core
from nestmmu.images.nest import DOCUMENT_LIMIT_BYTES, FORMAT, NestImage, image_of, read_nest_image
from nestmmu.images.raw import raw_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from nestmmu.images.file_memory import MemoryFile
    from nestmmu.memory import PhysicalMemory

_MAGIC_BYTES = 8
_OBJECT = re.compile(rb'\s*\{\s*["}]')
_KDUMP = b"KDUMP   "
_SECTIONS = ("l0", "l1", "l2")
_GIVE = "give --describe FILE.json, or --set arch=NAME and the registers"


@attrs.frozen
class Description:
    """What a file of memory does not say itself: the architecture, and the registers that lead to tables."""

    document: Path | None = None
    """JSON with the fields of a nest-image/1 that are not about files; ``slots``, ``also``, ``dropped`` and ``origin``
    may be absent."""
    settings: tuple[str, ...] = ()
    """``NAME=VALUE`` each, as ``l1.page_shift=16``: instead of what the document says, or beside."""
    base: int = 0
    """Where the first byte of a raw file is in the machine's memory, in bytes."""

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self.document is not None or bool(self.settings)


def kind_of(path: Path) -> str:
    """Return what a file is: ``nest-image``, ``elf`` or ``raw``.

    :raises InputError: if it cannot be read, or is memory in a form that is not read.
    """
    with open_regular(path) as file:
        start = file.read(_MAGIC_BYTES)
    if start == _KDUMP:
        problem = "is a compressed kdump"
        raise InputError(path, "", problem, "dump it without compression, as ELF (`dump-guest-memory FILE`)")
    if start.startswith(ELF_MAGIC):
        return "elf"
    document = path.name.endswith((".json", ".json.gz")) or _OBJECT.match(start)
    return "nest-image" if document else "raw"


def open_image(
    path: Path,
    description: Description = Description(),
    machines: Callable[[str], Mapping[str, Collection[str]] | None] | None = None,
) -> NestImage:
    """Open an image of a nest, of whatever kind.

    :param machines: returns the ``e_machine`` names, each with its byte orders, that an architecture's core files may
        have; None for one that does not say.
    :raises InputError: if it cannot be read; if what describes memory is missing, or does not belong to it.
    """
    kind = kind_of(path)
    if kind == "nest-image":
        if description.given or description.base:
            raise InputError(path, "", "is a nest-image/1, which says all itself", "leave out what describes it")
        return read_nest_image(path)
    if not description.given:
        what = "an ELF core file" if kind == "elf" else "raw memory"
        raise InputError(path, "", f"is {what}, or no image at all: it does not say what its registers hold", _GIVE)
    top = _document(path, description)
    memory = _memory_file(path, description.base, top.member("arch").text(), machines)
    return image_of(path, top, memory)


def open_memory(
    path: Path,
    base: int = 0,
    arch: str = "",
    machines: Callable[[str], Mapping[str, Collection[str]] | None] | None = None,
) -> PhysicalMemory:
    """Return the memory in an image of whatever kind.

    :param base: of a raw file, as in :class:`Description`.
    :param arch: the architecture whose memory it is to be.
    :param machines: as of :func:`open_image`.
    :raises InputError: if it cannot be read, or is of another architecture.
    """
    if kind_of(path) == "nest-image":
        return read_nest_image(path).memory()
    return _memory_file(path, base, arch, machines).memory()


def _memory_file(
    path: Path, base: int, arch: str, machines: Callable[[str], Mapping[str, Collection[str]] | None] | None
) -> MemoryFile:
    if kind_of(path) == "raw":
        return raw_memory(path, base)
    if base:
        raise InputError(path, "", "is an ELF file, which says where its memory is", "leave out --base")
    core = read_elf_core(path)
    wanted = None if machines is None or not arch else machines(arch)
    if wanted is not None:
        _check_machine(path, core, arch, wanted)
    return core.memory


def _check_machine(path: Path, core: ElfCore, arch: str, wanted: Mapping[str, Collection[str]]) -> None:
    if core.machine not in wanted:
        problem = f"is {quoted(core.machine)}, where {arch} is {' or '.join(sorted(wanted))}"
        raise InputError(path, "e_machine", problem, "give a core file of that architecture, or name the other")
    if core.byteorder not in wanted[core.machine]:
        problem = f"says {core.byteorder} endian, which {arch} is not"
        raise InputError(path, "EI_DATA", problem, "give a core file of that architecture")


def _document(path: Path, description: Description) -> Field:
    """Return what describes memory, as a document of a nest-image/1 without files."""
    where = path if description.document is None else description.document
    document: dict[str, Any] = {}
    if description.document is not None:
        document = dict(read_json(description.document, DOCUMENT_LIMIT_BYTES).mapping())
    for text in description.settings:
        _set(document, text)
    document.setdefault("origin", f"memory in {path.name}" if path.name.isprintable() else "")
    document.setdefault("l0", None)
    for name in _SECTIONS[1:]:
        document.setdefault(name, {})
    l2 = document["l2"]
    if isinstance(l2, dict):
        document["l2"] = {"slots": [], "also": [], "dropped": []} | l2
    return Field(where, "", document)


def _set(document: dict[str, Any], text: str) -> None:
    """Put one setting into a document."""
    name, sign, value = text.partition("=")
    section, dot, field = name.strip().partition(".")
    known = section in _SECTIONS and field if dot else section in {"arch", "origin"}
    if not sign or not known:
        remedy = "write arch=NAME, or a level's field as l1.page_shift=16"
        raise InputError("--set", "", f"{quoted(text)} names nothing that an image has", remedy)
    if not dot:
        document[section] = value.strip()
        return
    if not isinstance(document.get(section), dict):
        document[section] = {}
    document[section] = document[section] | {field: number(value, "--set", name.strip())}


def document_text(image: NestImage, pages: str, accesses: str) -> str:
    """Return the JSON document of a nest-image/1 that is what an image is.

    :param pages: the name of the file beside it that has the frames.
    :param accesses: the name of the one that has the recorded accesses.
    """
    top = {"format": FORMAT, "arch": image.arch, "origin": image.origin, "pages": pages, "accesses": accesses}
    levels = (("l0", image.l0), ("l1", image.l1), ("l2", image.l2))
    sections = {name: None if level is None else level.field.value for name, level in levels}
    return json.dumps(top | sections, indent=1) + "\n"
