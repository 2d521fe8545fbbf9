"""KVM's software translation of a radix guest's own addresses (``book3s_64_mmu_radix.c``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.errors import OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu_ppc64_book3s.partition import LARGEST_TABLE_FIELD, PATE_BYTES, PRTB, PRTS, read_pair, table_bytes
from nestmmu_ppc64_book3s.registers import KEY0_NO_READ, KEY0_NO_WRITE, MSR_PR
from nestmmu_ppc64_radix.exits import STAGE
from nestmmu_ppc64_radix.formats import EAA_PRIV
from nestmmu_ppc64_radix.kvm import walk_tree

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.mappings import Mapping
    from nestmmu.memory import Memory
    from nestmmu_ppc64_book3s.registers import Registers


def translate_table(memory: Memory, address: int, table: int, index: int, access: Access) -> Mapping:
    """Walk the tree of one entry of a process or partition table (``kvmppc_mmu_radix_translate_table``).

    :param memory: the guest's.
    :param table: base and size of the table, as a PATE's doubleword 1 has them.
    :param index: the entry's number: a PID or an LPID.
    :raises Fault: MALFORMED (-EINVAL) for a size that is refused or an index beyond it, UNREADABLE (-EFAULT, without an
        entry's address), or what :func:`~nestmmu_ppc64_radix.kvm.walk_tree` raises.
    """
    if table & PRTS > LARGEST_TABLE_FIELD or index * PATE_BYTES >= table_bytes(table):
        raise Fault(FaultKind.MALFORMED, STAGE, access, address)
    try:
        root, _ = read_pair(memory, (table & PRTB) + index * PATE_BYTES)
    except OutsideMemoryError:
        raise Fault(FaultKind.UNREADABLE, STAGE, access, address) from None
    return walk_tree(memory, address, root)


def xlate(memory: Memory, registers: Registers, process_table: int, address: int, access: Access) -> Mapping:
    """Translate an effective address of a guest to one of its real addresses (``kvmppc_mmu_radix_xlate``).

    :param registers: the guest's MSR, PIDR, AMR and IAMR.
    :returns: the mapping, with the permissions that these registers leave; whether they suffice is the caller's to see.
    :raises Fault: MALFORMED (-EINVAL) for quadrants 1 and 2, or what :func:`translate_table` raises.
    """
    quadrant = address >> 62
    if quadrant in {1, 2}:
        raise Fault(FaultKind.MALFORMED, STAGE, access, address)
    pid = registers.pidr if quadrant == 0 else 0
    found = translate_table(memory, address, process_table, pid, access)
    permissions = found.permissions
    privileged = (found.entry or 0) & EAA_PRIV
    if registers.msr & MSR_PR:
        permissions = 0 if privileged else permissions
    elif not privileged:
        for register, bit, lost in (
            (registers.amr, KEY0_NO_READ, READ),
            (registers.amr, KEY0_NO_WRITE, WRITE),
            (registers.iamr, KEY0_NO_READ, EXECUTE),
        ):
            if register & bit:
                permissions &= ~lost
    return attrs.evolve(found, permissions=permissions)
