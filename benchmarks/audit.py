"""The audit of a whole guest: 64 GiB in 4 KiB pages, 16.7 million shadow entries, every page somewhere else.

``python benchmarks/audit.py``, with the Python that nestmmu is installed in. ``--gib N`` sets the size of the guest,
``--json`` prints numbers. Where gcc is installed, walk2d.c says beside it how long compiled code takes to walk both
tables for as many random addresses, one after the other; the audit does more, as it looks at the shadow too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from batch import build, run_c

from nestmmu.audit import Verdict
from nestmmu.audit_nest import Audit, audit_nest
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.nests import NestTables
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_ppc64_radix.formats import POWER9, ROOT_BITS

VALID, LEAF, RIGHTS = 1 << 63, 1 << 62, 0x18F  # R, C, privileged, read, write, execute
FRAME, TABLE_WORDS, ROOT_FRAMES = 4096, 512, 16
BITS = 9
GIBIBYTE = 1 << 30


class Frames:
    """Frames of the machine's memory, handed out from 0 on; words are written as POWER9 reads them."""

    def __init__(self, count: int) -> None:
        self.words = np.zeros((count, TABLE_WORDS), ">u8")
        self.used = 0

    def take(self, count: int) -> int:
        """Return the number of the first of ``count`` new frames."""
        self.used += count
        return self.used - count


def tree(frames: Frames, targets: np.ndarray, where: np.ndarray | None = None) -> int:
    """Write a tree of 4 KiB pages from address 0 on, and return the address of its root.

    :param targets: the address that each page leads to.
    :param where: by numbers of frames, the addresses by which the tree's own reader knows them; None: the machine's.
    """
    words = targets.astype(np.uint64) | np.uint64(VALID | LEAF | RIGHTS)
    for _ in range(3):
        count = -(-len(words) // TABLE_WORDS)
        first = frames.take(count)
        frames.words[first : first + count].reshape(-1)[: len(words)] = words
        numbers = np.arange(first, first + count, dtype=np.uint64)
        addresses = numbers * np.uint64(FRAME) if where is None else where[numbers]
        words = addresses | np.uint64(VALID | BITS)
    frames.take(-frames.used % ROOT_FRAMES)
    root = frames.take(ROOT_FRAMES)
    frames.words[root : root + ROOT_FRAMES].reshape(-1)[: len(words)] = words
    return root * FRAME if where is None else int(where[root])


def synthetic(gibibytes: int, seed: int = 1) -> NestTables:
    """Return a nest whose tables all map 4 KiB pages, each to a place of its own."""
    rng = np.random.default_rng(seed)
    pages = gibibytes * GIBIBYTE // FRAME
    leaves = -(-pages // TABLE_WORDS)
    each = leaves + -(-leaves // TABLE_WORDS) + 1 + 2 * ROOT_FRAMES
    frames = Frames(3 * each + each // TABLE_WORDS + 1)
    size = np.uint64(FRAME)
    # The guest hypervisor's memory: what its guest has, shuffled, and after it the table for that.
    inner_targets = rng.permutation(pages).astype(np.uint64) * size
    data = rng.permutation(pages).astype(np.uint64) * size + np.uint64(1 << 40)
    known = (np.arange(each, dtype=np.uint64) + np.uint64(pages)) * size  # 64 KiB aligned as the frames are
    guest_root = tree(frames, inner_targets, known)
    held = np.arange(frames.used, dtype=np.uint64) * size
    outer_targets = np.concatenate([data, held])
    host_root = tree(frames, outer_targets)
    shadow_root = tree(frames, data[(inner_targets // size).astype(np.int64)])
    memory = PhysicalMemory.from_frames(
        np.arange(len(frames.words), dtype=np.uint64), frames.words.view(np.uint8).reshape(-1, FRAME)
    )
    host = RadixTable(RadixWalker(POWER9, memory, "host"), Root(host_root, ROOT_BITS))
    shadow = RadixTable(RadixWalker(POWER9, memory, "shadow"), Root(shadow_root, ROOT_BITS))
    guest_memory = TranslatedMemory(memory, host, "guest real")
    guest = RadixTable(RadixWalker(POWER9, guest_memory, "guest"), Root(guest_root, ROOT_BITS))
    return NestTables(guest, host, shadow)


def check(audit: Audit, pages: int) -> None:
    """See that the audit found all entries, and all of them sound."""
    counts = audit.counts()
    if counts[Verdict.SOUND] != pages or not audit.sound:
        raise SystemExit(f"of {pages} entries: {counts}, {[(one.problem, len(one)) for one in audit.findings]}")


def c_seconds(count: int) -> float | None:
    """Return how long C takes to walk two tables of 8 GiB for ``count`` addresses; None without gcc."""
    if shutil.which("gcc") is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        rows = run_c(build(Path(name)), 8, 2)
    return min(row["nested"] for row in rows) * count / 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=int, default=64, help="of the guest; the default is 64")
    parser.add_argument("--json", action="store_true", help="print numbers alone")
    arguments = parser.parse_args()
    tables = synthetic(arguments.gib)
    pages = arguments.gib * GIBIBYTE // FRAME
    begin = time.perf_counter()
    audit = audit_nest(tables)
    took = time.perf_counter() - begin
    check(audit, pages)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    beside = c_seconds(pages)
    row = {"entries": pages, "seconds": took, "peak_gibibytes": peak / GIBIBYTE, "c_walks_seconds": beside}
    if arguments.json:
        print(json.dumps(row, indent=1))
        return
    print(f"{pages:,} shadow entries judged in {took:.2f} s, the process at most {peak / GIBIBYTE:.2f} GiB")
    if beside is not None:
        print(
            f"C walks both tables as often, one address after the other, in {beside:.2f} s: {beside / took:.2f} of it"
        )


if __name__ == "__main__":
    main()
