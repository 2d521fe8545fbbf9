"""How a test of the suite speaks: it raises, with what was found, what was expected, and of what."""

from __future__ import annotations

from typing import Any


class ConformanceError(AssertionError):
    """An architecture does not do what its declaration, or every architecture, has to."""


class NotApplicableError(Exception):
    """What a test asks is nothing that the architecture declares; the message says what."""


def applies(holds: object, why_not: str) -> None:
    """Go on if ``holds`` is true; else the test is skipped.

    :raises NotApplicableError: saying ``why_not``.
    """
    if not holds:
        raise NotApplicableError(why_not)


def require(holds: object, what: str) -> None:
    """Go on if ``holds`` is true.

    :raises ConformanceError: saying ``what`` had to be.
    """
    if not holds:
        raise ConformanceError(what)


def equal(found: Any, expected: Any, what: str) -> None:  # noqa: ANN401  (anything that compares)
    """Go on if both are equal.

    :raises ConformanceError: with both, and of ``what``.
    """
    if found != expected:
        message = f"{what}: found {_text(found)}, expected {_text(expected)}"
        raise ConformanceError(message)


def _text(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_text, value)) + ")"
    return str(value)
