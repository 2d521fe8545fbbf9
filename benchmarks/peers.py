"""Translations by page tables of x86-64, beside what others do with the same tables and addresses.

``python benchmarks/peers.py``, with a Python that nestmmu is installed in, and whichever of these: volatility3 (its
layer ``Intel32e``), unicorn (an emulated CPU that loads from each address), drgn. What is not installed is said to be
so. ``--json`` prints numbers; ``--addresses N`` sets how many there are for those that take one at a time.

The tables map 1 GiB in pages of 4 KiB, each page somewhere else. nestmmu has no plugin for x86: its format is stated
here, as a plugin would.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.batch import translate_many
from nestmmu.formats import ALWAYS, InputRule, Level, Match, RadixFormat
from nestmmu.memory import PhysicalMemory
from nestmmu.radix import RadixTable, RadixWalker, Root

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

P, RW, US, ACCESSED, DIRTY, PS, XD = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 63
FRAME = ((1 << 52) - 1) >> 12 << 12
X86_64 = RadixFormat(
    name="x86_64",
    input_bits=48,
    levels=(
        Level("PML4", (9,), Match(PS, PS), may_leaf=False),
        Level("PDPT", (9,), Match(PS, PS)),
        Level("PD", (9,), Match(PS, PS)),
        Level("PT", (9,), ALWAYS, may_table=False),
    ),
    entry_bytes=8,
    byteorder="little",
    valid=Match(P, P),
    output_mask=FRAME,
    table_mask=FRAME,
    permissions=((ALWAYS, READ), (Match(RW, RW), WRITE), (Match(XD, 0), EXECUTE)),
    accessed=ACCESSED,
    dirty=DIRTY,
    input_rule=InputRule.SIGN,
)
PAGE, PAGES, WORDS = 4096, 1 << 18, 512
START = 0x10_0000_0000
"""The first virtual address."""
DATA = 64 << 20
MANY = 2_000_000


def tables() -> tuple[NDArray[np.uint64], int]:
    """Return the words of memory that hold the tables, shape (frames, 512), and the address of the root."""
    rng = np.random.default_rng(1)
    leaves = PAGES // WORDS
    words = np.zeros((leaves + 3, WORDS), np.uint64)
    flags = np.uint64(P | RW | US | ACCESSED | DIRTY)
    words[3:] = (rng.permutation(PAGES).astype(np.uint64) * np.uint64(PAGE) + np.uint64(DATA) | flags).reshape(
        -1, WORDS
    )
    numbers = np.arange(3, leaves + 3, dtype=np.uint64) * np.uint64(PAGE)
    words[2] = numbers | flags
    words[1, START >> 30 & 511] = 2 * PAGE | int(flags)
    words[0, START >> 39 & 511] = PAGE | int(flags)
    return words, 0


def rate(work: Callable[[], object], count: int) -> float:
    """Return how many a second, in millions: the best of three."""
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return count / best / 1e6


def check(found: NDArray[np.uint64], expected: NDArray[np.uint64], who: str) -> None:
    """See that everyone finds the same."""
    if not np.array_equal(found, expected):
        raise SystemExit(f"{who} finds other addresses")


def by_nestmmu(words: NDArray[np.uint64], addresses: NDArray[np.uint64], few: int) -> tuple[dict[str, float], Any]:
    """Return rates, and where each address leads."""
    memory = PhysicalMemory.from_frames(np.arange(len(words), dtype=np.uint64), words.view(np.uint8).reshape(-1, PAGE))
    table = RadixTable(RadixWalker(X86_64, memory, "x86-64"), Root(0, 9))
    outputs = translate_many(table, addresses, Access.LOAD, jit=False).outputs
    rates = {"nestmmu, numpy": rate(lambda: translate_many(table, addresses, Access.LOAD, jit=False), len(addresses))}
    if importlib.util.find_spec("numba") is not None:
        check(translate_many(table, addresses, Access.LOAD, jit=True).outputs, outputs, "numba")
        rates["nestmmu, numba"] = rate(lambda: translate_many(table, addresses, Access.LOAD, jit=True), len(addresses))
    listed = addresses[:few].tolist()
    rates["nestmmu, one by one"] = rate(lambda: [table.locate(address, Access.LOAD) for address in listed], few)
    return rates, outputs


def by_volatility(words: NDArray[np.uint64], addresses: list[int], expected: NDArray[np.uint64]) -> float:
    """Return the rate of volatility3's layer."""
    contexts = importlib.import_module("volatility3.framework.contexts")
    physical = importlib.import_module("volatility3.framework.layers.physical")
    intel = importlib.import_module("volatility3.framework.layers.intel")
    context = contexts.Context()
    # A layer of this size is taken to have memory behind every page; nothing is read from there.
    data = words.tobytes()
    context.add_layer(physical.BufferDataLayer(context, "physical", "physical", data))
    context.config["kernel.memory_layer"], context.config["kernel.page_map_offset"] = "physical", 0
    layer = intel.Intel32e(context, "kernel", "kernel")
    found = np.array([layer._translate(address)[0] for address in addresses], np.uint64)  # noqa: SLF001  (without the layer below)
    check(found, expected, "volatility3")
    return rate(lambda: [layer._translate(address) for address in addresses], len(addresses))  # noqa: SLF001


def by_unicorn(words: NDArray[np.uint64], addresses: NDArray[np.uint64], expected: NDArray[np.uint64]) -> float:
    """Return the rate of loads by an emulated CPU, which has a TLB of its own."""
    uc = importlib.import_module("unicorn")
    x86 = importlib.import_module("unicorn.x86_const")
    machine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
    machine.ctl_set_tlb_mode(uc.UC_TLB_CPU)
    size = DATA + PAGES * PAGE
    machine.mem_map(0, size)
    machine.mem_write(0, words.tobytes())
    code, list_at, out_at = 32 << 20, 34 << 20, 50 << 20
    # again: lodsq; mov rax, [rax]; stosq; dec rcx; jnz again
    machine.mem_write(code, b"\x48\xad\x48\x8b\x00\x48\xab\x48\xff\xc9\x75\xf4")
    low = np.array(words)  # the program itself is mapped by one page of 1 GiB at 0
    low[1, 0], low[0, 0] = P | RW | US | PS | ACCESSED | DIRTY, PAGE | P | RW | US | ACCESSED
    machine.mem_write(0, low.tobytes())
    machine.mem_write(list_at, addresses.tobytes())
    for page in range(PAGES):  # every page begins with its own address
        machine.mem_write(DATA + page * PAGE, (DATA + page * PAGE).to_bytes(8, "little"))
    machine.reg_write(x86.UC_X86_REG_CR3, 0)
    machine.reg_write(x86.UC_X86_REG_CR4, 1 << 5)
    machine.msr_write(0xC0000080, 1 << 8 | 1 << 10)
    machine.reg_write(x86.UC_X86_REG_CR0, 1 << 31 | 1)

    def work() -> None:
        machine.reg_write(x86.UC_X86_REG_CR3, 0)  # which empties the TLB
        machine.reg_write(x86.UC_X86_REG_RSI, list_at)
        machine.reg_write(x86.UC_X86_REG_RDI, out_at)
        machine.reg_write(x86.UC_X86_REG_RCX, len(addresses))
        machine.emu_start(code, code + 12)

    found = rate(work, len(addresses))
    ends = np.frombuffer(bytes(machine.mem_read(out_at, 8 * len(addresses))), np.uint64)
    check(ends, expected, "unicorn")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addresses", type=int, default=100_000, help="for those that take one at a time")
    parser.add_argument("--json", action="store_true", help="print numbers alone")
    arguments = parser.parse_args()
    words, _ = tables()
    rng = np.random.default_rng(2)
    pages = rng.integers(0, PAGES, MANY).astype(np.uint64) * np.uint64(PAGE) + np.uint64(START)
    few = arguments.addresses
    rates: dict[str, float | str] = {}
    own, outputs = by_nestmmu(words, pages, few)
    rates.update(own)
    peers: dict[str, tuple[str, Callable[[], float | str]]] = {
        "volatility3, Intel32e": ("volatility3", lambda: by_volatility(words, pages[:few].tolist(), outputs[:few])),
        "unicorn, emulated loads": ("unicorn", lambda: by_unicorn(words, pages[:few], outputs[:few])),
        "drgn": ("drgn", lambda: "walks the tables of a kernel whose debug information it has, and no others"),
    }
    for name, (module, work) in peers.items():
        rates[name] = work() if importlib.util.find_spec(module) is not None else "not installed"
    if arguments.json:
        print(json.dumps(rates, indent=1))
        return
    for name, value in rates.items():
        print(f"{name:26} {value if isinstance(value, str) else f'{value:10.3f} million translations a second'}")


if __name__ == "__main__":
    main()
