"""Batches compiled by numba, where it is installed (``pip install nestmmu[jit]``): :mod:`nestmmu.jit_loops`, called."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from nestmmu.addresses import low_mask
from nestmmu.errors import NestmmuError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.batch_formats import EntryArrays
    from nestmmu.batch_tables import Checks, TableStage
    from nestmmu.prefixes import PrefixIndex
    from nestmmu.translations import Lanes

WORTH = 1 << 17
"""From how many addresses on compiling, or loading what was compiled before, pays."""
_MOST_RUNS, _MOST_BITS = 2, 4
"""What the loops hold of a format's permissions: so many runs of bits, and 16 values of 4 bits in a word."""


def kernels_for(total: int, jit: bool | None) -> Kernels | None:  # noqa: FBT001  (a choice of three, handed through)
    """Return the compiled loops, or None where numpy is to do it.

    :param total: how many addresses there are.
    :param jit: whether to compile; None: if numba is installed and it pays.
    :raises NestmmuError: if it is asked for and numba is not installed.
    """
    if jit is False or (jit is None and total < WORTH):
        return None
    if importlib.util.find_spec("numba") is None:
        if jit:
            message = "numba is not installed; install nestmmu[jit], or do without jit"
            raise NestmmuError(message)
        return None
    return _kernels()


@functools.cache
def _kernels() -> Kernels:
    return Kernels()


class Kernels:
    """The compiled loops."""

    def __init__(self) -> None:
        from nestmmu import jit_loops  # noqa: PLC0415  (it needs numba, which takes a second to import)

        self._find: Any = jit_loops.find
        self._step: Any = jit_loops.step

    @staticmethod
    def can(entries: EntryArrays) -> bool:
        """Tell whether the loops can decode a format."""
        if not entries.format.simple:
            return False
        return len(entries.permission_bits.runs) <= _MOST_RUNS and entries.permission_bits.count <= _MOST_BITS

    def find(
        self, addresses: NDArray[np.uint64], input_mask: np.uint64, shift: int, index: PrefixIndex
    ) -> NDArray[np.int32]:
        """Return the number of each address's prefix, or -1; the index is dense."""
        numbers = np.empty(len(addresses), np.int32)
        self._find(addresses, input_mask, np.uint64(shift), np.uint64(index.first), index.window, numbers)
        return numbers

    def step(
        self, stage: TableStage, lanes: Lanes, numbers: NDArray[np.int32], words: NDArray[np.uint64], checks: Checks
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Do as :class:`~nestmmu.batch_tables.TableStage` does without."""
        count = len(lanes)
        bad = np.empty(count, np.bool_)
        touched = np.empty(count if checks.needed and not checks.fault else 0, np.int64)
        failed, noted = self._step(
            lanes.addresses, lanes.shifts, lanes.permissions, numbers, stage.slots, stage.alike, words,
            stage.entries.tests, *_plan(stage.entries, checks), bad, touched,
        )  # fmt: skip
        return (np.flatnonzero(bad) if failed else np.zeros(0, np.intp)), touched[:noted]


@functools.lru_cache(maxsize=64)
def _plan(entries: EntryArrays, checks: Checks) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the rules, the runs of permission bits and the fields that :func:`nestmmu.jit_loops.step` takes."""
    form = entries.format
    forbidden = (*form.reserved, checks.refused)
    rules = np.array([(match.mask, match.value) for match in forbidden], np.uint64)
    granted = sum(int(value) << 4 * index for index, value in enumerate(entries.permission_table))
    strict = low_mask(64) if form.strict_output else 0
    fields = (form.output_mask, form.address_shift, strict, granted, checks.permission, checks.needed, checks.fault)
    return rules, _two_runs(entries.permission_bits.runs), np.array(fields, np.uint64)


def _two_runs(runs: list[tuple[int, int]]) -> NDArray[np.uint64]:
    """Return (shift, mask, shift in the index) of two runs of bits, those that are not there empty."""
    rows = np.zeros((_MOST_RUNS, 3), np.uint64)
    taken = 0
    for row, (shift, width) in enumerate(runs):
        rows[row] = shift, low_mask(width), taken
        taken += width
    return rows
