"""Recorded translations of a POWER9, made again on a fresh CPU each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.errors import InputError
from nestmmu.memory import JournaledMemory
from nestmmu_ppc64_book3s.interrupts import DSISR_PRTABLE_FAULT, DSISR_SET_RC, VECTOR_NAMES
from nestmmu_ppc64_book3s.registers import MSR_IR, Registers, machine_state
from nestmmu_ppc64_book3s.threads import Reached

if TYPE_CHECKING:
    from nestmmu.vectors import RecordedAccess, Scene, Vectors
    from nestmmu_ppc64_book3s.threads import Thread

Fields = dict[str, "int | bool"]
_MODE = ("hv", "pr", "real", "insn")
_WORD = 8


class Book3sReplayer:
    """Makes the accesses of one file. Registers that an interrupt left zero are absent from its fields."""

    def __init__(self, vectors: Vectors) -> None:
        self.path = vectors.path
        self._scene: Scene | None = None
        self._memory = JournaledMemory()

    def cpu(self, scene: Scene, registers: Registers, memory: JournaledMemory) -> Thread:
        """Return a fresh CPU for a scene."""
        raise NotImplementedError

    def _registers(self, scene: Scene, recorded: RecordedAccess) -> Registers:
        try:
            registers = Registers.from_recorded(scene.registers)
        except ValueError as error:
            raise InputError(self.path, "regs", str(error), "name registers of a POWER9 CPU") from None
        mode = {name: bool(recorded.fields.get(name)) for name in ("hv", "pr", "real")}
        registers.msr = machine_state(**mode, fetch=recorded.access is Access.FETCH)
        return registers

    def perform(self, scene: Scene, recorded: RecordedAccess) -> tuple[Fields, list[tuple[int, int]]]:
        """Return the computed fields, by the recorded fields' names, and the (address, word) pairs that changed."""
        if scene is not self._scene:
            self._scene = scene
            self._memory = JournaledMemory()
            for address, word in scene.words:
                self._memory.store(address, word, _WORD, "big")
        self._memory.commit()
        cpu = self.cpu(scene, self._registers(scene, recorded), self._memory)
        at = recorded.fields.get("insn", recorded.ea)
        fetch_msr = cpu.registers.msr if recorded.fields.get("pr") else cpu.registers.msr & ~MSR_IR
        result = cpu.execute(recorded.access, recorded.ea, at, fetch_msr)
        changed = self._memory.changes(_WORD, "big")
        self._memory.rollback()
        if isinstance(result, Reached):
            return {"ra": result.address}, changed
        written = {name: value for name, value in result.registers.items() if value}
        return {"vector": result.vector, "msr_hv": result.hv, **written}, changed

    def comparable(self, recorded: Fields, computed: Fields) -> tuple[Fields, Fields]:
        """Return both without the mode, and without what the machine lacks: HDSISR 0x00020000 beside 0x00040000."""
        left = {
            name: value for name, value in recorded.items() if name not in _MODE and (value or name in {"ra", "msr_hv"})
        }
        right = dict(computed)
        for fields in (left, right):
            if fields.get("hdsisr", 0) & DSISR_SET_RC:
                fields["hdsisr"] &= ~DSISR_PRTABLE_FAULT
        return left, right

    def outcome(self, fields: Fields) -> str:
        """Return ``reached``, or the name of an interrupt."""
        if "ra" in fields:
            return "reached"
        vector = int(fields.get("vector", 0))
        return VECTOR_NAMES.get(vector, f"{vector:#x}")
