"""The page-walk cache: what it keeps, what each invalidation leaves, and that a table dropped in silence shows."""

from __future__ import annotations

import pytest

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.errors import PoisonedError
from nestmmu.formats import AccessedDirty
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.memory import PhysicalMemory
from nestmmu.plugins import Plugins
from nestmmu.slots import LinearBacking, Slot, Slots
from nestmmu.walk_cache import WalkCachePlugin
from toy_arch.cpu import ToyCpu, Trap
from toy_arch.formats import GRUBBY, LOOK, PAGE, POKE, PRESENT, TOY, USED
from toy_arch.hypervisor import ToyHypervisor

ROOTS, LEAF = 0x100, PRESENT | PAGE | LOOK | POKE | USED | GRUBBY
LOAD = Access.LOAD
ONE = HardwareTag(1)


class Machine:
    """A toy guest with one table of four small pages, walked through the cache."""

    def __init__(self) -> None:
        self.plugins = Plugins(discover=False)
        self.caches = WalkCachePlugin()
        self.plugins.register(self.caches, "cache")
        self.memory = PhysicalMemory()
        self.host = ToyHypervisor(self.memory, PageAllocator(self.memory, 0x10000, 0x40000), ROOTS)
        self.host.listeners.append(self.caches.flush)
        self.guest = self.host.create_guest(ONE, Slots((Slot(0, 0x100),)), LinearBacking(0x800, 4))
        self.cpu = ToyCpu(self.memory, ROOTS, 1, AccessedDirty.IGNORE, make_walker=self.plugins.walker)
        for address in (0x00, 0x10, 0x40):
            self.put(address, 0x800 | address)

    def put(self, address: int, target: int, depth: int = 1) -> None:
        editor = self.guest.table
        spares = editor.prepare(address, depth)
        editor.insert(address, target | LEAF, depth, spares)
        editor.release(spares)

    def load(self, address: int) -> int | str:
        result = self.cpu.access(LOAD, address)
        return result.name if isinstance(result, Trap) else result.output_address


def test_a_second_walk_begins_at_the_table_that_the_first_one_met() -> None:
    machine = Machine()
    steps: list[object] = []
    machine.cpu.walker.trace = steps  # type: ignore[assignment]
    assert machine.load(0x00) == 0x800
    assert (len(steps), len(machine.caches.cache)) == (2, 1)
    assert machine.load(0x14) == 0x814
    assert len(steps) == 3
    assert machine.load(0x40) == 0x840
    assert (len(steps), len(machine.caches.cache)) == (5, 2)
    assert (machine.caches.cache.hits, machine.caches.cache.misses) == (1, 2)
    assert machine.caches.stale == []


def test_a_fault_below_a_known_table_is_the_same_fault() -> None:
    machine = Machine()
    assert [machine.load(0x20), machine.load(0x00), machine.load(0x20)] == ["NOPE", 0x800, "NOPE"]


@pytest.mark.parametrize(
    ("flush", "left"),
    [
        (Flush(ONE, FlushKind.PAGE, 0, 4), 2),
        (Flush(ONE, FlushKind.WALK_CACHE), 0),
        (Flush(ONE, FlushKind.TAG), 0),
        (Flush(HardwareTag(2), FlushKind.TAG), 2),
        (Flush(ONE, FlushKind.TAG, cpu=9), 2),
    ],
)
def test_what_each_flush_leaves(flush: Flush, left: int) -> None:
    machine = Machine()
    machine.caches.cache.cpus = range(4)
    machine.load(0x00)
    machine.load(0x40)
    machine.caches.flush(flush)
    assert len(machine.caches.cache) == left


def test_a_table_that_gives_way_to_a_large_page_is_forgotten_with_it() -> None:
    machine = Machine()
    machine.load(0x00)
    machine.put(0x00, 0xC00, depth=0)
    assert machine.load(0x10) == 0xC10
    assert machine.caches.stale == []


def test_a_table_dropped_without_a_flush_is_a_stale_walk_into_freed_memory() -> None:
    machine = Machine()
    machine.load(0x00)
    machine.host.listeners.remove(machine.caches.flush)
    machine.put(0x00, 0xC00, depth=0)
    with pytest.raises(PoisonedError):
        machine.load(0x10)
    (stale,) = machine.caches.stale
    assert (stale.owner, stale.address, stale.depth, stale.fresh) == (1, 0x10, 1, None)


def test_a_table_that_moved_without_a_flush_is_walked_where_it_was() -> None:
    machine = Machine()
    machine.load(0x00)
    root = machine.guest.table.table.root.base
    old = machine.memory.load(root, 4, "little") & 0x00FFFFF0
    machine.memory.store(0x3000, 0x900 | LEAF, 4, "little")
    machine.memory.store(root, 0x3000 | PRESENT, 4, "little")
    assert machine.load(0x00) == 0x800
    (stale,) = machine.caches.stale
    assert (stale.cached, stale.fresh) == (old, 0x3000)


def test_the_oldest_gives_way() -> None:
    machine = Machine()
    machine.caches.cache.capacity = 1
    machine.load(0x00)
    machine.load(0x40)
    assert len(machine.caches.cache) == 1
    machine.load(0x44)
    assert machine.caches.cache.hits == 1


def test_a_walker_without_an_owner_keeps_nothing() -> None:
    machine = Machine()
    walker = machine.plugins.walker(TOY, machine.memory, "toy table", AccessedDirty.IGNORE)
    assert walker.find(machine.guest.table.table.root.base, 2, 0x10).output == 0x810
    assert len(machine.caches.cache) == 0
