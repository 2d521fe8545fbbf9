"""The contract between the core and its plugins: every hook, who calls it, and when.

Hooks provide the objects that act, once, when a table or a CPU is made, and announce coarse events. None is called
for a step of a walk: a hook call costs as much as twenty method calls. A plugin may put a cache, a counter or a
fault injector
around any object by a wrapper (pluggy's ``wrapper=True``) of the hook that provides it.

A plugin says by its attribute ``NESTMMU_API`` for which version of these hooks it is written
(:data:`nestmmu.API_VERSION`); another version is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import typer

    from nestmmu.compose import Composer
    from nestmmu.events import Event
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.images import NestImage
    from nestmmu.memory import Memory
    from nestmmu.nests import Nest
    from nestmmu.protocols import Cpu, CpuFactory, Invalidator, Reflector, Replayer, WalkerFactory
    from nestmmu.quirks import QuirkInfo
    from nestmmu.radix import RadixWalker
    from nestmmu.stack import Machine
    from nestmmu.testing import Architecture
    from nestmmu.vectors import Vectors

PROJECT = "nestmmu"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(historic=True)
def nestmmu_table_formats() -> Sequence[RadixFormat] | None:
    """Return the table formats that the plugin knows.

    Called once for each plugin, when it is registered; historic, so late plugins are asked too. All results count.
    A name that another plugin has taken is refused, with both named. Since 0.1.
    """


@hookspec(firstresult=True)
def nestmmu_walker(
    table_format: RadixFormat, memory: Memory, stage: str, accessed_dirty: AccessedDirty
) -> RadixWalker | None:
    """Return what walks tables of ``table_format`` in ``memory``.

    Called when a table or a CPU is made. The first result counts; the core gives the plain engine last. Since 0.1.

    :param stage: what faults and steps are to call the table.
    :param accessed_dirty: what the walker does with accessed and dirty.
    """


@hookspec(firstresult=True)
def nestmmu_composer(table_format: RadixFormat, widths: tuple[int, ...]) -> Composer | None:
    """Return what composes two mappings into a leaf of a shadow table.

    Called when a hypervisor begins to shadow. The first result counts; the core gives the ideal composer last. Since
    0.1.

    :param table_format: the shadow's.
    :param widths: index bits of each of its levels, root first.
    """


@hookspec(firstresult=True)
def nestmmu_reflector(arch: str) -> Reflector | None:
    """Return what reads the architecture's exit registers as a fault, and writes a fault as what its owner sees.

    Called when a hypervisor of that architecture is made. The first result counts. Since 0.1.
    """


@hookspec(firstresult=True)
def nestmmu_invalidator(arch: str) -> Invalidator | None:
    """Return what reads the architecture's invalidation instructions and hypercalls as scopes.

    Called when a hypervisor of that architecture is made. The first result counts. Since 0.1.
    """


@hookspec(firstresult=True)
def nestmmu_cpu(
    arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty, make_walker: WalkerFactory
) -> Cpu | None:
    """Return a CPU of an architecture.

    Called whenever someone wants one. The first result counts.

    :param registers: initial values by lower-case name; others are as after reset.
    :param memory: what the CPU takes for the machine's memory.
    :param accessed_dirty: whether the CPU sets accessed and dirty itself, or faults.
    :param make_walker: what to make walkers with, so that wrappers of ``nestmmu_walker`` reach the CPU's own.
    :raises ValueError: for a register that the architecture does not have.

    Since 0.1.
    """


@hookspec(firstresult=True)
def nestmmu_nest(image: NestImage) -> Nest | None:
    """Return the levels in an image, ready to be run again.

    Called by ``nestmmu run`` and ``nestmmu walk``. The first result counts: a plugin answers for its own
    ``image.arch`` alone.

    :raises ~nestmmu.errors.InputError: naming the field of the image that cannot be.

    Since 0.1.
    """


@hookspec(firstresult=True)
def nestmmu_elf_machines(arch: str) -> Mapping[str, Collection[str]] | None:
    """Return what the core files of an architecture's memory call their machine.

    Called where such a file is opened for an architecture. The first result counts; where there is none, any machine
    will do. Since 0.1.

    :param arch: as an image, or ``--arch``, has it.
    :returns: names of ``e_machine``, as ``EM_RISCV``, each with the byte orders, ``big`` or ``little``, that the file's
        own headers may have.
    """


@hookspec(firstresult=True)
def nestmmu_replayer(vectors: Vectors) -> Replayer | None:
    """Return what makes recorded accesses again, each on a fresh CPU.

    Called by ``nestmmu replay``. The first result counts: a plugin answers for its own ``vectors.arch`` alone. Since
    0.1.

    :raises ~nestmmu.errors.InputError: naming the field that cannot be.
    """


@hookspec(firstresult=True)
def nestmmu_machine(
    arch: str,
    make_cpu: CpuFactory,
    announce: Callable[[Event], None],
    faithful: bool,  # noqa: FBT001  (by name only)
) -> Machine | None:
    """Return what a stack of hypervisors of an architecture is built of.

    Called by ``nestmmu demo``, and by whoever builds a :class:`~nestmmu.stack.Stack`. The first result counts. Since
    0.1.

    :param make_cpu: what to make the CPU with, so that wrappers of ``nestmmu_cpu`` are around it.
    :param announce: what hypervisors tell events to.
    :param faithful: whether hypervisors do as the modelled kernel does, mistakes included.
    """


@hookspec
def nestmmu_quirks() -> Sequence[QuirkInfo] | None:
    """Return where the hypervisors that the plugin models differ from what is right.

    Called by ``nestmmu quirks``. All results count. Since 0.1.
    """


@hookspec
def nestmmu_conformance() -> Mapping[str, Callable[[], type[Architecture]]] | None:
    """Return what the conformance suite is to be run for: names, and what loads the architecture that each stands for.

    Called by ``nestmmu conformance`` and by ``pytest --nestmmu-arch``; what is not asked for is not loaded. All results
    count; a name that another plugin has taken is refused, with both named. Since 0.1.
    """


@hookspec
def nestmmu_event(event: Event) -> None:
    """Take note of something coarse: a fault, a reflection, a shadow entry, an invalidation, a hypercall.

    Called right after it happened, on all plugins. Must not raise. Since 0.1.
    """


@hookspec
def nestmmu_cli(app: typer.Typer) -> None:
    """Add subcommands to the command line. Called on all plugins when it starts. Since 0.1."""
