"""The stages of translation as a CPU walks them: what a table permits hangs on the mode, on MXR and on SUM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.access import EXECUTE, READ, Access
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu.memory import TranslatedMemory
from nestmmu.radix import Found, RadixTable, RadixWalker, Root
from nestmmu_riscv.csrs import HGATP_PPN, MODES, mode_of, root_of
from nestmmu_riscv.formats import U, root_bits, table_format
from nestmmu_riscv.traps import G_STAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.memory import Memory
    from nestmmu.protocols import WalkerFactory
    from nestmmu.radix import Raw, Step


@attrs.frozen
class Rights:
    """Under which privilege, and with which exceptions from what tables say, an access is made."""

    virtual: bool
    """Two stages, else one."""
    user: bool
    sum_bit: bool
    """Whether S-mode's, or VS-mode's, loads and stores reach pages with U."""
    mxr: bool
    """What may be executed may be loaded, at every stage."""
    vs_mxr: bool = False
    """The same, at the VS-stage."""
    execute: bool = False
    """HLVX: a load that needs the right to execute, and no other."""

    def first(self, entry: int, permissions: int, access: Access) -> bool:
        """Tell whether a leaf of S-stage or VS-stage lets an access pass."""
        if self.user:
            if not entry & U:
                return False
        elif entry & U and (access is Access.FETCH or not self.sum_bit):
            return False
        return permits(permissions, access, mxr=self.mxr or self.vs_mxr, execute=self.execute)


def permits(permissions: int, access: Access, *, mxr: bool, execute: bool = False) -> bool:
    """Tell whether permissions let an access pass.

    :param execute: whether it is HLVX's.
    """
    if execute:
        return bool(permissions & EXECUTE)
    if mxr and access is Access.LOAD:
        return bool(permissions & (READ | EXECUTE))
    return bool(permissions & access)


def settle(
    walker: RadixWalker, raw: Raw, address: int, access: Access, *,
    permitted: bool, guard: Callable[[Found], Found] | None = None,
) -> None:  # fmt: skip
    """Fault where a leaf does not let an access pass, and apply the walker's policy for A and D.

    :param guard: asked before hardware writes the entry; returns where it may.
    :raises Fault: PERMISSION or ACCESSED_DIRTY, or what ``guard`` raises.
    """
    form, found = walker.format, Found._make(raw)
    if not permitted:
        raise walker.fault(FaultKind.PERMISSION, address, access, found)
    needed = form.accessed | (form.dirty if access is Access.STORE else 0)
    if found.entry & needed == needed:
        return
    if guard is not None and walker.accessed_dirty is AccessedDirty.UPDATE:
        found = guard(found)
    walker.touch(found, address, access)


class GStage(RadixTable):
    """The table of hgatp. Reads of VS-stage entries come by :meth:`locate`, and are loads of U-mode without MXR.

    MXR is of explicit loads alone, as the manual has it since it was made clear in 2024.
    """

    def raw(self, address: int, access: Access, *, mxr: bool = False, execute: bool = False) -> Raw:
        """Return the leaf of a guest physical address, checked, A and D updated by the walker's policy.

        :param mxr: HS-mode's.
        """
        raw = self.walker.descend(self.node(address, access), address, access)
        permitted = permits(raw[6], access, mxr=mxr, execute=execute)
        settle(self.walker, raw, address, access, permitted=permitted)
        return raw

    def translate(self, address: int, access: Access) -> Mapping:
        """Return where an access ends."""
        return self.walker.mapping(address, Found._make(self.raw(address, access)))

    def locate(self, address: int, access: Access) -> int:
        """Return only the output address of :meth:`translate`."""
        return self.raw(address, access)[0]

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`."""
        return self.locate


class Tables:
    """What one hgatp, and what rules the stages beside it, make of a guest's tables: built once, used by every access.

    :param memory: the machine's.
    :param hgatp: Bare, or the root of the G-stage.
    :param g_stage: ADUE and PBMTE of the G-stage.
    :param first: ADUE and PBMTE of the VS-stage, or of HS-mode's own.
    :param name: of the first stage.
    """

    def __init__(
        self, memory: Memory, hgatp: int, g_stage: tuple[bool, bool], first: tuple[bool, bool], name: str, *,
        napot: bool, silent: bool, make_walker: WalkerFactory, steps: list[Step] | None,
    ) -> None:  # fmt: skip
        self.first, self.name = first, name
        self.napot, self.silent = napot, silent
        self.make_walker = make_walker
        self.steps = steps
        self.memory = memory
        self.g_stage: GStage | None = None
        self.walkers: dict[int, RadixWalker] = {}
        mode = mode_of(hgatp)
        if mode in MODES:
            adue, pbmt = g_stage
            form = table_format(mode, g_stage=True, pbmt=pbmt, napot=napot)
            walker = make_walker(form, memory, G_STAGE, self.policy(adue=adue))
            walker.trace = steps
            self.g_stage = GStage(walker, Root(root_of(hgatp & HGATP_PPN), root_bits(form)))
            self.memory = TranslatedMemory(memory, self.g_stage, "guest physical")

    def policy(self, *, adue: bool) -> AccessedDirty:
        """Return what hardware does with A and D: Svadu, or Svade."""
        if self.silent:
            return AccessedDirty.IGNORE
        return AccessedDirty.UPDATE if adue else AccessedDirty.FAULT

    def walker(self, mode: int) -> RadixWalker:
        """Return what walks the tables of satp or vsatp."""
        found = self.walkers.get(mode)
        if found is None:
            adue, pbmt = self.first
            form = table_format(mode, pbmt=pbmt, napot=self.napot)
            found = self.make_walker(form, self.memory, self.name, self.policy(adue=adue))
            found.trace = self.steps
            self.walkers[mode] = found
        return found

    def trace(self, steps: list[Step] | None) -> None:
        """Add the steps of every walk to ``steps`` from now on; None: stop."""
        self.steps = steps
        for walker in self.walkers.values():
            walker.trace = steps
        if self.g_stage is not None:
            self.g_stage.walker.trace = steps

    def writable(self, found: Found) -> Found:
        """Return a leaf of the VS-stage as the G-stage lets hardware write its A and D: that is a store.

        :raises Fault: of the G-stage, implicit.
        """
        try:
            return found._replace(where=self.memory.locate(found.entry_address, Access.STORE))
        except Fault as fault:
            fault.implicit = True
            raise
