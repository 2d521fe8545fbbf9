"""Recorded hash translations, made again on a fresh CPU each."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nestmmu.errors import InputError, NestmmuError
from nestmmu_ppc64_book3s.replay import Book3sReplayer
from nestmmu_ppc64_hpt.cpu import Power9Hash
from nestmmu_ppc64_hpt.slb import Slb

if TYPE_CHECKING:
    from nestmmu.memory import JournaledMemory
    from nestmmu.vectors import Scene
    from nestmmu_ppc64_book3s.registers import Registers


class HashReplayer(Book3sReplayer):
    """Makes the accesses of one file, each with its scene's segments."""

    def cpu(self, scene: Scene, registers: Registers, memory: JournaledMemory) -> Power9Hash:
        """Return a CPU with the scene's SLB, as the recording machine was."""
        pairs = cast("list[tuple[int, int]]", scene.extra.get("slb", []))
        try:
            slb = Slb([(esid, vsid) for esid, vsid in pairs])
        except (TypeError, ValueError, IndexError, NestmmuError) as error:
            raise InputError(self.path, "slb", str(error), "give pairs of ESID and VSID words, 32 at most") from None
        return Power9Hash(registers, memory, slb, real_mode_keys=True)
