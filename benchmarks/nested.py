"""The reverse map and the explorer: a host page of 2 MiB with 512 shadow entries removed, schedules explored.

Run it with the Python that nestmmu is installed in, from a checkout: ``python benchmarks/nested.py``. Ratios are to the
calibration loop of ``scalar.py``, run beside each round.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from nestmmu.points import Steps

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from ppc64_fixture import Fixture  # noqa: E402  (found by the path above)
from scalar import ROUNDS, calibration  # noqa: E402

from nestmmu import upkeep  # noqa: E402
from nestmmu.addresses import AssignedTag  # noqa: E402
from nestmmu.explore import Explorer  # noqa: E402
from nestmmu.points import Point  # noqa: E402
from nestmmu.rmap import ReverseEntry  # noqa: E402
from nestmmu_ppc64_radix.exits import decode  # noqa: E402
from nestmmu_ppc64_radix.quirks import Quirk  # noqa: E402

PAGE, ENTRIES = 1 << 21, 512
L1_PAGE, L2_START = 0x1_8000_0000, 0x1_2340_0000
LEAF = 0xC000_0000_0000_0187
RACED = 0x1_8005_0000


def removal() -> tuple[float, float]:
    """Return (milliseconds, thousands of calibration rounds) that removing one host page takes; medians."""
    times, rounds = [], []
    for _ in range(ROUNDS):
        nest = Fixture(Quirk.NONE, page_shift=12, backing_shift=21)
        nest.plant_l0(L1_PAGE, LEAF | 0x5_8000_0000, 21)
        for index in range(ENTRIES):
            start = L2_START + (index << 12)
            nest.plant_shadow(start, LEAF | 0x5_8000_0000 + (index << 12), 12)
            nest.guest.rmap.insert(L1_PAGE >> 12, ReverseEntry(AssignedTag(5), start))
        before = calibration()
        begin = time.perf_counter()
        upkeep.unmap(nest.guest, L1_PAGE)
        took = time.perf_counter() - begin
        if list(nest.nested.shadow.table.leaves()):
            raise SystemExit("entries are left")
        times.append(took * 1000)
        rounds.append(took * (before + calibration()) / 2 / 1000)
    return statistics.median(times), statistics.median(rounds)


class World(Fixture):
    """An L2 whose store faults, while L0 takes the page away."""

    def __init__(self) -> None:
        super().__init__(Quirk.NONE)
        self.plant_l0(RACED, 0xC000000580050187)

    def state(self) -> Hashable:
        """Return what tells this world from another."""
        leaves = tuple((leaf.page_start, leaf.entry) for leaf in self.nested.shadow.table.leaves())
        return leaves, self.guest.sequence, self.guest.invalidating, self.l0_leaf(RACED)


def fault(world: World) -> Steps[object]:
    """Handle the store's fault."""
    return world.handler.handle(world.nested, decode(world.store()))


def host_unmaps(world: World) -> Steps[None]:
    """Take the page away."""
    yield Point.LOCK
    world.guest.begin_invalidation()
    upkeep.unmap(world.guest, RACED)
    yield Point.UNLOCK
    yield Point.LOCK
    world.guest.end_invalidation()
    yield Point.UNLOCK


def schedules() -> dict[str, float]:
    """Return schedules a second, and their ratio to the calibration loop; medians."""
    rates, ratios = [], []
    for _ in range(ROUNDS):
        before = calibration()
        begin = time.perf_counter()
        report = Explorer(World, [fault, host_unmaps], lambda _: "", World.state).explore()
        rate = report.schedules / (time.perf_counter() - begin)
        rates.append(rate)
        ratios.append(rate / ((before + calibration()) / 2))
    return {"a_second": round(statistics.median(rates)), "per_1000_rounds": round(statistics.median(ratios) * 1000, 3)}


def main() -> None:
    """Measure and print."""
    took, rounds = removal()
    results = {
        "2 MiB page, 512 shadow entries": {"ms": round(took, 2), "thousand_rounds": round(rounds, 1)},
        "explorer, schedules": schedules(),
    }
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
