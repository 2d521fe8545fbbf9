"""Hypervisors in HS-mode upon each other: every access against the truth, every invariant at every level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.demo import Broken, Demo
from nestmmu.errors import NestmmuError
from nestmmu.events import Event
from nestmmu.formats import AccessedDirty
from nestmmu.hookspecs import hookimpl
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.plugins import Plugins
from nestmmu.quirks import Invariant
from nestmmu.stack import Stack
from nestmmu_riscv import stack as riscv_stack
from nestmmu_riscv.fences import Fence, FenceKind
from nestmmu_riscv.stack import RiscvLevel, RiscvMachine, fence_for, root_of

if TYPE_CHECKING:
    from nestmmu.memory import Memory

TAG = HardwareTag(4)


class Harts:
    """A plugin that gives machines whose harts do with A and D as told."""

    def __init__(self, accessed_dirty: AccessedDirty) -> None:
        self.accessed_dirty = accessed_dirty

    @hookimpl(tryfirst=True)
    def nestmmu_machine(
        self, arch: str, make_cpu: Callable[..., Any], announce: Callable[[Event], None]
    ) -> RiscvMachine | None:
        return RiscvMachine(make_cpu, announce, accessed_dirty=self.accessed_dirty) if arch == "riscv" else None


def broken(depth: int, seed: int, events: int, accessed_dirty: AccessedDirty = AccessedDirty.UPDATE) -> list[Broken]:
    """Run a random program, and return the invariants that did not hold."""
    plugins = Plugins()
    plugins.register(Harts(accessed_dirty), "harts")
    return [one for found in Demo(plugins, "riscv", depth, seed).run(events) for one in found]


@pytest.mark.parametrize("accessed_dirty", [AccessedDirty.UPDATE, AccessedDirty.FAULT])
@pytest.mark.parametrize(("depth", "events"), [(1, 150), (2, 120), (3, 40)])
def test_every_level_is_right_all_the_time(depth: int, events: int, accessed_dirty: AccessedDirty) -> None:
    assert broken(depth, depth, events, accessed_dirty) == []


def test_without_fences_of_l1_its_shadow_goes_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riscv_stack, "ask", lambda *_: None)
    found = {one.violation.invariant for one in broken(2, 2, 60)}
    assert found & {Invariant.SOUNDNESS, Invariant.INVALIDATION, Invariant.EQUIVALENCE}


def test_a_page_is_one_fence_at_its_first_address_and_all_else_a_fence_of_the_vmid() -> None:
    page = Flush(TAG, FlushKind.PAGE, 0x20_0000, 21)
    assert fence_for(page) == Fence(FenceKind.HFENCE_GVMA, 0x8_0000, 4)
    for kind in (FlushKind.TAG, FlushKind.WALK_CACHE, FlushKind.TRANSLATIONS):
        assert fence_for(Flush(TAG, kind)) == Fence(FenceKind.HFENCE_GVMA, None, 4)


def machine() -> Stack:
    """Return two hypervisors: L0 with pages of 2 MiB, L1 with such of 4 KiB."""
    plugins = Plugins()

    def make(arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty) -> object:
        return plugins.cpu(arch, registers, memory, accessed_dirty)

    return Stack(RiscvMachine(make), 2, [21, 12])


def test_an_access_of_the_innermost_guest_takes_what_the_levels_lack() -> None:
    stack = machine()
    first = stack.access(2, Access.STORE, 0x1238)
    assert first.address == stack.where(2, 0x1238)
    # L2's page: L0 reflects, L1 maps it (and L0 L1's tables on the way); L1's fence; L0 shadows; and then it is there.
    outer, inner = stack.levels
    assert (outer.reflected, inner.faults) == (1, 1)
    before = outer.faults
    assert stack.access(2, Access.LOAD, 0x1230).address == stack.where(2, 0x1230)
    assert outer.faults == before
    shadow = next(iter(outer.guest.nested.values())).shadow.lookup(0x1000)
    assert shadow is not None
    assert (shadow.page_shift, shadow.target_start) == (12, stack.where(2, 0x1000))


def test_l1_runs_its_guest_by_hgatp() -> None:
    stack = machine()
    stack.access(2, Access.LOAD, 0)
    outer, inner = stack.levels
    assert isinstance(outer, RiscvLevel)
    assert isinstance(inner, RiscvLevel)
    root = inner.guest.table.table.root.base
    assert outer.l1.registers.hgatp == 8 << 60 | int(inner.guest.tag) << 44 | root >> 12
    assert list(outer.guest.nested) == [AssignedTag(int(inner.guest.tag))]
    with pytest.raises(NestmmuError, match="L1 has no guest of VMID 77"):
        root_of(inner, HardwareTag(77))
    assert not outer.l1.registers.virtual


def test_without_a_vmid_l1_cannot_run_its_guest() -> None:
    stack = machine()
    outer = stack.levels[0]
    assert isinstance(outer, RiscvLevel)
    outer.host.tags.limit = 2
    with pytest.raises(NestmmuError, match="L0 cannot run guest 1 of its guest: no VMID"):
        stack.access(2, Access.LOAD, 0)
