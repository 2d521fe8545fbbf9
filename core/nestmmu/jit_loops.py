"""Loops for numba to compile. What they leave as it was is no plain success, for the caller to judge.

Lanes are done in blocks whose scratch stays in the first-level cache, and decoding is cut into loops that write one
array each: so the compiler can prove that nothing overlaps, and does four or more lanes at a time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BLOCK = 512


def _compiled(function: Callable[..., Any]) -> Any:  # noqa: ANN401  (numba's dispatcher)
    """Compile when first called, and keep the result on disk where there is a place for it."""
    njit = importlib.import_module("numba").njit
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder can be written to
        return njit(nogil=True, error_model="numpy")(function)


@_compiled
def find(
    addresses: NDArray[np.uint64], input_mask: np.uint64, shift: np.uint64, first: np.uint64,
    window: NDArray[np.int32], numbers: NDArray[np.int32],
) -> None:  # fmt: skip
    """Look up the number of each address's prefix."""
    size = np.uint64(len(window))
    for lane in range(len(addresses)):
        place = ((addresses[lane] & input_mask) >> shift) - first
        numbers[lane] = window[place] if place < size else np.int32(-1)


@_compiled
def _read(
    addresses: NDArray[np.uint64], numbers: NDArray[np.int32], slots: NDArray[np.uint64],
    alike: bool,  # noqa: FBT001  (numba's dispatcher)
    words: NDArray[np.uint64], entries: NDArray[np.uint64], metas: NDArray[np.uint64], places: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Read the entry of each lane; of a prefix that is at fault, any word.

    :param alike: whether all prefixes have one mask and one shift, and ``metas`` is filled already.
    """
    if alike:
        shift, mask = slots[2, 0] & np.uint64(255), slots[1, 0]
        for lane in range(len(addresses)):
            places[lane] = slots[0, np.uint64(numbers[lane])] + (addresses[lane] >> shift & mask)
    else:
        for lane in range(len(addresses)):
            number = np.uint64(numbers[lane])
            meta = slots[2, number]
            metas[lane] = meta
            places[lane] = slots[0, number] + (addresses[lane] >> (meta & np.uint64(255)) & slots[1, number])
    for lane in range(len(addresses)):
        entries[lane] = words[places[lane]]


@_compiled
def _test(
    entries: NDArray[np.uint64], metas: NDArray[np.uint64], tests: NDArray[np.uint64], rules: NDArray[np.uint64],
    wrongs: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Begin ``wrongs``: not 0 where the prefix is at fault, the entry is no leaf, or a rule forbids it."""
    last = len(tests) - 1
    mask, value = tests[last, 0], tests[last, 1]
    for lane in range(len(entries)):
        wrongs[lane] = (entries[lane] & mask) ^ value | metas[lane] >> np.uint64(16)
    for depth in range(last):
        if tests[depth, 0] != mask or tests[depth, 1] != value:
            for lane in range(len(entries)):
                if metas[lane] >> np.uint64(8) == np.uint64(depth):
                    wrongs[lane] = (entries[lane] & tests[depth, 0]) ^ tests[depth, 1]
    for rule in range(len(rules)):
        mask, value = rules[rule, 0], rules[rule, 1]
        for lane in range(len(entries)):
            wrongs[lane] |= np.uint64((entries[lane] & mask) == value)


@_compiled
def _output(
    addresses: NDArray[np.uint64], entries: NDArray[np.uint64], metas: NDArray[np.uint64], output_mask: np.uint64,
    address_shift: np.uint64, strict: np.uint64, wrongs: NDArray[np.uint64], outputs: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Make the output addresses; ``strict`` has all bits set where they have to be aligned, else none."""
    one = np.uint64(1)
    for lane in range(len(addresses)):
        low = (one << (metas[lane] & np.uint64(255))) - one
        output = (entries[lane] & output_mask) << address_shift
        wrongs[lane] |= output & low & strict
        outputs[lane] = output & ~low | addresses[lane] & low


@_compiled
def _permit(
    entries: NDArray[np.uint64], runs: NDArray[np.uint64], granted: np.uint64, permission: np.uint64,
    wrongs: NDArray[np.uint64], permissions: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Take away what the entries do not permit; ``granted`` has four bits for each value of the bits they say it in."""
    shift, mask, shift_2, mask_2, up = runs[0, 0], runs[0, 1], runs[1, 0], runs[1, 1], runs[1, 2]
    for lane in range(len(entries)):
        entry = entries[lane]
        index = entry >> shift & mask | (entry >> shift_2 & mask_2) << up
        allowed = granted >> (index << np.uint64(2)) & np.uint64(7)
        wrongs[lane] |= (allowed & permission) ^ permission
        permissions[lane] &= np.uint8(allowed)


@_compiled
def _settle(
    addresses: NDArray[np.uint64], outputs: NDArray[np.uint64], metas: NDArray[np.uint64], wrongs: NDArray[np.uint64],
    shifts: NDArray[np.uint8], bad: NDArray[np.bool_],
) -> np.uint64:  # fmt: skip
    """Write back what is right; return how many lanes are not."""
    failed = np.uint64(0)
    for lane in range(len(addresses)):
        addresses[lane] = outputs[lane] if wrongs[lane] == 0 else addresses[lane]
    for lane in range(len(addresses)):
        shifts[lane] = min(shifts[lane], np.uint8(metas[lane]))
    for lane in range(len(addresses)):
        wrong = wrongs[lane] != 0
        bad[lane] = wrong
        failed += np.uint64(wrong)
    return failed


@_compiled
def _touch(
    entries: NDArray[np.uint64], places: NDArray[np.uint64], needed: np.uint64, fault: np.uint64,
    wrongs: NDArray[np.uint64], touched: NDArray[np.int64], count: int,
) -> int:  # fmt: skip
    """Fault where accessed or dirty is missing, or note where it is to be set; return how many are noted by now."""
    for lane in range(len(entries)):
        if entries[lane] & needed != needed:
            if fault:
                wrongs[lane] = np.uint64(1)
            elif wrongs[lane] == 0:
                touched[count] = places[lane]
                count += 1
    return count


@_compiled
def step(
    addresses: NDArray[np.uint64], shifts: NDArray[np.uint8], permissions: NDArray[np.uint8],
    numbers: NDArray[np.int32], slots: NDArray[np.uint64],
    alike: bool,  # noqa: FBT001  (numba's dispatcher)
    words: NDArray[np.uint64], tests: NDArray[np.uint64], rules: NDArray[np.uint64], runs: NDArray[np.uint64],
    fields: NDArray[np.uint64], bad: NDArray[np.bool_], touched: NDArray[np.int64],
) -> tuple[int, int]:  # fmt: skip
    """Read and decode one entry for each lane; return how many lanes are bad, and how many entries were touched.

    :param fields: output mask, address shift, mask of what has to be aligned, what is granted, permission, accessed and
        dirty bits, whether to fault without.
    """
    scratch = np.empty((5, BLOCK), np.uint64)
    scratch[1] = slots[2, 0]
    failed, count = np.uint64(0), 0
    for start in range(0, len(addresses), BLOCK):
        end = min(start + BLOCK, len(addresses))
        here, size = addresses[start:end], end - start
        entries, metas, places = scratch[0, :size], scratch[1, :size], scratch[2, :size]
        wrongs, outputs = scratch[3, :size], scratch[4, :size]
        _read(here, numbers[start:end], slots, alike, words, entries, metas, places)
        _test(entries, metas, tests, rules, wrongs)
        _output(here, entries, metas, fields[0], fields[1], fields[2], wrongs, outputs)
        _permit(entries, runs, fields[3], fields[4], wrongs, permissions[start:end])
        if fields[5]:
            count = _touch(entries, places, fields[5], fields[6], wrongs, touched, count)
        failed += _settle(here, outputs, metas, wrongs, shifts[start:end], bad[start:end])
    return int(failed), count
