"""All interleavings of small scripts: handlers that yield wherever another CPU could come between.

Handlers cannot be copied half-way, so every schedule is run from a fresh world; schedules that have led to the same
state, as far as anyone can tell, are followed once. The search is breadth first: what it finds is the shortest.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from nestmmu.points import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from nestmmu.points import Steps

W = TypeVar("W")
Schedule = tuple[int, ...]
"""Which script takes each step, by its number."""
_TAKES = {Point.LOCK: "guest", Point.LOCK_NESTED: "nested"}
_GIVES = {Point.UNLOCK: "guest", Point.UNLOCK_NESTED: "nested"}


@attrs.define
class Report:
    """What an exploration found."""

    schedules: int
    """How many schedules were run, prefixes included."""
    states: int
    """How many states were told apart."""
    complete: bool
    """Whether every interleaving was followed, or the bound was reached."""
    problem: str = ""
    """What the shortest bad schedule breaks; empty where none does."""
    schedule: Schedule = ()
    """That schedule."""


class _Run(Generic[W]):
    """One schedule, run from a fresh world."""

    def __init__(self, explorer: Explorer[W], schedule: Schedule) -> None:
        self.world = explorer.make()
        self.scripts: list[Steps[Any] | None] = [script(self.world) for script in explorer.scripts]
        self.wants: list[str | None] = [None] * len(self.scripts)
        self.holds: list[set[str]] = [set() for _ in self.scripts]
        self.seen: list[tuple[Hashable, ...]] = [() for _ in self.scripts]
        for number in schedule:
            self.step(number, explorer.fingerprint)

    def ready(self) -> list[int]:
        """Return the scripts that can take a step."""
        return [number for number, script in enumerate(self.scripts) if script is not None and self._free(number)]

    def _free(self, number: int) -> bool:
        wanted = self.wants[number]
        others = (held for other, held in enumerate(self.holds) if other != number)
        return wanted is None or not any(wanted in held for held in others)

    def step(self, number: int, fingerprint: Callable[[W], Hashable]) -> None:
        """Let a script go on to its next point; what it saw of the world is all that its own state can hang on."""
        script = self.scripts[number]
        if script is None:
            return
        wanted = self.wants[number]
        if wanted is not None:
            self.holds[number].add(wanted)
            self.wants[number] = None
        self.seen[number] = (*self.seen[number], hash(fingerprint(self.world)))
        try:
            point = next(script)
        except StopIteration:
            self.scripts[number] = None
            self.holds[number].clear()
            return
        self.wants[number] = _TAKES.get(point)
        self.holds[number].discard(_GIVES.get(point, ""))

    def key(self, fingerprint: Callable[[W], Hashable]) -> Hashable:
        """Return what tells this state from others."""
        return (fingerprint(self.world), tuple(self.seen), tuple(script is None for script in self.scripts))


class Explorer(Generic[W]):
    """Runs scripts against each other in every order.

    :param make: returns a fresh world, always the same.
    :param scripts: each returns the steps of one CPU in a world.
    :param check: returns what is wrong with a world in which every script has ended; empty for nothing.
    :param fingerprint: returns the state of a world: two that are equal must go on alike.
    """

    def __init__(
        self,
        make: Callable[[], W],
        scripts: Sequence[Callable[[W], Steps[Any]]],
        check: Callable[[W], str],
        fingerprint: Callable[[W], Hashable],
    ) -> None:
        self.make = make
        self.scripts = scripts
        self.check = check
        self.fingerprint = fingerprint

    def explore(self, bound: int = 20_000) -> Report:
        """Follow every interleaving, at most ``bound`` schedules, and return the shortest that ends badly.

        A schedule after which scripts are left and none can go on ends badly too: they wait for each other.
        """
        queue: deque[Schedule] = deque([()])
        known: set[Hashable] = set()
        runs = 0
        while queue:
            if runs >= bound:
                return Report(runs, len(known), complete=False)
            schedule = queue.popleft()
            run = _Run(self, schedule)
            runs += 1
            key = run.key(self.fingerprint)
            if key in known:
                continue
            known.add(key)
            ready = run.ready()
            waiting = any(script is not None for script in run.scripts)
            problem = "" if ready else "every script waits for another" if waiting else self.check(run.world)
            if problem:
                return Report(runs, len(known), complete=False, problem=problem, schedule=schedule)
            queue.extend((*schedule, number) for number in ready)
        return Report(runs, len(known), complete=True)
