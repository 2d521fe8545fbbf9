"""What commands print and write."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from nestmmu.files import output_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

__all__ = ["console", "followed", "output_file", "print_json", "progress_bar"]

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
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give what follows (done, total) with a bar on stderr; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  (slow to import)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


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
