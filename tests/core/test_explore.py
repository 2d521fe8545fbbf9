"""The explorer, on scripts small enough to count by hand, and on the toy's races."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.explore import Explorer
from nestmmu.invariants import violations
from nestmmu.points import Point
from nestmmu.quirks import Invariant
from toy_arch.cpu import Trap
from toy_arch.hypervisor import decode
from toy_arch.nest import DATA, ToyNest

if TYPE_CHECKING:
    from collections.abc import Hashable

    from nestmmu.points import Steps


class Counter:
    value = 0


def unsafe(world: Counter) -> Steps[None]:
    """Read, be interrupted, write: an update that can be lost."""
    yield Point.PREEMPT
    seen = world.value
    yield Point.PREEMPT
    world.value = seen + 1


def safe(world: Counter) -> Steps[None]:
    yield Point.LOCK
    seen = world.value
    yield Point.PREEMPT
    world.value = seen + 1
    yield Point.UNLOCK


def lost(world: Counter) -> str:
    return "" if world.value == 2 else f"two updates made {world.value}"


def explore(*scripts: Any) -> Any:
    return Explorer(Counter, scripts, lost, lambda world: world.value).explore()


def test_a_lost_update_is_found_by_the_shortest_schedule() -> None:
    report = explore(unsafe, unsafe)
    assert report.problem == "two updates made 1"
    assert len(report.schedule) == 6  # three steps each
    assert report.schedule[:2] in {(0, 1), (0, 0), (1, 0), (1, 1)}


def test_a_lock_keeps_it_from_happening() -> None:
    report = explore(safe, safe)
    assert (report.problem, report.complete) == ("", True)


def test_every_order_is_followed() -> None:
    """Two scripts of three steps can be mixed in 6! / (3! 3!) = 20 ways."""
    ends: set[tuple[int, ...]] = set()

    class Trace:
        def __init__(self) -> None:
            self.order: tuple[int, ...] = ()

    def script(number: int) -> Any:
        def steps(world: Trace) -> Steps[None]:
            for _ in range(2):
                world.order += (number,)
                yield Point.PREEMPT
            world.order += (number,)

        return steps

    def note(world: Trace) -> str:
        ends.add(world.order)
        return ""

    report = Explorer(Trace, [script(0), script(1)], note, lambda world: world.order).explore()
    assert report.complete
    assert len(ends) == 20


def test_a_deadlock_is_a_problem() -> None:
    def one(world: Counter) -> Steps[None]:
        del world
        yield Point.LOCK
        yield Point.LOCK_NESTED

    def two(world: Counter) -> Steps[None]:
        del world
        yield Point.LOCK_NESTED
        yield Point.LOCK

    assert explore(one, two).problem == "every script waits for another"


def test_a_bound_is_kept() -> None:
    report = Explorer(Counter, [unsafe, unsafe], lost, id).explore(bound=3)
    assert (report.schedules, report.complete) == (3, False)


def fingerprint(nest: ToyNest) -> Hashable:
    leaves = tuple(sorted(nest.shadow().items()))
    host = tuple((leaf.page_start, leaf.entry) for leaf in nest.guest.table.table.leaves())
    rmap = tuple((frame, tuple(nest.guest.rmap.entries(frame))) for frame in nest.guest.rmap.frames())
    return leaves, host, rmap, nest.guest.sequence, nest.guest.invalidating, nest.read_word(0x3C)


def mapped() -> ToyNest:
    nest = ToyNest()
    nest.map(3, DATA)
    nest.access(Access.STORE, 0x35)
    nest.nested.shadow.remove(0x30)
    nest.guest.rmap.clear()
    return nest


def without_the_check() -> ToyNest:
    nest = mapped()
    nest.guest.changed_since = lambda snapshot: False  # type: ignore[method-assign]  # noqa: ARG005  (as it is)
    return nest


def fault(nest: ToyNest) -> Steps[Any]:
    return nest.handler.handle(nest.nested, decode(Trap("NOPE", 2, 0x35, Access.LOAD)))


def host_unmaps(nest: ToyNest) -> Steps[None]:
    """Take the page away, as the host's notifier does: begin, unmap, end."""
    yield Point.LOCK
    nest.guest.begin_invalidation()
    upkeep.unmap(nest.guest, DATA)
    yield Point.UNLOCK
    yield Point.LOCK
    nest.guest.end_invalidation()
    yield Point.UNLOCK


def l1_unmaps(nest: ToyNest) -> Steps[None]:
    """Clear an entry of L1's, and then say so."""
    yield Point.PREEMPT
    nest.lower(3, 0)
    yield Point.LOCK_NESTED
    yield Point.LOCK
    nest.nested.shadow.remove(0x30)
    yield Point.UNLOCK
    yield Point.UNLOCK_NESTED


def bad(nest: ToyNest) -> str:
    return "; ".join(f"{one.invariant.name}: {one.what}" for one in violations(nest.guest))


@pytest.mark.parametrize(
    ("scripts", "name"),
    [([fault, host_unmaps], "unmap"), ([fault, l1_unmaps], "invalidation"), ([fault, fault], "fault")],
)
def test_races_with_a_fault_leave_nothing_stale(scripts: list[Any], name: str) -> None:
    report = Explorer(mapped, scripts, bad, fingerprint).explore()
    assert (name, report.problem, report.complete) == (name, "", True)
    assert report.states > len(scripts)


def test_without_the_sequence_check_the_stale_entry_is_found() -> None:
    report = Explorer(without_the_check, [fault, host_unmaps], bad, fingerprint).explore()
    assert "INVALIDATION: shadow of 5 at 0x30: the host maps nothing" in report.problem
    assert report.schedule


def test_without_the_lock_of_the_nested_guest_l1s_invalidation_is_lost() -> None:
    """L1's entry is cleared and flushed between the walk of its table and the insertion."""

    def unlocked(nest: ToyNest) -> Steps[Any]:
        for point in fault(nest):
            if point not in {Point.LOCK_NESTED, Point.UNLOCK_NESTED}:
                yield point

    report = Explorer(mapped, [unlocked, l1_unmaps], bad, fingerprint).explore()
    assert Invariant.INVALIDATION.name in report.problem
