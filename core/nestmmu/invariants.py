"""What must always hold of a guest and its nested guests, checked against the tables themselves.

A guest hypervisor that has changed its table and not yet said so by an invalidation may find the shadow out of date:
check where nothing is outstanding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.addresses import align_down
from nestmmu.edit import TableEditor
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault
from nestmmu.quirks import Invariant
from nestmmu.slots import fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.guests import Guest, NestedGuest
    from nestmmu.mappings import Mapping


@attrs.frozen
class Violation:
    """One invariant that does not hold."""

    invariant: Invariant
    what: str


def violations(guest: Guest) -> list[Violation]:
    """Return every violation by the shadows of a guest's guests, and by the reverse map that leads to them."""
    found: list[Violation] = []
    for nested in guest.nested.values():
        for leaf in nested.shadow.table.leaves():
            found.extend(_leaf(guest, nested, leaf))
        if isinstance(nested.shadow, TableEditor):
            found.extend(_lifetime(nested.shadow))
    found.extend(_inside_slots(guest))
    found.extend(_lifetime(guest.table))
    return found


def _leaf(guest: Guest, nested: NestedGuest, leaf: Mapping) -> Iterator[Violation]:
    where = f"shadow of {nested.assigned} at {leaf.page_start:#x}"
    step = 1 << guest.base_shift
    for start in range(leaf.page_start, leaf.page_start + (1 << leaf.page_shift), max(step, 1 << leaf.page_shift >> 9)):
        inner = _lookup(nested, start)
        if inner is None:
            yield Violation(Invariant.INVALIDATION, f"{where}: the guest hypervisor maps nothing at {start:#x}")
            return
        if guest.slots.find(inner.output_address) is None:
            yield Violation(Invariant.ISOLATION, f"{where}: {inner.output_address:#x} is in no memory slot")
            return
        outer = guest.table.lookup(inner.output_address)
        if outer is None:
            yield Violation(Invariant.INVALIDATION, f"{where}: the host maps nothing at {inner.output_address:#x}")
            return
        problem = _unsound(leaf, start, inner, outer)
        if problem:
            yield Violation(Invariant.SOUNDNESS, f"{where}: {problem}")
            return
        if leaf.dirty and not (outer.dirty and inner.dirty):
            yield Violation(Invariant.DIRTY, f"{where}: dirty, and a table under it is not")
    yield from _reverse(guest, nested, leaf, where)


def _inside_slots(guest: Guest) -> Iterator[Violation]:
    """Look whether what the host maps for the guest lies inside its memory."""
    for leaf in guest.table.table.leaves():
        slot = guest.slots.find(leaf.page_start)
        if slot is None or not fits(slot, leaf.page_start, leaf.page_shift):
            what = f"the host's page of {1 << leaf.page_shift:#x} bytes at {leaf.page_start:#x} is in no memory slot"
            yield Violation(Invariant.ISOLATION, what)


def _lookup(nested: NestedGuest, address: int) -> Mapping | None:
    if nested.table is None:
        return None
    try:
        return nested.table.lookup(address)
    except Fault:
        return None


def _unsound(leaf: Mapping, start: int, inner: Mapping, outer: Mapping) -> str:
    target = leaf.target_start + start - leaf.page_start
    if target != outer.output_address:
        return f"leads to {target:#x}, not to {outer.output_address:#x}"
    if leaf.permissions & ~(inner.permissions & outer.permissions):
        return "permits what the tables under it do not"
    if leaf.accessed and not outer.accessed:
        return "accessed, and the host's entry is not"
    return ""


def _reverse(guest: Guest, nested: NestedGuest, leaf: Mapping, where: str) -> Iterator[Violation]:
    """Look whether a shadow leaf is found from the first frame of the host's page that it leads into."""
    inner = _lookup(nested, leaf.page_start)
    outer = None if inner is None else guest.table.lookup(inner.output_address)
    if inner is None or outer is None:
        return
    frame = align_down(inner.output_address, outer.page_shift) >> guest.base_shift
    entries = guest.rmap.entries(frame)
    if not any(entry.tag == nested.assigned and entry.address == leaf.page_start for entry in entries):
        yield Violation(Invariant.REVERSE_MAP, f"{where}: not found from frame {frame:#x}")


def _lifetime(editor: TableEditor) -> Iterator[Violation]:
    """No table is reached twice, and each is one that the allocator handed out."""
    seen: set[int] = set()
    try:
        for base in tables(editor):
            if base in seen:
                yield Violation(Invariant.LIFETIME, f"the table at {base:#x} is reached twice")
            if base not in editor.allocator.used and base != editor.table.root.base:
                yield Violation(Invariant.LIFETIME, f"the table at {base:#x} is not the hypervisor's to use")
            seen.add(base)
    except NestmmuError as error:
        yield Violation(Invariant.LIFETIME, str(error))


def tables(editor: TableEditor) -> Iterator[int]:
    """Yield the address of every table of a tree, the root first."""
    form = editor.format

    def below(base: int, depth: int) -> Iterator[int]:
        yield base
        for _, entry in editor.table.valid_entries(base, editor.widths[depth]):
            if not form.levels[depth].leaf(entry):
                yield from below(form.table_of(entry), depth + 1)

    yield from below(editor.table.root.base, 0)
