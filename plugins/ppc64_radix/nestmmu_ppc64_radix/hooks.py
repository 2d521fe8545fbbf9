"""The hooks of the POWER9 radix plugin. What they provide is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from nestmmu.compose import Composer
    from nestmmu.events import Event
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.images import NestImage
    from nestmmu.memory import Memory
    from nestmmu.nests import Nest
    from nestmmu.protocols import Cpu, CpuFactory, Invalidator, Reflector, Replayer, WalkerFactory
    from nestmmu.quirks import QuirkInfo
    from nestmmu.stack import Machine
    from nestmmu.testing import Architecture
    from nestmmu.vectors import Vectors

ARCH = "ppc64_radix"


@hookimpl
def nestmmu_table_formats() -> Sequence[RadixFormat]:
    """Return the format as hardware reads it, and as KVM's software does."""
    from nestmmu_ppc64_radix.formats import KVM_WALK, POWER9  # noqa: PLC0415  (lazy: see the module)

    return [POWER9, KVM_WALK]


@hookimpl
def nestmmu_composer(table_format: RadixFormat, widths: tuple[int, ...]) -> Composer | None:
    """Return KVM's composer."""
    if table_format.name != ARCH:
        return None
    from nestmmu_ppc64_radix.composer import KvmComposer  # noqa: PLC0415  (lazy: see the module)

    return KvmComposer(table_format.shifts(widths)[1:])


@hookimpl
def nestmmu_reflector(arch: str) -> Reflector | None:
    """Return HDSI and HISI, read and written."""
    if arch != ARCH:
        return None
    from nestmmu_ppc64_radix import exits  # noqa: PLC0415  (lazy: see the module)

    return exits


@hookimpl
def nestmmu_invalidator(arch: str) -> Invalidator | None:
    """Return what a tlbie makes the hardware forget."""
    if arch != ARCH:
        return None
    from nestmmu_ppc64_radix import scopes  # noqa: PLC0415  (lazy: see the module)

    return scopes


@hookimpl
def nestmmu_cpu(
    arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty, make_walker: WalkerFactory
) -> Cpu | None:
    """Return a POWER9 CPU that translates by radix."""
    if arch != ARCH:
        return None
    from nestmmu_ppc64_book3s.registers import Registers  # noqa: PLC0415  (lazy: see the module)
    from nestmmu_ppc64_radix.cpu import Power9Radix  # noqa: PLC0415

    return Power9Radix(
        Registers.from_recorded(registers), memory, reference_change=accessed_dirty, make_walker=make_walker
    )


@hookimpl
def nestmmu_nest(image: NestImage) -> Nest | None:
    """Return the levels in an image of a POWER9 radix nest."""
    if image.arch != ARCH:
        return None
    from nestmmu_ppc64_radix.nest import RadixNest  # noqa: PLC0415  (lazy: see the module)

    return RadixNest(image)


@hookimpl
def nestmmu_elf_machines(arch: str) -> Mapping[str, Collection[str]] | None:
    """Return PPC64: a core file is in the byte order of the guest's kernel, the tables in it are big endian."""
    return {"EM_PPC64": {"big", "little"}} if arch == ARCH else None


@hookimpl
def nestmmu_replayer(vectors: Vectors) -> Replayer | None:
    """Return what makes recorded radix translations again."""
    if vectors.arch != ARCH:
        return None
    from nestmmu_ppc64_radix.replay import RadixReplayer  # noqa: PLC0415  (lazy: see the module)

    return RadixReplayer(vectors)


@hookimpl
def nestmmu_machine(
    arch: str,
    make_cpu: CpuFactory,
    announce: Callable[[Event], None],
    faithful: bool,  # noqa: FBT001  (by name only)
) -> Machine | None:
    """Return KVM on KVM."""
    if arch != ARCH:
        return None
    from nestmmu_ppc64_radix.quirks import Quirk  # noqa: PLC0415  (lazy: see the module)
    from nestmmu_ppc64_radix.stack import PowerMachine  # noqa: PLC0415

    return PowerMachine(make_cpu, announce, quirks=Quirk.LINUX_6_1 if faithful else Quirk.NONE)


@hookimpl
def nestmmu_quirks() -> Sequence[QuirkInfo]:
    """Return where Linux 6.1 differs from what is right."""
    from nestmmu_ppc64_radix.quirks import quirk_infos  # noqa: PLC0415  (lazy: see the module)

    return quirk_infos()


@hookimpl
def nestmmu_conformance() -> Mapping[str, Callable[[], type[Architecture]]]:
    """Return the declaration, and that of Linux 6.1 with what is expected to fail."""
    return {ARCH: _declared, f"{ARCH}_linux": _declared_linux}


def _declared() -> type[Architecture]:
    from nestmmu_ppc64_radix.conformance import Ppc64Radix  # noqa: PLC0415  (lazy: see the module)

    return Ppc64Radix


def _declared_linux() -> type[Architecture]:
    from nestmmu_ppc64_radix.conformance import Ppc64RadixLinux  # noqa: PLC0415  (lazy: see the module)

    return Ppc64RadixLinux
