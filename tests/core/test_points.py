"""Handlers that yield where another CPU could come between."""

from __future__ import annotations

import pytest

from nestmmu.points import Point, Steps, finish


def handler(log: list[str]) -> Steps[int]:
    log.append("start")
    yield Point.LOCK
    log.append("locked")
    yield Point.UNLOCK
    log.append("end")
    return 42


def test_finish_runs_a_handler_to_its_end_and_returns_what_it_returned() -> None:
    log: list[str] = []
    assert finish(handler(log)) == 42
    assert log == ["start", "locked", "end"]


def test_a_handler_that_was_begun_is_finished_from_where_it_is() -> None:
    log: list[str] = []
    steps = handler(log)
    assert [next(steps), next(steps)] == [Point.LOCK, Point.UNLOCK]
    assert log == ["start", "locked"]
    assert finish(steps) == 42
    assert log == ["start", "locked", "end"]


def test_a_handler_may_use_another() -> None:
    def outer(log: list[str]) -> Steps[str]:
        yield Point.LOCK_NESTED
        inner = yield from handler(log)
        yield Point.UNLOCK_NESTED
        return f"inner said {inner}"

    steps = outer([])
    points = [next(steps) for _ in range(4)]
    assert points == [Point.LOCK_NESTED, Point.LOCK, Point.UNLOCK, Point.UNLOCK_NESTED]
    assert finish(outer([])) == "inner said 42"


def test_a_handler_may_yield_nowhere() -> None:
    def nowhere() -> Steps[None]:
        return
        yield Point.PREEMPT

    finish(nowhere())
    assert list(nowhere()) == []


def test_what_a_handler_raises_comes_out() -> None:
    def failing() -> Steps[int]:
        yield Point.PREEMPT
        message = "out of luck"
        raise KeyError(message)

    with pytest.raises(KeyError, match="out of luck"):
        finish(failing())
