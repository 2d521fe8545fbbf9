"""Many accesses of a CPU at once are the same accesses one by one: recorded ones, and all that the nest's L2 made."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nestmmu.access import Access
from nestmmu.batch import translate_many
from nestmmu.errors import NestmmuError
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.vectors import Scene, Vectors, read_vectors
from nestmmu_ppc64_book3s.interrupts import (
    VECTOR_DSEG,
    VECTOR_DSI,
    VECTOR_HDSI,
    VECTOR_HISI,
    VECTOR_ISEG,
    VECTOR_ISI,
)
from nestmmu_ppc64_book3s.registers import Registers, machine_state
from nestmmu_ppc64_radix.cpu import PARTITION, PROCESS, Power9Radix

if TYPE_CHECKING:
    from pathlib import Path

    from nestmmu.translations import FaultSummary
    from nestmmu.vectors import RecordedAccess

Mode = tuple[bool, bool, bool, Access]
FETCHES = {VECTOR_ISI, VECTOR_ISEG, VECTOR_HISI}


def memory_of(scene: Scene) -> PhysicalMemory:
    memory = PhysicalMemory()
    for address, word in scene.words:
        memory.store(address, word, 8, "big")
    return memory


def modes(scene: Scene) -> dict[Mode, list[RecordedAccess]]:
    found: dict[Mode, list[RecordedAccess]] = defaultdict(list)
    for one in scene.accesses:
        hv, pr, real = (bool(one.fields.get(name)) for name in ("hv", "pr", "real"))
        found[hv, pr, real, one.access].append(one)
    return found


def cpu_of(vectors: Vectors, scene: Scene, mode: Mode, memory: PhysicalMemory) -> Power9Radix:
    hv, pr, real, access = mode
    registers = Registers.from_recorded(scene.registers)
    registers.msr = machine_state(hv=hv, pr=pr, real=real, fetch=access is Access.FETCH)
    policy = AccessedDirty(vectors.options.get("rc", "update"))
    return Power9Radix(registers, memory, reference_change=policy, real_guest_tables=True)


def vector_of(fault: FaultSummary, access: Access) -> int:
    """Return the interrupt of a fault, by the ISA: of the scope at fault, and of data or instructions."""
    fetch = access is Access.FETCH
    if fault.kind is FaultKind.INPUT_RANGE:
        return VECTOR_ISEG if fetch else VECTOR_DSEG
    if fault.stage == PARTITION:
        return VECTOR_HISI if fetch else VECTOR_HDSI
    assert fault.stage == PROCESS
    return VECTOR_ISI if fetch else VECTOR_DSI


@pytest.mark.parametrize("name", ["ppc64_radix", "ppc64_radix_rcfault"])
def test_recorded_accesses_end_where_they_did(data: Path, name: str) -> None:
    vectors = read_vectors(data / f"{name}.json.gz")
    reached = faulted = 0
    for scene in vectors.scenes:
        memory = memory_of(scene)
        for mode, accesses in modes(scene).items():
            access = mode[-1]
            # A load whose instruction could not be fetched was not made.
            made = [one for one in accesses if access is Access.FETCH or one.fields.get("vector") not in FETCHES]
            addresses = np.array([one.ea for one in made], np.uint64)
            found = translate_many(cpu_of(vectors, scene, mode, memory), addresses, access)
            for index, one in enumerate(made):
                fault = found.fault(index)
                if fault is None:
                    assert one.fields["ra"] == found.outputs[index]
                    reached += 1
                else:
                    assert one.fields["vector"] == vector_of(fault, access)
                    faulted += 1
    assert reached > 500
    assert faulted > 500


def test_reference_and_change_are_set_as_by_the_accesses_one_by_one(data: Path) -> None:
    vectors = read_vectors(data / "ppc64_radix.json.gz")
    changed = 0
    for scene in vectors.scenes[::12]:
        for mode, accesses in modes(scene).items():
            before, one_by_one, at_once = (memory_of(scene) for _ in range(3))
            cpu = cpu_of(vectors, scene, mode, one_by_one)
            for one in accesses:
                cpu.access(mode[-1], one.ea)
            addresses = np.array([one.ea for one in accesses], np.uint64)
            translate_many(cpu_of(vectors, scene, mode, at_once), addresses, mode[-1])
            for number in before.frame_numbers():
                old = before.read(number << 12, 4096)
                assert at_once.read(number << 12, 4096) == old
            translate_many(cpu_of(vectors, scene, mode, at_once), addresses, mode[-1], update=True)
            for number in before.frame_numbers():
                new = one_by_one.read(number << 12, 4096)
                assert at_once.read(number << 12, 4096) == new
                changed += new != before.read(number << 12, 4096)
    assert changed > 20


def test_what_a_batch_cannot_do_is_said(data: Path) -> None:
    vectors = read_vectors(data / "ppc64_radix.json.gz")
    scene = vectors.scenes[0]
    registers, memory = Registers.from_recorded(scene.registers), memory_of(scene)
    with pytest.raises(NestmmuError, match="one access at a time"):
        translate_many(Power9Radix(registers, memory, guarded_updates=True), [0], Access.LOAD)
    with pytest.raises(NestmmuError, match="name one"):
        translate_many(Power9Radix(registers, memory), [0], None)
