"""The plugin manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nestmmu.addresses import HardwareTag
from nestmmu.errors import PluginError
from nestmmu.events import Event, EventKind
from nestmmu.formats import ALWAYS, AccessedDirty, Level, Match, RadixFormat
from nestmmu.hookspecs import hookimpl
from nestmmu.memory import PhysicalMemory
from nestmmu.plugins import DISABLE, Plugins
from nestmmu.radix import RadixWalker

if TYPE_CHECKING:
    from collections.abc import Generator

FORMAT = RadixFormat(
    name="plain",
    input_bits=16,
    levels=(Level("only", (4,), ALWAYS, may_table=False),),
    entry_bytes=8,
    byteorder="little",
    valid=Match(1, 1),
    output_mask=0xFFFFF000,
    table_mask=0xFFFFF000,
    permissions=((Match(2, 2), 7),),
)


class Brings:
    @hookimpl
    def nestmmu_table_formats(self) -> list[RadixFormat]:
        return [FORMAT]


class Misspelt:
    @hookimpl
    def nestmmu_table_format(self) -> None:
        """Do nothing: there is no such hook."""


class WrongArguments:
    @hookimpl
    def nestmmu_cpu(self, architecture: str) -> None:
        """Do nothing: the hook has no such argument."""


def walker(plugins: Plugins) -> RadixWalker:
    return plugins.walker(FORMAT, PhysicalMemory(), "stage", AccessedDirty.UPDATE)


def test_formats_of_late_plugins_count() -> None:
    plugins = Plugins(discover=False)
    assert plugins.formats() == {}
    plugins.register(Brings(), "late")
    assert plugins.formats() == {"plain": FORMAT}
    assert plugins.formats_of("late") == ["plain"]


def test_two_plugins_with_one_format_are_both_named() -> None:
    plugins = Plugins(discover=False)
    plugins.register(Brings(), "first")
    plugins.register(Brings(), "second")
    with pytest.raises(PluginError, match="first and second both bring plain"):
        plugins.formats()


def test_two_plugins_with_one_name() -> None:
    plugins = Plugins(discover=False)
    plugins.register(Brings(), "same")
    with pytest.raises(PluginError, match=r"same.*elsewhere 1"):
        plugins.register(Brings(), "same", "elsewhere 1")


@pytest.mark.parametrize("plugin", [Misspelt(), WrongArguments()])
def test_a_hook_that_does_not_fit_names_the_distribution_and_is_not_kept(plugin: object) -> None:
    plugins = Plugins(discover=False)
    with pytest.raises(PluginError, match="broken 2"):
        plugins.register(plugin, "broken", "broken 2")
    assert list(plugins.names()) == []
    assert isinstance(walker(plugins), RadixWalker)


def test_the_core_walks_what_no_plugin_does() -> None:
    assert isinstance(walker(Plugins(discover=False)), RadixWalker)


def test_a_wrapper_stands_around_what_others_provide() -> None:
    class Wrapped(RadixWalker):
        pass

    class Wrapper:
        @hookimpl(wrapper=True)
        def nestmmu_walker(self) -> Generator[None, RadixWalker, RadixWalker]:
            inner = yield
            return Wrapped(inner.format, inner.memory, inner.stage, inner.accessed_dirty)

    plugins = Plugins(discover=False)
    plugins.register(Wrapper(), "wrapper")
    assert isinstance(walker(plugins), Wrapped)


def test_a_wrapper_of_the_walker_reaches_the_cpu() -> None:
    made: list[str] = []

    class Counter:
        @hookimpl(wrapper=True)
        def nestmmu_walker(self, stage: str) -> Generator[None, Any, Any]:
            made.append(stage)
            return (yield)

    plugins = Plugins()
    plugins.register(Counter(), "counter")
    plugins.cpu("ppc64_radix", {"lpidr": 1}, PhysicalMemory(), AccessedDirty.UPDATE)
    assert made


def test_no_plugin_for_an_architecture_says_which_are_loaded() -> None:
    plugins = Plugins(discover=False)
    plugins.register(Brings(), "one")
    with pytest.raises(PluginError, match="nestmmu_cpu for pdp11; loaded: one"):
        plugins.cpu("pdp11", {}, PhysicalMemory(), AccessedDirty.UPDATE)


def test_events_reach_every_plugin() -> None:
    seen: list[tuple[str, Event]] = []

    class Listener:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def nestmmu_event(self, event: Event) -> None:
            seen.append((self.name, event))

    plugins = Plugins(discover=False)
    plugins.register(Listener("a"), "a")
    plugins.register(Listener("b"), "b")
    event = Event(EventKind.FAULT, HardwareTag(7), 0x1000)
    plugins.announce(event)
    assert sorted(seen, key=lambda pair: pair[0]) == [("a", event), ("b", event)]


def test_a_plugin_that_fails_while_it_is_told_of_an_event_is_named() -> None:
    class Broken:
        @hookimpl
        def nestmmu_event(self, event: Event) -> None:
            raise ZeroDivisionError(str(event.kind))

    plugins = Plugins(discover=False)
    plugins.register(Broken(), "broken", "brittle 1.0")
    with pytest.raises(PluginError, match=r"^plugin broken of brittle 1.0: its nestmmu_event raises ZeroDivisionError"):
        plugins.announce(Event(EventKind.FAULT, HardwareTag(7), 0x1000))


def test_plugins_can_be_disabled_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DISABLE, "ppc64_radix")
    plugins = Plugins()
    assert "ppc64_radix" not in plugins.names()
    info = next(info for info in plugins.infos if info.name == "ppc64_radix")
    assert DISABLE in info.problem
