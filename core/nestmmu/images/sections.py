"""Objects of an untrusted JSON document, whose values are checked as they are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import attrs

from nestmmu.access import Access
from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MOST_LETTERS = 1000
"""The longest text that a document may hold."""
_SHOWN_LETTERS = 60
_KINDS = {access.label: access for access in Access}


def shown(value: object) -> str:
    """Return an untrusted value for a message: short, and in ASCII without control characters."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >> 128:
        return f"a number of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."


def shown_name(name: str) -> str:
    """Return an untrusted name for the path of a field: as it is where it is plain, else quoted."""
    return name if name.isascii() and name.isidentifier() and len(name) <= _SHOWN_LETTERS else shown(name)


def is_number(value: object, limit: int = ADDRESS_LIMIT) -> TypeGuard[int]:
    """Tell whether a value of a document is an integer from 0 on and below ``limit``; true and 1.0 are none."""
    return type(value) is int and 0 <= value < limit


def not_a_number(where: object, field: str, value: object, limit: int = ADDRESS_LIMIT) -> InputError:
    """Return the error that says that a value fails :func:`is_number`."""
    return InputError(where, field, f"is {shown(value)}", f"give an integer from 0 to {limit - 1:#x}")


@attrs.frozen
class Section:
    """One object of a document."""

    where: Path
    """The file."""
    name: str
    """Where in the file: ``l1``, ``l2.slots[3]``; empty for the whole."""
    values: Mapping[str, object]

    @classmethod
    def of(cls, where: Path, name: str, value: object) -> Section:
        """Return ``value``, which must be an object, as a section.

        :raises InputError: if it is none.
        """
        if not isinstance(value, dict):
            raise InputError(where, name, f"is {shown(value)}", "give an object")
        return cls(where, name, value)

    def field(self, name: str) -> str:
        """Return the path of one of this section's fields, as messages have it."""
        return f"{self.name}.{shown_name(name)}" if self.name else shown_name(name)

    def get(self, name: str) -> object:
        """Return a value as it is.

        :raises InputError: if it is missing.
        """
        if name not in self.values:
            raise InputError(self.where, self.field(name), "is missing", "add it")
        return self.values[name]

    def number(self, name: str, *, limit: int = ADDRESS_LIMIT) -> int:
        """Return an integer that must be there.

        :param limit: the first number that is too large.
        :raises InputError: if it is missing, or not an integer from 0 on and below ``limit``.
        """
        value = self.get(name)
        if not is_number(value, limit):
            raise not_a_number(self.where, self.field(name), value, limit)
        return value

    def optional(self, name: str, *, limit: int = ADDRESS_LIMIT) -> int | None:
        """Return an integer; None if it is null or missing.

        :param limit: the first number that is too large.
        :raises InputError: if it is anything else.
        """
        return None if self.values.get(name) is None else self.number(name, limit=limit)

    def text(self, name: str) -> str:
        """Return a text that must be there: printable, at most :data:`MOST_LETTERS` letters.

        :raises InputError: if it is not.
        """
        value = self.get(name)
        if not isinstance(value, str):
            raise InputError(self.where, self.field(name), f"is {shown(value)}", "give a text")
        if len(value) > MOST_LETTERS or not value.isprintable():
            remedy = f"give at most {MOST_LETTERS} printable letters"
            raise InputError(self.where, self.field(name), f"is {shown(value)}", remedy)
        return value

    def access(self, name: str) -> Access:
        """Return a kind of access that must be there, written ``load``, ``store`` or ``fetch``.

        :raises InputError: if it is not.
        """
        value = self.get(name)
        if not isinstance(value, str) or value not in _KINDS:
            raise InputError(self.where, self.field(name), f"is {shown(value)}", f"give one of {', '.join(_KINDS)}")
        return _KINDS[value]

    def section(self, name: str) -> Section:
        """Return an object that must be there.

        :raises InputError: if it is not.
        """
        return Section.of(self.where, self.field(name), self.get(name))

    def items(self, name: str, most: int) -> list[object]:
        """Return a list that must be there.

        :raises InputError: if it is not, or longer than ``most``.
        """
        value = self.get(name)
        if not isinstance(value, list):
            raise InputError(self.where, self.field(name), f"is {shown(value)}", "give a list")
        if len(value) > most:
            raise InputError(self.where, self.field(name), f"has {len(value):,} items", f"give at most {most:,}")
        return value

    def sections(self, name: str, most: int) -> list[Section]:
        """Return a list of objects that must be there.

        :raises InputError: if it is not, or longer than ``most``.
        """
        field = self.field(name)
        return [Section.of(self.where, f"{field}[{at}]", item) for at, item in enumerate(self.items(name, most))]
