"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nestmmu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def output_file(path: Path, field: str = "") -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when all of it is written.

    :param field: what an error is to name beside the path.
    :raises InputError: if it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(
            path, field, (error.strerror or "cannot be written").lower(), "name a file in a folder that you may write"
        ) from None
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(
                path, field, (error.strerror or "cannot be written").lower(), "name a file that can be written"
            ) from None
        raise


def _why(error: OSError) -> str:
    return (error.strerror or "cannot be written").lower()
