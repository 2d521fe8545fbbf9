"""One translation as a tuple, by the scalar path and out of a batch, to be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.errors import OutsideMemoryError
from nestmmu.faults import Fault
from nestmmu.translations import FaultSummary

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.memory import TranslatedMemory
    from nestmmu.radix import RadixTable
    from nestmmu.translations import Translations

Row = tuple[object, ...]


def of_fault(fault: Fault) -> Row:
    return fault.input_address, FaultSummary(fault.kind, fault.stage, fault.level, fault.implicit)


def by_table(table: RadixTable, address: int, access: Access | None) -> Row:
    """Return (output, page shift, permissions), or (address, fault)."""
    try:
        found = table.lookup(address) if access is None else table.translate(address, access)
    except Fault as fault:
        return of_fault(fault)
    return found.output_address, found.page_shift, found.permissions


def by_memory(memory: TranslatedMemory, address: int, access: Access) -> Row:
    """Return (output,), or (address, fault)."""
    try:
        return (memory.locate(address, access),)
    except Fault as fault:
        return of_fault(fault)
    except OutsideMemoryError as error:
        return error.address, FaultSummary(None, memory.name, None, implicit=False)


def of_batch(found: Translations, index: int, *, whole: bool = True) -> Row:
    """Return the same of one translation in a batch; without ``whole``, of what :func:`by_memory` says."""
    output, fault = int(found.outputs[index]), found.fault(index)
    if fault is not None:
        return output, fault
    return (output, int(found.shifts[index]), int(found.permissions[index])) if whole else (output,)
