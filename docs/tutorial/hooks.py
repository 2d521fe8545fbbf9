"""The hooks: what nestmmu asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.memory import Memory
    from nestmmu.protocols import Cpu, WalkerFactory
    from nestmmu.testing import Architecture

ARCH = "sv32"
NESTMMU_API = 1


@hookimpl
def nestmmu_table_formats() -> Sequence[RadixFormat]:
    """Return the table formats."""
    from nestmmu_sv32.formats import SV32

    return [SV32]


@hookimpl
def nestmmu_cpu(
    arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty, make_walker: WalkerFactory
) -> Cpu | None:
    """Return a hart; Svadu is UPDATE, and Svade is FAULT."""
    if arch != ARCH:
        return None
    from nestmmu_sv32.cpu import Hart

    if registers.keys() != {"satp"}:
        message = f"{ARCH} has the register satp, and no other"
        raise ValueError(message)
    return Hart(memory, registers["satp"], accessed_dirty, make_walker)


@hookimpl
def nestmmu_conformance() -> Mapping[str, Callable[[], type[Architecture]]]:
    """Return the declaration for the conformance suite."""
    return {ARCH: _declared}


def _declared() -> type[Architecture]:
    from nestmmu_sv32.conformance import Sv32

    return Sv32
