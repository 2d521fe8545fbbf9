"""What commands print and write."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import typer

from nestmmu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

T = TypeVar("T")
_WIDTH_OF_FILES = 160


def print_json(value: Any) -> None:  # noqa: ANN401  (any JSON)
    """Print one JSON value."""
    typer.echo(json.dumps(value, indent=1))


def console() -> Console:
    """Return what tables and trees are printed with; wide where no one's terminal says how wide."""
    from rich.console import Console  # noqa: PLC0415  (slow to import)

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when all of it is written.

    :raises InputError: if it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(path, "--output", str(error.strerror), "name a file in a folder that you may write") from None
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
            raise InputError(path, "--output", str(error.strerror), "name a file that can be written") from None
        raise


def followed(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``items``, with a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console  # noqa: PLC0415  (slow to import)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)
