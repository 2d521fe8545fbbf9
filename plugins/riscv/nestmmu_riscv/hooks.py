"""The hooks of the RISC-V plugin. What they provide is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from nestmmu.compose import Composer
    from nestmmu.events import Event
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.memory import Memory
    from nestmmu.protocols import Cpu, CpuFactory, Invalidator, Reflector, Replayer, WalkerFactory
    from nestmmu.stack import Machine
    from nestmmu.testing import Architecture
    from nestmmu.vectors import Vectors

ARCH = "riscv"


@hookimpl
def nestmmu_table_formats() -> Sequence[RadixFormat]:
    """Return Sv39, Sv48 and Sv57 and their x4 forms, each with Svpbmt and without."""
    from nestmmu_riscv.formats import every_format  # noqa: PLC0415  (lazy: see the module)

    return every_format()


@hookimpl
def nestmmu_composer(table_format: RadixFormat, widths: tuple[int, ...]) -> Composer | None:
    """Return what composes leaves of a shadow in one of the x4 forms."""
    if not table_format.name.startswith(f"{ARCH}_") or "x4" not in table_format.name:
        return None
    from nestmmu_riscv.composer import RiscvComposer  # noqa: PLC0415  (lazy: see the module)

    return RiscvComposer(table_format, widths)


@hookimpl
def nestmmu_reflector(arch: str) -> Reflector | None:
    """Return guest-page faults, read and written."""
    if arch != ARCH:
        return None
    from nestmmu_riscv import exits  # noqa: PLC0415  (lazy: see the module)

    return exits


@hookimpl
def nestmmu_invalidator(arch: str) -> Invalidator | None:
    """Return what a fence makes the hardware forget."""
    if arch != ARCH:
        return None
    from nestmmu_riscv import fences  # noqa: PLC0415  (lazy: see the module)

    return fences


@hookimpl
def nestmmu_cpu(
    arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty, make_walker: WalkerFactory
) -> Cpu | None:
    """Return a hart with Svadu (UPDATE) or without (FAULT)."""
    if arch != ARCH:
        return None
    from nestmmu_riscv.cpu import hart  # noqa: PLC0415  (lazy: see the module)

    return hart(registers, memory, accessed_dirty, make_walker)


@hookimpl
def nestmmu_elf_machines(arch: str) -> Mapping[str, Collection[str]] | None:
    """Return RISC-V, little endian."""
    return {"EM_RISCV": {"little"}} if arch == ARCH else None


@hookimpl
def nestmmu_replayer(vectors: Vectors) -> Replayer | None:
    """Return what makes recorded translations again."""
    if vectors.arch != ARCH:
        return None
    from nestmmu_riscv.replay import RiscvReplayer  # noqa: PLC0415  (lazy: see the module)

    return RiscvReplayer(vectors)


@hookimpl
def nestmmu_machine(
    arch: str,
    make_cpu: CpuFactory,
    announce: Callable[[Event], None],
    faithful: bool,  # noqa: ARG001, FBT001  (no kernel is modelled, so none's mistakes; by name only)
) -> Machine | None:
    """Return hypervisors in HS-mode upon each other, on harts with Svadu."""
    if arch != ARCH:
        return None
    from nestmmu_riscv.stack import RiscvMachine  # noqa: PLC0415  (lazy: see the module)

    return RiscvMachine(make_cpu, announce)


@hookimpl
def nestmmu_conformance() -> Mapping[str, Callable[[], type[Architecture]]]:
    """Return the declarations: Sv39x4, Sv48x4 and Sv57x4 with a nest each, one with Svadu, and Sv39 of S-mode."""
    return {
        ARCH: _sv39x4, f"{ARCH}_svadu": _svadu, f"{ARCH}_sv39": _sv39, f"{ARCH}_sv48x4": _sv48x4,
        f"{ARCH}_sv57x4": _sv57x4,
    }  # fmt: skip


def _svadu() -> type[Architecture]:
    from nestmmu_riscv.conformance import RiscvSvadu  # noqa: PLC0415  (lazy: see the module)

    return RiscvSvadu


def _sv39x4() -> type[Architecture]:
    from nestmmu_riscv.conformance import RiscvSv39x4  # noqa: PLC0415  (lazy: see the module)

    return RiscvSv39x4


def _sv39() -> type[Architecture]:
    from nestmmu_riscv.conformance import RiscvSv39  # noqa: PLC0415  (lazy: see the module)

    return RiscvSv39


def _sv48x4() -> type[Architecture]:
    from nestmmu_riscv.conformance import RiscvSv48x4  # noqa: PLC0415  (lazy: see the module)

    return RiscvSv48x4


def _sv57x4() -> type[Architecture]:
    from nestmmu_riscv.conformance import RiscvSv57x4  # noqa: PLC0415  (lazy: see the module)

    return RiscvSv57x4
