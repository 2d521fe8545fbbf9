"""What a refusal of a reader must look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nestmmu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def check_refusal(error: InputError, field: str | None = None) -> None:
    """Check that an error is one printable line of bounded length with the file, the field and the remedy."""
    line = str(error)
    assert line.isprintable()
    assert len(line) < len(error.where) + 500
    assert line.startswith(f"{error.where}: {error.field}" if error.field else f"{error.where}: ")
    assert error.problem
    assert error.remedy
    assert line.endswith(f"; {' '.join(error.remedy.split())}")
    assert field is None or error.field == field


def refused(read: Callable[[Path], object], path: Path, field: str, says: str, *, file: str = "") -> None:
    """Check that ``read`` refuses ``path``: the file, the field, and words of the problem.

    :param file: the name of the file that is at fault, if not that of ``path``.
    """
    with pytest.raises(InputError) as caught:
        read(path)
    check_refusal(caught.value, field)
    assert caught.value.where == str(path.with_name(file) if file else path)
    assert says in caught.value.problem
