"""Arrays of whole numbers, from whoever gives them; and room for many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nestmmu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def integer_array(values: Any, top: int, where: object, name: str) -> NDArray[Any]:  # noqa: ANN401  (that is the question)
    """Return values as an array of integers from 0 to ``top``, shape (n,), of the dtype that they have.

    A list of ``int`` is taken exactly, as uint64: numpy would make floats of some.

    :param where: what an error is to name, with ``name`` for the part of it.
    :raises InputError: if they are anything else.
    """
    shown = "2^64-1" if top == (1 << 64) - 1 else str(top)
    remedy = f"give whole numbers from 0 to {shown} in one row, as a numpy array of unsigned integers"
    if isinstance(values, list | tuple) and all(type(value) is int for value in values):
        wrong = next((value for value in values if not 0 <= value <= top), None)
        if wrong is not None:
            raise InputError(where, name, f"has a number {wrong}", remedy)
        return np.array(values, np.uint64)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError, TypeError):
        raise InputError(where, name, "is no array of numbers", remedy) from None
    if array.ndim != 1:
        raise InputError(where, name, f"has shape {array.shape}", remedy)
    if not len(array):
        return np.zeros(0, np.uint64)
    if array.dtype.kind not in "ui":
        raise InputError(where, name, f"has dtype {array.dtype}", remedy)
    if (array.dtype.kind == "i" and int(array.min()) < 0) or int(array.max()) > top:
        wrong = array[np.argmax((array < 0) | (array > min(top, np.iinfo(array.dtype).max)))]
        raise InputError(where, name, f"has a number {wrong}", remedy)
    return array


def together(count: int, kinds: Sequence[Any]) -> list[NDArray[Any]]:
    """Return empty arrays of ``count`` elements, widest dtype first, in one piece of memory.

    One large piece is given in large pages, and so costs a fraction of what its parts would when first written.
    """
    sizes = [np.dtype(kind) for kind in kinds]
    buffer = np.empty(count * sum(size.itemsize for size in sizes), np.uint8)
    arrays, at = [], 0
    for size in sizes:
        end = at + count * size.itemsize
        arrays.append(buffer[at:end].view(size))
        at = end
    return arrays
