"""How a command ends in an error: one line on stderr, and exit status 2."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from nestmmu.errors import NestmmuError

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_DIFFERENT = 1
EXIT_BAD_INPUT = 2

F = TypeVar("F", bound="Callable[..., Any]")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.", hidden=True)]


class _Debugging:
    """Whether errors show a traceback: ``--debug``, before or after the command's name."""

    enabled = False


debugging = _Debugging()


def guarded(command: F) -> F:
    """Make errors of the model, and of the system, end the command in one line."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:  # noqa: ANN401  (any command)
        debugging.enabled = options.get("debug") or debugging.enabled
        try:
            return command(*args, **options)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except (NestmmuError, OSError, MemoryError) as error:
            if debugging.enabled:
                raise
            typer.echo(f"nestmmu: {_line(error)}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from None

    return run  # type: ignore[return-value]


def _line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; give a smaller input, or run where there is more"
    return " ".join(str(error).split())


def address_argument(text: str) -> int:
    """Return an address given as 0x1000, 0o17 or 4096.

    :raises InputError: if it is no number of 64 bits.
    """
    from nestmmu.images.documents import number  # noqa: PLC0415  (lazy: see the package)

    return number(text, "ADDRESS", "")
