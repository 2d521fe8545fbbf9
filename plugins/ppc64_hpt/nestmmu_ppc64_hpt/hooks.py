"""The hooks of the POWER9 hash plugin. What they provide is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from nestmmu.formats import AccessedDirty
    from nestmmu.memory import Memory
    from nestmmu.protocols import Cpu, Replayer
    from nestmmu.testing import Architecture
    from nestmmu.vectors import Vectors

ARCH = "ppc64_hpt"


@hookimpl
def nestmmu_cpu(arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty) -> Cpu | None:
    """Return a POWER9 CPU that translates by hash; its segments are written with ``cpu.slb``."""
    if arch != ARCH:
        return None
    from nestmmu_ppc64_book3s.registers import Registers  # noqa: PLC0415  (lazy: see the module)
    from nestmmu_ppc64_hpt.cpu import Power9Hash  # noqa: PLC0415

    return Power9Hash(Registers.from_recorded(registers), memory, reference_change=accessed_dirty)


@hookimpl
def nestmmu_elf_machines(arch: str) -> Mapping[str, Collection[str]] | None:
    """Return PPC64: a core file is in the byte order of the guest's kernel, the tables in it are big endian."""
    return {"EM_PPC64": {"big", "little"}} if arch == ARCH else None


@hookimpl
def nestmmu_replayer(vectors: Vectors) -> Replayer | None:
    """Return what makes recorded hash translations again."""
    if vectors.arch != ARCH:
        return None
    from nestmmu_ppc64_hpt.replay import HashReplayer  # noqa: PLC0415  (lazy: see the module)

    return HashReplayer(vectors)


@hookimpl
def nestmmu_conformance() -> Mapping[str, Callable[[], type[Architecture]]]:
    """Return the declarations: of segments of 1 TiB, and of 256 MiB."""
    return {ARCH: _segments_1t, f"{ARCH}_256m": _segments_256m}


def _segments_1t() -> type[Architecture]:
    from nestmmu_ppc64_hpt.conformance import Ppc64Hpt  # noqa: PLC0415  (lazy: see the module)

    return Ppc64Hpt


def _segments_256m() -> type[Architecture]:
    from nestmmu_ppc64_hpt.conformance import Ppc64Hpt256M  # noqa: PLC0415  (lazy: see the module)

    return Ppc64Hpt256M
