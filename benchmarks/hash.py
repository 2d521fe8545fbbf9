"""Hash translation: searches and accesses in a table of 16 MiB, one by one and many at once; all of it as arrays.

Run it with the Python that nestmmu is installed in, from a checkout: ``python benchmarks/hash.py``. Ratios are to the
calibration loop of ``scalar.py``, run beside each round.
"""

from __future__ import annotations

import json
import random
import statistics
import struct
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from scalar import ROUNDS, calibration, measure  # noqa: E402  (found by the path above)

from nestmmu.access import Access  # noqa: E402
from nestmmu.batch import translate_many  # noqa: E402
from nestmmu.memory import PhysicalMemory  # noqa: E402
from nestmmu_ppc64_book3s.interrupts import Interrupt  # noqa: E402
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF, Registers  # noqa: E402
from nestmmu_ppc64_hpt.cpu import Power9Hash  # noqa: E402
from nestmmu_ppc64_hpt.enumeration import enumerate_table  # noqa: E402
from nestmmu_ppc64_hpt.hashing import make_v  # noqa: E402
from nestmmu_ppc64_hpt.slb import Slb  # noqa: E402
from nestmmu_ppc64_hpt.table import HashTable  # noqa: E402

SEED = 1
PAGES = 20_000
BATCH = 1_000_000
PARTITION_TABLE, TABLE, ORDER, LPID = 0x1000_0000, 0x4000_0000, 24, 7
SEGMENTS = 12
RPN_R_C = 0x182
"""R, C and pp = 2: no access has anything to set."""


def machine() -> tuple[Power9Hash, HashTable, list[int]]:
    """Return a CPU in a guest of 4 KiB pages, its table, and the pages' effective addresses in no order."""
    generator, memory = random.Random(SEED), PhysicalMemory()  # noqa: S311  (no secret)
    memory.store(PARTITION_TABLE + 16 * LPID, TABLE | ORDER - 18, 8, "big")
    slb = Slb([(index << 28 | 0x08000000, 0x123456 + index << 12 | 0xC00) for index in range(SEGMENTS)])
    registers = Registers(msr=MSR_SF | MSR_IR | MSR_DR, lpcr=0, ptcr=PARTITION_TABLE | 4, lpidr=LPID)
    cpu, table, addresses = Power9Hash(registers, memory, slb), HashTable(memory, TABLE, ORDER), []
    for page in generator.sample(range(SEGMENTS << 16), PAGES):
        address = page << 12
        segment = slb.lookup(address)
        if segment is None:
            raise SystemExit("no segment")
        for secondary, first in enumerate(table.candidates(segment, address)):
            slot = table.free_slot(first)
            if slot is not None:
                table.write(
                    slot, make_v(segment, address, large=False, secondary=bool(secondary)), page << 12 | RPN_R_C
                )
                addresses.append(address)
                break
    return cpu, table, addresses


def enumeration() -> tuple[float, float]:
    """Return (milliseconds, thousands of calibration rounds) that a full table takes to be read; medians."""
    memory = PhysicalMemory()
    table = HashTable(memory, TABLE, ORDER)
    memory.write(TABLE, struct.pack(">QQ", 0x123456A81, RPN_R_C) * table.slots)
    times, rounds = [], []
    for _ in range(ROUNDS):
        before = calibration()
        begin = time.perf_counter()
        if len(enumerate_table(table)) != table.slots:
            raise SystemExit("entries are missing")
        took = time.perf_counter() - begin
        times.append(took * 1000)
        rounds.append(took * (before + calibration()) / 2 / 1000)
    return statistics.median(times), statistics.median(rounds)


def main() -> None:  # noqa: C901  (what is measured, one after the other)
    """Measure and print."""
    cpu, table, addresses = machine()

    def searches() -> int:
        lookup, search = cpu.slb.lookup, table.search
        for address in addresses:
            segment = lookup(address)
            if segment is None or search(segment, address) is None:
                raise SystemExit(f"nothing found for {address:#x}")
        return len(addresses)

    def accesses() -> int:
        for address in addresses:
            if isinstance(cpu.access(Access.LOAD, address), Interrupt):
                raise SystemExit(f"an interrupt for {address:#x}")
        return len(addresses)

    many = np.tile(np.array(addresses, np.uint64), BATCH // len(addresses))

    def batches() -> int:
        if translate_many(cpu, many, Access.LOAD).faults.any():
            raise SystemExit("a fault in a batch")
        return len(many)

    works = {"segment and search": searches, "access": accesses, "access, many at once": batches}
    rates = {name: measure(work) for name, work in works.items()}
    took, rounds = enumeration()
    results: dict[str, dict[str, float]] = {
        **rates,
        "2**20 entries as arrays": {"milliseconds": round(took, 1), "thousand_rounds": round(rounds, 1)},
    }
    if "--json" in sys.argv:
        print(json.dumps(results, indent=1))
        return
    for name, row in rates.items():
        print(f"{name:30} {row['a_second']:>12,.0f} /s {row['per_1000_rounds']:>9.3f} per 1,000 rounds of a plain loop")
    print(f"{'2**20 entries as arrays':30} {took:>12,.1f} ms, as long as {rounds:,.0f} thousand rounds of a plain loop")


if __name__ == "__main__":
    main()
