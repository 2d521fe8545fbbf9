"""The plugin manager: a typed face over pluggy."""

from __future__ import annotations

import os
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pluggy

from nestmmu import hookspecs
from nestmmu.errors import InputError, NestmmuError, PluginError
from nestmmu.plugin_problems import brought_by, check_api, culprit, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

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
    from nestmmu.testing import Architecture
    from nestmmu.vectors import Vectors

T = TypeVar("T")
CORE = "core"
"""The name under which the core's own hooks are registered."""
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
        self._manager.register(_Core(), CORE)
        self._formats: dict[str, tuple[str, RadixFormat]] | None = None
        self._distributions: dict[str, str] = {}
        self._discovered: set[str] = set()
        self.infos: list[PluginInfo] = []
        if discover:
            self._discover()

    def _discover(self) -> None:
        disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",")}
        found = [(point.name, brought_by(point), point) for point in metadata.entry_points(group=hookspecs.PROJECT)]
        for name, distribution, point in sorted(found, key=lambda one: one[:2]):
            if name in disabled or "*" in disabled:
                self.infos.append(PluginInfo(name, distribution, f"disabled by {DISABLE}"))
                continue
            try:
                plugin = point.load()
            except (Exception, SystemExit) as error:  # noqa: BLE001  (the rest must still work)
                problem = f"plugin {name} of {distribution} cannot be imported: {one_line(error)}"
                self.infos.append(PluginInfo(name, distribution, problem))
                continue
            try:
                self.register(plugin, name, distribution)
            except PluginError as error:
                self.infos.append(PluginInfo(name, distribution, str(error)))
            else:
                self._discovered.add(name)

    def register(self, plugin: object, name: str, distribution: str = "") -> None:
        """Add a plugin: any object with hooks.

        :raises PluginError: if the name is taken, the plugin is written for another version of the hooks, or a hook
            does not fit its specification.
        """
        source = distribution or "this program"
        if self._manager.has_plugin(name):
            first = self._distributions.get(name, "nestmmu itself")
            message = f"two plugins are called {name}: of {first} and of {source}; the second is left out"
            raise PluginError(message)
        try:
            check_api(plugin)
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (PluginError, pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            message = f"plugin {name} of {source}: {' '.join(str(error).split())}"
            raise PluginError(message) from error
        self._formats = None
        self._distributions[name] = source
        self.infos.append(PluginInfo(name, distribution))

    def check(self) -> None:
        """Ask all plugins for what they list, so that :attr:`infos` says of each what is wrong with that.

        :raises PluginError: if something is wrong with a plugin that was registered by hand.
        """
        self.formats()
        self.conformance()
        self.quirks()

    def _ask_each(self, hook: str, **arguments: object) -> Iterator[tuple[str, Any]]:
        """Yield (plugin's name, result) of a hook whose results all count; a plugin that fails is left out."""
        for one in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                result = one.function(*(arguments[name] for name in one.argnames))
            except Exception as error:  # noqa: BLE001  (the rest must still work)
                self._leave_out(one.plugin_name, f"its {hook} raises {one_line(error)}", error)
            else:
                yield one.plugin_name, result

    def _leave_out(self, name: str, problem: str, error: Exception | None = None) -> None:
        """Go on without a plugin that was found installed.

        :raises PluginError: if the plugin was registered by hand: whoever did that wants to know.
        """
        message = f"plugin {name} of {self._distributions.get(name, 'nestmmu itself')}: {problem}"
        if name not in self._discovered:
            raise PluginError(message) from error
        self._manager.unregister(name=name)
        self._formats = None
        self.infos = [
            attrs.evolve(info, problem=message) if info.name == name and not info.problem else info
            for info in self.infos
        ]

    def _collect(
        self, hook: str, named: Callable[[Any], Iterable[tuple[str, T]]], what: str
    ) -> dict[str, tuple[str, T]]:
        """Return what all plugins bring under names: the plugin's own name, and the thing.

        A plugin that brings a name which another one has taken is left out.
        """
        found: dict[str, tuple[str, T]] = {}
        for plugin, result in self._ask_each(hook):
            try:
                brought = [(name, (plugin, thing)) for name, thing in named(result or ())]
            except (AttributeError, TypeError, ValueError) as error:
                self._leave_out(plugin, f"what its {hook} returns cannot be read: {one_line(error)}", error)
                continue
            names = [*found, *(name for name, _ in brought)]
            taken = next((name for name, count in Counter(names).items() if count > 1), None)
            if taken is None:
                found.update(brought)
            else:
                owner = found[taken][0] if taken in found else plugin
                self._leave_out(plugin, f"{owner} and {plugin} both bring {what}{taken}")
        return found

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
            found = self._collect("nestmmu_table_formats", lambda formats: [(form.name, form) for form in formats], "")
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

    def elf_machines(self, arch: str) -> Mapping[str, Collection[str]] | None:
        """Return what an architecture's core files call their machine, with the byte orders; None where no one says."""
        return self._asked("nestmmu_elf_machines", {"arch": arch})  # type: ignore[no-any-return]

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
        return [info for _, infos in self._ask_each("nestmmu_quirks") for info in infos or ()]

    def conformance(self) -> dict[str, Callable[[], type[Architecture]]]:
        """Return what loads each architecture that the conformance suite can be run for, by name.

        :raises PluginError: if two plugins bring one name.
        """
        found: dict[str, tuple[str, Callable[[], type[Architecture]]]] = self._collect(
            "nestmmu_conformance", lambda declared: dict(declared).items(), "the architecture "
        )
        return {name: load for name, (_, load) in sorted(found.items())}

    def architecture(self, name: str) -> type[Architecture]:
        """Return an architecture for the conformance suite.

        :raises InputError: if no plugin brings it.
        """
        known = self.conformance()
        if name not in known:
            remedy = f"name one of: {', '.join(known) or 'none is installed'}"
            raise InputError("NAME", "", f"no plugin brings a conformance declaration of {name!r}", remedy)
        return known[name]()

    def announce(self, event: Event) -> None:
        """Tell all plugins of an event.

        :raises PluginError: naming a plugin that fails while it is told.
        """
        try:
            self._manager.hook.nestmmu_event(event=event)
        except Exception as error:
            self._blame("nestmmu_event", error)
            raise

    def add_commands(self, app: typer.Typer) -> None:
        """Let all plugins add their commands."""
        for _ in self._ask_each("nestmmu_cli", app=app):
            pass

    def _asked(self, hook: str, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401  (a hook's own)
        """Return the first result of a hook; None where there is none."""
        caller = getattr(self._manager.hook, hook)
        try:
            return caller(**arguments)
        except (NestmmuError, ValueError, OSError, MemoryError):
            raise
        except Exception as error:
            self._blame(hook, error)
            raise

    def _blame(self, hook: str, error: Exception) -> None:
        """Say whose hook has failed, if that can be told.

        :raises PluginError: if it can.
        """
        name = culprit(error, getattr(self._manager.hook, hook).get_hookimpls())
        if name in self._distributions:
            message = f"plugin {name} of {self._distributions[name]}: its {hook} raises {one_line(error)}"
            raise PluginError(f"{message}; {DISABLE}={name} goes without it") from error

    def _first(self, hook: str, subject: str, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401  (a hook's own)
        """Return the first result of a hook.

        :raises PluginError: if there is none.
        """
        result = self._asked(hook, arguments)
        if result is None:
            names = ", ".join(self.names()) or "none"
            failed = ", ".join(info.name for info in self.infos if info.problem)
            message = f"no plugin does {hook} for {subject}; loaded: {names}"
            raise PluginError(f"{message}; not loaded (see nestmmu plugins): {failed}" if failed else message)
        return result

    def names(self) -> Iterable[str]:
        """Return the names of the plugins that are loaded."""
        return [info.name for info in self.infos if not info.problem]
