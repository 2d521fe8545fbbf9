"""Recorded translations of a RISC-V hart, made again on a fresh one each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.errors import InputError, NestmmuError
from nestmmu.memory import JournaledMemory
from nestmmu.slots import Slot, Slots
from nestmmu_riscv.cpu import Reached, RiscvCpu
from nestmmu_riscv.csrs import PAGE_SHIFT, Registers
from nestmmu_riscv.traps import NAMES, PSEUDO_READ, PSEUDO_WRITE

if TYPE_CHECKING:
    from nestmmu.vectors import RecordedAccess, Scene, Vectors

Fields = dict[str, "int | bool"]
_MODE = ("user", "insn")
_WORD = 8


class RiscvReplayer:
    """Makes the accesses of one file: of VS-mode or VU-mode, with traps taken into M-mode."""

    def __init__(self, vectors: Vectors) -> None:
        self.path = vectors.path
        self.ram = self._ram(vectors)
        self._scene: Scene | None = None
        self._memory = JournaledMemory()

    def _ram(self, vectors: Vectors) -> Slot | None:
        base, size = vectors.options.get("ram_base", 0), vectors.options.get("ram_size")
        if size is None:
            return None
        if not isinstance(base, int) or not isinstance(size, int):
            raise InputError(self.path, "ram_base, ram_size", "are no numbers", "give bytes")
        slot = Slot(base, size)
        try:
            Slots((slot,))
        except NestmmuError as error:
            raise InputError(self.path, "ram_size", str(error), "give a range of physical addresses") from None
        if (base | size) % (1 << PAGE_SHIFT):
            raise InputError(self.path, "ram_base, ram_size", "are no whole pages", "give multiples of 4096")
        return slot

    def _registers(self, scene: Scene, recorded: RecordedAccess) -> Registers:
        try:
            registers = Registers.from_recorded(scene.registers)
        except ValueError as error:
            raise InputError(self.path, "regs", str(error), "name registers of a RISC-V hart") from None
        registers.user = bool(recorded.fields.get("user"))
        return registers

    def perform(self, scene: Scene, recorded: RecordedAccess) -> tuple[Fields, list[tuple[int, int]]]:
        """Return the computed fields, by the recorded fields' names, and the (address, word) pairs that changed."""
        if scene is not self._scene:
            self._scene = scene
            self._memory = JournaledMemory()
            for address, word in scene.words:
                self._memory.store(address, word, _WORD, "little")
        self._memory.commit()
        cpu = RiscvCpu(self._registers(scene, recorded), self._memory, ram=self.ram)
        at = int(recorded.fields.get("insn", recorded.ea))
        result = cpu.execute(recorded.access, recorded.ea, at)
        changed = self._memory.changes(_WORD, "little")
        self._memory.rollback()
        if isinstance(result, Reached):
            return {"ra": result.address}, changed
        return dict(result.written("m")), changed

    def comparable(self, recorded: Fields, computed: Fields) -> tuple[Fields, Fields]:
        """Return both without the mode, and without a transformed instruction, which may as well be 0."""
        left = {name: value for name, value in recorded.items() if name not in _MODE}
        if left.get("mtinst", 0) not in {PSEUDO_READ, PSEUDO_WRITE, 0}:
            left["mtinst"] = 0
        return left, dict(computed)

    def outcome(self, fields: Fields) -> str:
        """Return ``reached``, or the name of an exception."""
        if "ra" in fields:
            return "reached"
        cause = int(fields.get("mcause", 0))
        return NAMES.get(cause, f"cause {cause}")
