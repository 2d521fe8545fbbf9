"""The hooks of the RISC-V plugin. What they provide is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nestmmu.compose import Composer
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.memory import Memory
    from nestmmu.protocols import Cpu, Invalidator, Reflector, Replayer, WalkerFactory
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
def nestmmu_replayer(vectors: Vectors) -> Replayer | None:
    """Return what makes recorded translations again."""
    if vectors.arch != ARCH:
        return None
    from nestmmu_riscv.replay import RiscvReplayer  # noqa: PLC0415  (lazy: see the module)

    return RiscvReplayer(vectors)
