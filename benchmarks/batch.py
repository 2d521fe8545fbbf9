"""Whole address spaces and millions of translations, beside compiled C with the same tables and addresses.

``python benchmarks/batch.py``, with the Python that nestmmu is installed in; it needs gcc. C and nestmmu take turns,
and each ratio is of the medians of one run: walk2d.c walks one address at a time, 24 reads each in two dimensions.
``--json`` prints numbers; ``--rounds N`` sets how many turns there are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nestmmu.access import Access
from nestmmu.batch import translate_many
from nestmmu.extent_algebra import compose
from nestmmu.extract import extract
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_ppc64_radix.formats import POWER9, ROOT_BITS

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESSES = 2_000_000
SIZES = (1, 8)
HEADER_WORDS = 8
PAGE_WORDS = 512


def build(folder: Path) -> Path:
    """Compile walk2d.c and return the program."""
    program = folder / "walk2d"
    source = Path(__file__).with_name("walk2d.c")
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)  # noqa: S603, S607  (the user's compiler)
    return program


def run_c(program: Path, gibibytes: int, rounds: int, dump: Path | None = None) -> list[dict[str, float]]:
    """Return nanoseconds a translation of each round of the C program."""
    arguments = [program, str(gibibytes), str(ADDRESSES), str(rounds), *([dump] if dump else [])]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)  # noqa: S603  (built above)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Spaces:
    """The tables and addresses that the C program made."""

    def __init__(self, dump: Path) -> None:
        words = np.fromfile(dump, np.uint64)
        used, count, host, guest, shadow = (int(word) for word in words[:5])
        end = HEADER_WORDS + used // 8
        pages = words[HEADER_WORDS:end].reshape(-1, PAGE_WORDS).view(np.uint8)
        self.addresses, self.outputs = words[end : end + count], words[end + count :]
        memory = PhysicalMemory.from_frames(np.arange(len(pages), dtype=np.uint64), pages)
        self.host = RadixTable(RadixWalker(POWER9, memory, "host"), Root(host, ROOT_BITS))
        self.shadow = RadixTable(RadixWalker(POWER9, memory, "shadow"), Root(shadow, ROOT_BITS))
        guest_real = TranslatedMemory(memory, self.host, "guest real")
        self.guest = RadixTable(RadixWalker(POWER9, guest_real, "guest"), Root(guest, ROOT_BITS))
        self.nested = TranslatedMemory(guest_real, self.guest, "guest effective")

    def translate(self, target: RadixTable | TranslatedMemory, *, jit: bool) -> Callable[[], Any]:
        """Return what translates all addresses, and checks them against what C made of them."""

        def work() -> None:
            found = translate_many(target, self.addresses, Access.LOAD, jit=jit)
            if found.faults.any() or not np.array_equal(found.outputs, self.outputs):
                raise SystemExit("nestmmu and C do not agree")

        return work


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def checking(spaces: Spaces) -> float:
    """Return how long the comparison takes that every translation is timed with."""
    found = translate_many(spaces.shadow, spaces.addresses, Access.LOAD, jit=False)
    return statistics.median(
        seconds(lambda: found.faults.any() or np.array_equal(found.outputs, spaces.outputs)) for _ in range(9)
    )


def measure(program: Path, folder: Path, gibibytes: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return rates in millions a second, and ratios to C, of one size."""
    dump = folder / f"tables-{gibibytes}"
    run_c(program, gibibytes, 1, dump)
    spaces = Spaces(dump)
    compiled = importlib.util.find_spec("numba") is not None
    works: dict[str, tuple[Callable[[], Any], str]] = {}
    for jit, name in ((False, "numpy"), *(((True, "numba"),) if compiled else ())):
        works[f"2-D {name}"] = spaces.translate(spaces.nested, jit=jit), "nested"
        works[f"1-D {name}"] = spaces.translate(spaces.shadow, jit=jit), "shadow"
    for work, _ in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    c_times: dict[str, list[float]] = {"nested": [], "shadow": [], "two_reads": []}
    for _ in range(rounds):
        for line in run_c(program, gibibytes, 2)[1:]:
            for name, values in c_times.items():
                values.append(line[name] * ADDRESSES / 1e9)
        for name, (work, _) in works.items():
            times[name].append(seconds(work))
    extra = checking(spaces)
    c_median = {name: statistics.median(values) for name, values in c_times.items()}
    names = {"nested": "2-D C", "shadow": "1-D C", "two_reads": "two dependent random reads, C"}
    rows = {names[name]: {"millions_a_second": ADDRESSES / value / 1e6} for name, value in c_median.items()}
    for name, (_, peer) in works.items():
        took = statistics.median(times[name]) - extra
        ratio = {"ratio_to_c": c_median[peer] / took, "ratio_to_two_reads": c_median["two_reads"] / took}
        rows[name] = {"millions_a_second": ADDRESSES / took / 1e6, **ratio}
    return rows | (whole_spaces(spaces, rounds) if gibibytes == 1 else {})


def whole_spaces(spaces: Spaces, rounds: int) -> dict[str, dict[str, float]]:
    """Return how fast tables of 262,144 leaves are extracted and composed."""
    inner, outer = extract(spaces.guest).extents, extract(spaces.host).extents
    shadow = extract(spaces.shadow).extents
    if not compose(inner, outer).equal(shadow):
        raise SystemExit("the composition is not the shadow table")
    count = len(shadow)
    took = statistics.median(seconds(lambda: extract(spaces.shadow)) for _ in range(3 * rounds))
    composed = statistics.median(seconds(lambda: compose(inner, outer)) for _ in range(3 * rounds))
    return {
        f"extraction of {count:,} leaves": {"millions_a_second": count / took / 1e6, "milliseconds": took * 1e3},
        f"composition of two of {count:,}": {
            "millions_a_second": count / composed / 1e6,
            "milliseconds": composed * 1e3,
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build(folder)
        results = {f"{size} GiB": measure(program, folder, size, options.rounds) for size in SIZES}
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for size, rows in results.items():
        print(f"{ADDRESSES:,} random addresses in {size} of 4 KiB pages" + " " * 9 + "M/s   x C   x two reads")
        for name, row in rows.items():
            ratios = [f"{row[key]:7.2f}" if key in row else " " * 7 for key in ("ratio_to_c", "ratio_to_two_reads")]
            spent = f"  {row['milliseconds']:.1f} ms" if "milliseconds" in row else ""
            print(f"  {name:45} {row['millions_a_second']:9.1f} {' '.join(ratios)}{spent}".rstrip())


if __name__ == "__main__":
    main()
