"""The races of sections 1.18 and 4.3 of the reference, in every order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ppc64_fixture import Fixture

from nestmmu import upkeep
from nestmmu.addresses import AssignedTag
from nestmmu.explore import Explorer, Report
from nestmmu.invariants import violations
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.points import Point
from nestmmu_ppc64_radix.exits import decode
from nestmmu_ppc64_radix.kvm import KvmNestedGuest
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Hashable

    from nestmmu.points import Steps

GPA = 0x180050000
PAGE = 0x123450000


class World(Fixture):
    """The fixture, with L1's hypercalls; one L2 (5) that ran before, its page known to L0 alone."""

    def __init__(self, quirks: Quirk, *, checked: bool) -> None:
        super().__init__(quirks)
        self.guest.nested.clear()
        self.tags = TagAllocator(7, 64)
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(self.host, self.guest, self.tags, lambda: 4096)
        self.hcalls = NestedHcalls(self.host, self.guest, self.guests)
        self.results: dict[str, Any] = {}
        tag = self.tags.allocate()
        assert tag is not None
        self.nested = self.host.add_nested(self.guest, AssignedTag(5), tag)
        self.plant_l0(GPA, 0xC000000580050187)
        if not checked:
            self.guest.changed_since = lambda snapshot: False  # type: ignore[method-assign]  # noqa: ARG005  (as it is)

    def state(self) -> Hashable:
        shadows = tuple(
            (int(tag), one.references, tuple((leaf.page_start, leaf.entry) for leaf in one.shadow.table.leaves()))
            for tag, one in sorted(self.guest.nested.items())
        )
        host = tuple((leaf.page_start, leaf.entry) for leaf in self.guest.table.table.leaves())
        rmap = tuple((frame, tuple(self.guest.rmap.entries(frame))) for frame in self.guest.rmap.frames())
        moving = (self.guest.sequence, self.guest.invalidating, self.read_word(0x02012028), len(self.flushes))
        return shadows, host, rmap, moving, tuple(sorted(self.tags.used)), tuple(sorted(self.results.items()))


def fault(world: World) -> Steps[Any]:
    return world.handler.handle(world.nested, decode(world.store()))


def load_fault(world: World) -> Steps[Any]:
    return world.handler.handle(world.nested, decode(world.load()))


def host_unmaps(world: World) -> Steps[None]:
    yield Point.LOCK
    world.guest.begin_invalidation()
    upkeep.unmap(world.guest, GPA)
    yield Point.UNLOCK
    yield Point.LOCK
    world.guest.end_invalidation()
    yield Point.UNLOCK


def l1_unmaps(world: World) -> Steps[Any]:
    """Clear L1's leaf, and then flush it."""
    yield Point.PREEMPT
    world.leaf(0)
    yield from world.hcalls.tlb_invalidate(0x10000, 5, 0x1234500A0)


def log_is_taken(world: World) -> Steps[None]:
    yield Point.LOCK
    world.results["seen dirty"] = upkeep.take_dirty(world.guest, GPA)
    yield Point.UNLOCK


def enter(name: str) -> Any:
    def script(world: World) -> Steps[None]:
        world.results[name] = (yield from world.guests.get(AssignedTag(9), create=True)) is not None

    return script


def use(world: World) -> Steps[None]:
    """Find the L2, use it, let go of it."""
    found = yield from world.guests.get(AssignedTag(5), create=False)
    if found is not None:
        yield Point.LOCK
        found.shadow.lookup(PAGE)
        yield Point.UNLOCK
        yield from world.guests.put(found)


def release(world: World) -> Steps[None]:
    yield from world.guests.release_all()


def broken(world: World) -> str:
    return "; ".join(f"{one.invariant.name}: {one.what}" for one in violations(world.guest))


def explore(scripts: list[Any], quirks: Quirk = Quirk.NONE, *, checked: bool = True, check: Any = broken) -> Report:
    return Explorer(lambda: World(quirks, checked=checked), scripts, check, World.state).explore(bound=4000)


@pytest.mark.parametrize("quirks", [Quirk.NONE, Quirk.LINUX_6_1])
@pytest.mark.parametrize(
    "scripts",
    [
        pytest.param([fault, host_unmaps], id="fault-unmap"),
        pytest.param([fault, l1_unmaps], id="fault-tlbie-TH18"),
        pytest.param([fault, load_fault], id="fault-fault"),
        pytest.param([use, release], id="use-release-TK3"),
    ],
)
def test_no_order_leaves_anything_stale(scripts: list[Any], quirks: Quirk) -> None:
    report = explore(scripts, quirks)
    assert (report.problem, report.complete) == ("", True)


def test_without_the_sequence_check_the_stale_entry_is_found() -> None:
    report = explore([fault, host_unmaps], checked=False)
    assert "INVALIDATION" in report.problem


@pytest.mark.parametrize(
    ("quirks", "lost"),
    [pytest.param(Quirk.LINUX_6_1, True, id="B7-K"), pytest.param(Quirk.NONE, False, id="B7-C")],
)
def test_a_dirty_log_between_a_fault_and_its_insertion(quirks: Quirk, *, lost: bool) -> None:
    report = explore([fault, log_is_taken], quirks)
    assert ("DIRTY" in report.problem) == lost
    assert report.complete != lost


@pytest.mark.parametrize(
    ("quirks", "lost"),
    [pytest.param(Quirk.LINUX_6_1, True, id="B24-K"), pytest.param(Quirk.NONE, False, id="B24-C")],
)
def test_two_vcpus_enter_a_new_guest(quirks: Quirk, *, lost: bool) -> None:
    def both_entered(world: World) -> str:
        return "" if all(world.results.values()) else f"one did not enter: {world.results}"

    report = explore([enter("one"), enter("two")], quirks, check=both_entered)
    assert bool(report.problem) == lost


def test_a_guest_is_released_once_whoever_lets_go_last() -> None:
    def released(world: World) -> str:
        return "" if world.tags.used == set() else f"LPIDs still in use: {world.tags.used}"

    report = explore([use, release], check=released)
    assert (report.problem, report.complete) == ("", True)
