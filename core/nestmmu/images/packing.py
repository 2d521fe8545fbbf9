"""Images written: of any memory, only what its tables reach, as a nest-image/1."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.errors import InputError
from nestmmu.files import output_file
from nestmmu.images.opening import document_text
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from nestmmu.images.nest import NestImage

FRAME_LIMIT = (1 << 30) // FRAME_BYTES
"""How many frames an image may have: what a reader takes."""


@attrs.frozen
class Packed:
    """What was written."""

    frames: int
    """How many frames were kept."""
    zero: int
    """How many more are reached, and read as zero: they are left out."""


def pack(
    image: NestImage,
    numbers: NDArray[np.uint64],
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Write an image with some frames of its memory: ``NAME.json``, ``NAME.pages.npz`` and ``NAME.accesses.npz``.

    The three appear when all is written. The same image makes the same bytes.

    :param numbers: of the frames to keep, rising, shape (n,).
    :param path: ends in ``.json``.
    :param progress: called now and then with how many frames were read, and how many there are.
    :raises InputError: if the path has another ending, if a file cannot be written, or there are more frames than
        :data:`FRAME_LIMIT`.
    """
    if path.suffix != ".json":
        raise InputError(path, "--output", "does not end in .json", "name it so; two files are written beside it")
    if len(numbers) > FRAME_LIMIT:
        problem = f"tables of {len(numbers)} frames are reached"
        raise InputError(path, "", problem, f"an image holds at most {FRAME_LIMIT}; use the memory as it is")
    memory = image.memory()
    data = np.empty((len(numbers), FRAME_BYTES), np.uint8)
    for row, number in enumerate(numbers.tolist()):
        data[row] = np.frombuffer(memory.read(number << FRAME_SHIFT, FRAME_BYTES), np.uint8)
        if progress is not None and row % 1024 == 0:
            progress(row, len(numbers))
    kept = data.any(axis=1)
    pages, accesses = (path.with_name(f"{path.stem}.{part}.npz") for part in ("pages", "accesses"))
    # The document is the last to appear: it is what names the others.
    with contextlib.ExitStack() as stack:
        document = stack.enter_context(output_file(path, "--output"))
        document.write(document_text(image, pages.name, accesses.name).encode())
        np.savez_compressed(stack.enter_context(output_file(pages, "--output")), frame=numbers[kept], data=data[kept])
        np.savez_compressed(stack.enter_context(output_file(accesses, "--output")), **image.columns)  # type: ignore[arg-type]
    return Packed(int(kept.sum()), int((~kept).sum()))
