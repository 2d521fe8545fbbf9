"""Handlers as generators: they yield wherever another CPU could come between."""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


class Point(enum.Enum):
    """What a handler is about to do, or has just done, when it yields."""

    LOCK_NESTED = "lock nested"
    """Take the lock that keeps faults and invalidations of one nested guest apart."""
    UNLOCK_NESTED = "unlock nested"
    LOCK = "lock"
    """Take the lock of the guest's tables."""
    UNLOCK = "unlock"
    PREEMPT = "preempt"
    """No lock changes hands, but another CPU may come between."""


Steps = Generator[Point, None, T]


def finish(steps: Steps[T]) -> T:
    """Run a handler to its end with nothing in between, and return what it returned."""
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
