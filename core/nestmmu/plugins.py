"""The plugin manager: a typed face over pluggy."""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import attrs
import pluggy

from nestmmu import hookspecs
from nestmmu.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import typer

    from nestmmu.compose import Composer
    from nestmmu.events import Event
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.images import NestImage
    from nestmmu.memory import Memory
    from nestmmu.nests import Nest
    from nestmmu.protocols import Cpu, Invalidator, Reflector, Replayer
    from nestmmu.quirks import QuirkInfo
    from nestmmu.radix import RadixWalker
    from nestmmu.stack import Machine
    from nestmmu.vectors import Vectors

DISABLE = "NESTMMU_DISABLE_PLUGINS"
"""Environment variable: names of plugins, separated by commas, that are not loaded; ``*`` for all."""


@attrs.frozen
class PluginInfo:
    """A plugin as it was found."""

    name: str
    distribution: str
    """Name and version of the distribution that brings it; empty for one that was registered by hand."""
    problem: str = ""
    """Why it was not loaded."""


class _Core:
    """What the core itself provides, when no plugin does."""

    @hookspecs.hookimpl(trylast=True)
    def nestmmu_walker(
        self, table_format: RadixFormat, memory: Memory, stage: str, accessed_dirty: AccessedDirty
    ) -> RadixWalker:
        from nestmmu.radix import RadixWalker  # noqa: PLC0415  (numpy is slow to import)

        return RadixWalker(table_format, memory, stage, accessed_dirty)

    @hookspecs.hookimpl(trylast=True)
    def nestmmu_composer(self, table_format: RadixFormat, widths: tuple[int, ...]) -> Composer:
        from nestmmu.compose import RadixComposer  # noqa: PLC0415  (numpy is slow to import)

        return RadixComposer(table_format, widths)


class Plugins:
    """The plugins of one process, or of one test.

    :param discover: whether to load what is installed (entry points of the group ``nestmmu``).
    """

    def __init__(self, *, discover: bool = True) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(_Core(), "core")
        self._formats: dict[str, tuple[str, RadixFormat]] | None = None
        self.infos: list[PluginInfo] = []
        if discover:
            self._discover()

    def _discover(self) -> None:
        disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",")}
        for point in sorted(metadata.entry_points(group=hookspecs.PROJECT), key=lambda point: point.name):
            brought_by = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
            if point.name in disabled or "*" in disabled:
                self.infos.append(PluginInfo(point.name, brought_by, f"disabled by {DISABLE}"))
                continue
            try:
                self.register(point.load(), point.name, brought_by)
            except Exception as error:  # noqa: BLE001  (a plugin may raise anything; the rest must still work)
                self.infos.append(PluginInfo(point.name, brought_by, f"{type(error).__name__}: {error}"))

    def register(self, plugin: object, name: str, distribution: str = "") -> None:
        """Add a plugin: any object with hooks.

        :raises PluginError: if the name is taken, or a hook does not fit its specification.
        """
        if self._manager.has_plugin(name):
            message = f"two plugins are called {name}: the second is from {distribution or 'this program'}"
            raise PluginError(message)
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            message = f"plugin {name} of {distribution or 'this program'}: {error}"
            raise PluginError(message) from error
        self._formats = None
        self.infos.append(PluginInfo(name, distribution))

    def hooks_of(self, name: str) -> list[str]:
        """Return the names of the hooks that the plugin ``name`` implements, sorted."""
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name))
        return sorted(caller.name for caller in callers or ())

    def formats(self) -> dict[str, RadixFormat]:
        """Return the table formats of all plugins, by name.

        :raises PluginError: if two plugins bring one name.
        """
        return {name: form for name, (_, form) in self._named_formats().items()}

    def formats_of(self, plugin: str) -> list[str]:
        """Return the names of the table formats that one plugin brings."""
        return sorted(name for name, (owner, _) in self._named_formats().items() if owner == plugin)

    def _named_formats(self) -> dict[str, tuple[str, RadixFormat]]:
        if self._formats is None:
            found: dict[str, tuple[str, RadixFormat]] = {}
            for implementation in self._manager.hook.nestmmu_table_formats.get_hookimpls():
                provide = cast("Callable[[], Sequence[RadixFormat]]", implementation.function)
                for form in provide():
                    if form.name in found:
                        message = f"{found[form.name][0]} and {implementation.plugin_name} both bring {form.name}"
                        raise PluginError(message)
                    found[form.name] = (implementation.plugin_name, form)
            self._formats = found
        return self._formats

    def walker(
        self, table_format: RadixFormat, memory: Memory, stage: str, accessed_dirty: AccessedDirty
    ) -> RadixWalker:
        """Return what walks tables of a format; wrappers included."""
        found: RadixWalker = self._first(
            "nestmmu_walker",
            table_format.name,
            {"table_format": table_format, "memory": memory, "stage": stage, "accessed_dirty": accessed_dirty},
        )
        return found

    def composer(self, table_format: RadixFormat, widths: tuple[int, ...]) -> Composer:
        """Return what composes leaves of a shadow table."""
        arguments = {"table_format": table_format, "widths": widths}
        found: Composer = self._first("nestmmu_composer", table_format.name, arguments)
        return found

    def reflector(self, arch: str) -> Reflector:
        """Return an architecture's reflector."""
        found: Reflector = self._first("nestmmu_reflector", arch, {"arch": arch})
        return found

    def invalidator(self, arch: str) -> Invalidator:
        """Return an architecture's invalidator."""
        found: Invalidator = self._first("nestmmu_invalidator", arch, {"arch": arch})
        return found

    def cpu(self, arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty) -> Cpu:
        """Return a CPU of an architecture."""
        arguments = {"arch": arch, "registers": registers, "memory": memory, "accessed_dirty": accessed_dirty}
        found: Cpu = self._first("nestmmu_cpu", arch, arguments | {"make_walker": self.walker})
        return found

    def nest(self, image: NestImage) -> Nest:
        """Return the levels in an image."""
        found: Nest = self._first("nestmmu_nest", image.arch, {"image": image})
        return found

    def replayer(self, vectors: Vectors) -> Replayer:
        """Return what makes recorded accesses again."""
        found: Replayer = self._first("nestmmu_replayer", vectors.arch, {"vectors": vectors})
        return found

    def machine(self, arch: str, *, faithful: bool = False) -> Machine:
        """Return what a stack of hypervisors is built of."""
        arguments = {"arch": arch, "make_cpu": self.cpu, "announce": self.announce, "faithful": faithful}
        found: Machine = self._first("nestmmu_machine", arch, arguments)
        return found

    def quirks(self) -> list[QuirkInfo]:
        """Return the quirks that all plugins model, plugin by plugin."""
        found: list[Sequence[QuirkInfo]] = self._manager.hook.nestmmu_quirks()
        return [info for infos in reversed(found) for info in infos]

    def announce(self, event: Event) -> None:
        """Tell all plugins of an event."""
        self._manager.hook.nestmmu_event(event=event)

    def add_commands(self, app: typer.Typer) -> None:
        """Let all plugins add their commands."""
        self._manager.hook.nestmmu_cli(app=app)

    def _first(self, hook: str, subject: str, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401  (a hook's own)
        result = getattr(self._manager.hook, hook)(**arguments)
        if result is None:
            names = ", ".join(self.names()) or "none"
            message = f"no plugin does {hook} for {subject}; loaded: {names}"
            raise PluginError(message)
        return result

    def names(self) -> Iterable[str]:
        """Return the names of the plugins that are loaded."""
        return [info.name for info in self.infos if not info.problem]
