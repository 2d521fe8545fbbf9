"""Kinds of access, and the permissions that they need."""

from __future__ import annotations

import enum

EXECUTE = 1
WRITE = 2
READ = 4
ALL_PERMISSIONS = READ | WRITE | EXECUTE


class Access(enum.IntEnum):
    """One load, store or instruction fetch; the value is the permission that it needs."""

    FETCH = EXECUTE
    STORE = WRITE
    LOAD = READ

    @property
    def label(self) -> str:
        """The name as files and messages have it: ``load``, ``store`` or ``fetch``."""
        return self.name.lower()


def permission_text(permissions: int) -> str:
    """Return permissions as ``rwx``, with ``-`` for each that is missing."""
    return "".join(letter if permissions & bit else "-" for letter, bit in (("r", READ), ("w", WRITE), ("x", EXECUTE)))
