"""Virtual CPUs that move: which cores have to flush, and what happens where they do not (K4, TK6, TK7, B11)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.placement import Arriving, Placement

NOTHING, SYNC, FLUSH = Arriving.NOTHING, Arriving.SYNC, Arriving.FLUSH


def test_another_core_flushes_the_one_that_was_left_tk6() -> None:
    """Token 3 from CPU 0 to CPU 8: the four threads of core 0; the first flushes, the others only wait."""
    placement = Placement(threads=4)
    assert placement.enter(3, 0) is NOTHING
    assert placement.enter(3, 8) is NOTHING
    assert placement.pending == {0, 1, 2, 3}
    assert [placement.enter(4 + cpu, cpu) for cpu in (2, 0, 1, 3)] == [FLUSH, SYNC, SYNC, SYNC]
    assert placement.pending == set()
    assert placement.enter(9, 1) is NOTHING


def test_the_same_core_flushes_nothing_tk7() -> None:
    placement = Placement(threads=4)
    placement.enter(3, 0)
    assert placement.enter(3, 1) is NOTHING
    assert placement.pending == set()
    assert placement.last == {3: 1}


@pytest.mark.parametrize(("threads", "pending"), [(1, {5}), (2, {4, 5}), (4, {4, 5, 6, 7}), (8, set())])
def test_what_a_core_is(threads: int, pending: set[int]) -> None:
    placement = Placement(threads)
    placement.enter(0, 5)
    placement.enter(0, 3)
    assert placement.pending == pending


def test_coming_back_at_once_flushes() -> None:
    placement = Placement(threads=4)
    assert [placement.enter(0, cpu) for cpu in (0, 4, 0)] == [NOTHING, NOTHING, FLUSH]
    assert placement.pending == {1, 2, 3, 4, 5, 6, 7}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=40))
def test_no_core_runs_the_guest_with_what_it_kept_from_before(moves: list[tuple[int, int]]) -> None:
    """What a virtual CPU left on a core is flushed there before anyone runs on that core again."""
    placement, dirty, where = Placement(threads=2), set[int](), dict[int, int]()
    for vcpu, cpu in moves:
        before = where.get(vcpu)
        if before is not None and before // 2 != cpu // 2:
            dirty.add(before // 2)
        where[vcpu] = cpu
        arriving = placement.enter(vcpu, cpu)
        if arriving is FLUSH:
            dirty.discard(cpu // 2)
        assert cpu // 2 not in dirty
