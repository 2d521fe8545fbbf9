"""Recorded radix translations, made again on a fresh CPU each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.errors import InputError
from nestmmu.formats import AccessedDirty
from nestmmu_ppc64_book3s.replay import Book3sReplayer
from nestmmu_ppc64_radix.cpu import Power9Radix

if TYPE_CHECKING:
    from nestmmu.memory import JournaledMemory
    from nestmmu.vectors import Scene, Vectors
    from nestmmu_ppc64_book3s.registers import Registers


class RadixReplayer(Book3sReplayer):
    """Makes the accesses of one file, on a CPU that does with R and C as the file says."""

    def __init__(self, vectors: Vectors) -> None:
        super().__init__(vectors)
        rc = vectors.options.get("rc", "update")
        if rc not in {"update", "fault"}:
            raise InputError(vectors.path, "rc", f"is {rc!r}", "say update or fault")
        self.reference_change = AccessedDirty(rc)

    def cpu(self, scene: Scene, registers: Registers, memory: JournaledMemory) -> Power9Radix:
        """Return a CPU as the recording machine was."""
        del scene
        return Power9Radix(registers, memory, reference_change=self.reference_change, real_guest_tables=True)
