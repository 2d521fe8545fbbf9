"""The event path: accesses of a CPU and nested faults, as rates and as ratios to a calibration loop.

Run it with the Python that nestmmu is installed in: ``python benchmarks/scalar.py``. The ratio is what to compare
between machines: how many accesses for each million rounds of a plain loop that Python runs beside it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.images import read_nest_image, shipped_image
from nestmmu.plugins import Plugins
from nestmmu.points import finish
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.nest import RadixNest

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
MSR_DR = 0x10
COMPLETED = 0xC00


def calibration() -> float:
    """Return rounds a second of a plain loop."""
    begin, value, rounds = time.perf_counter(), 0, 400_000
    for index in range(rounds):
        value = (value * 3 + index) & 0xFFFF
    return rounds / (time.perf_counter() - begin)


def measure(work: Callable[[], int]) -> dict[str, float]:
    """Return the median rate of ``work``, which says how much it did, and its ratio to the loop beside it."""
    rates, ratios = [], []
    for _ in range(ROUNDS):
        before = calibration()
        begin = time.perf_counter()
        rate = work() / (time.perf_counter() - begin)
        rates.append(rate)
        ratios.append(rate / ((before + calibration()) / 2))
    return {"a_second": round(statistics.median(rates)), "per_1000_rounds": round(statistics.median(ratios) * 1000, 3)}


def main() -> None:
    """Measure and print."""
    image = read_nest_image(shipped_image())
    nest = RadixNest(image)
    list(nest.run())
    names = ("pid", "msr", "ea", "vector", "op")
    rows = [
        (pid, msr, ea)
        for pid, msr, ea, vector, op in zip(*(image.column(name).tolist() for name in names), strict=True)
        if vector == COMPLETED and op == 1 and msr & MSR_DR
    ]
    cpu, registers = nest.cpu, nest.cpu.registers

    def accesses() -> int:
        for pid, msr, ea in rows:
            registers.pidr, registers.msr = pid, msr
            cpu.access(Access.LOAD, ea)
        return len(rows)

    results = {"2-D access": measure(accesses)}
    steps: list[object] = []
    cpu.trace(steps)  # type: ignore[arg-type]

    def traced() -> int:
        for pid, msr, ea in rows:
            steps.clear()
            registers.pidr, registers.msr = pid, msr
            cpu.access(Access.LOAD, ea)
        return len(rows)

    results["2-D access, traced"] = measure(traced)
    cpu.trace(None)
    results["nested fault handled"] = measure(lambda: handle_faults(nest))
    results["nested fault, with the faulting access and its retry"] = measure(lambda: fault_and_retry(nest, rows))
    manager = Plugins()
    results["walker through pluggy, once a table"] = measure(lambda: make_walkers(manager, nest))
    if "--json" in sys.argv:
        print(json.dumps(results, indent=1))
        return
    for name, row in results.items():
        print(f"{name:55} {row['a_second']:>12,.0f} /s {row['per_1000_rounds']:>9.3f} per 1,000 rounds of a plain loop")


def exits_of(nest: RadixNest) -> list[HvExit]:
    """Return an exit for each leaf of the nest's shadow: as if it were not there."""
    found = []
    for leaf in nest.kernel_shadow():
        dsisr = 0x42000000 if leaf.permissions & Access.STORE else 0x40000000
        found.append(HvExit(0xE00, 1 << 63, leaf.page_start & 0xFFF, dsisr, leaf.page_start & ~0xFFF, 0))
    return found


def handle_faults(nest: RadixNest) -> int:
    """Handle one fault for each leaf of the shadow, from an empty one."""
    if nest.nested is None:
        raise SystemExit("the image has no shadow")
    exits = exits_of(nest)
    nest.nested.shadow.clear_tree()
    handler, nested = nest.handler, nest.nested
    for record in exits:
        finish(handler.handle(nested, decode(record)))
    return len(exits)


def fault_and_retry(nest: RadixNest, rows: list[tuple[int, int, int]]) -> int:
    """Make loads with the page that each needs taken out of the shadow: access, fault, ladder, insertion, access."""
    if nest.nested is None:
        raise SystemExit("the image has no shadow")
    cpu, nested, handler = nest.cpu, nest.nested, nest.handler
    count = 0
    for pid, msr, ea in rows:
        cpu.registers.pidr, cpu.registers.msr = pid, msr
        for _ in range(8):
            result = cpu.access(Access.LOAD, ea)
            if not isinstance(result, Interrupt):
                break
            exit_ = decode(HvExit.from_interrupt(result))
            finish(handler.handle(nested, exit_))
            count += 1
            address = exit_.fault.input_address
        else:
            raise SystemExit(f"no progress at {ea:#x}")
        if count:
            nested.shadow.remove(address)
        else:
            nested.shadow.clear_tree()
    return count


def make_walkers(manager: Plugins, nest: RadixNest) -> int:
    """Make walkers through the hook."""
    walker = nest.cpu.partition_walker
    for _ in range(1000):
        manager.walker(walker.format, walker.memory, walker.stage, walker.accessed_dirty)
    return 1000


if __name__ == "__main__":
    main()
