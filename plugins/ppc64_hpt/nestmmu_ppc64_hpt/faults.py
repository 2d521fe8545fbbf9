"""What KVM does with a storage interrupt of a hash guest: judge it by the guest's view, then mend the real entry.

Source: Linux's ``kvmppc_hpte_hv_fault`` (real mode) and ``kvmppc_book3s_hv_page_fault`` (reference 3.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.access import Access
from nestmmu.outcomes import RESUME, Outcome, Verdict
from nestmmu_ppc64_book3s.interrupts import DSISR_NOHPTE
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_PR
from nestmmu_ppc64_hpt.hpte import GROUP_SLOTS, R_C, R_KEY, R_R, R_RC, V_ABSENT, V_AVPN, V_SECONDARY, V_SSIZE, V_VALID
from nestmmu_ppc64_hpt.pages import HPTE_R_RPN, actual_shift
from nestmmu_ppc64_hpt.protection import (
    denial,
    execute_permissions,
    is_writable,
    key_permissions,
    page_permissions,
    read_only,
)

if TYPE_CHECKING:
    from nestmmu_ppc64_hpt.guest import HashGuest
    from nestmmu_ppc64_hpt.hashing import Segment

RETRY, TO_KERNEL, MMIO = 0, -1, -2
"""What real mode says of a fault, where it is not what the guest gets: go on; for the kernel; a device."""
NO_PAGE = "EFAULT"
_COMPARED = V_SSIZE | V_AVPN | V_SECONDARY


@attrs.frozen
class Judged:
    """A fault, and the entry that it is about as it was then."""

    code: int
    """RETRY, TO_KERNEL, MMIO, or above 0: the cause bits that the guest gets."""
    slot: int = -1
    v: int = 0
    r: int = 0
    view: int = 0
    """Doubleword 1 as the guest has it."""
    page_shift: int = 0


def find(guest: HashGuest, segment: Segment, address: int, taken: int) -> tuple[int, int, int, int] | None:
    """Return (slot, v, r, page shift) of the entry for an address that has any of the bits ``taken``.

    :param taken: V_VALID, or V_ABSENT too: the guest has an entry, and hardware none.
    """
    table, wanted = guest.table, segment.match(address) & _COMPARED
    for first in table.candidates(segment, address):
        for slot in range(first, first + GROUP_SLOTS):
            v, r = table.read(slot)
            shift = actual_shift(segment.base_shift, v, guest.guest_view.get(slot, r))
            if v & taken and v & _COMPARED == wanted and shift is not None:
                return slot, v, r, shift
        wanted |= V_SECONDARY
    return None


def judge(guest: HashGuest, segment: Segment, address: int, access: Access, status: int, msr: int, amr: int) -> Judged:
    """Say who has to deal with a fault (F1 to F3).

    :param segment: where the address lies, by ASDR.
    :param status: HDSISR, or the cause in HSRR1.
    """
    missing = bool(status & DSISR_NOHPTE)
    found = find(guest, segment, address, V_VALID | (V_ABSENT if missing else 0))
    if found is None:
        return Judged(status if missing else RETRY)
    slot, v, r, shift = found
    if missing and v & V_VALID:
        return Judged(RETRY)
    view, data = guest.guest_view.get(slot, r), access is not Access.FETCH
    pages = page_permissions(view, key=segment.key(problem=bool(msr & MSR_PR)))
    keys = key_permissions(view, amr if data and msr & MSR_DR else 0, 0)
    denied = denial(access, pages, execute_permissions(view), keys)
    if denied:
        return Judged(status & ~DSISR_NOHPTE | denied)
    device = r & R_KEY == R_KEY and data and msr & MSR_IR
    return Judged(MMIO if device else TO_KERNEL, slot, v, r, view, shift)


def mend(guest: HashGuest, judged: Judged, access: Access) -> Outcome:
    """Make the real entry what the guest's view and the host's page allow (F4).

    An entry that changed since it was judged is left: the access is tried again.
    """
    table = guest.table
    if table.read(judged.slot) != (judged.v, judged.r) or guest.guest_view.get(judged.slot, judged.r) != judged.view:
        return RESUME
    size = 1 << judged.page_shift
    start = judged.view & HPTE_R_RPN & -size
    slot, store = guest.slots.find(start), access is Access.STORE
    if slot is None:
        return Outcome(Verdict.EMULATE, address=start)
    page = guest.backing.page(slot, start, write=store and not slot.read_only)
    if page is None or page.page_shift < judged.page_shift:
        return Outcome(Verdict.FAIL, error=NO_PAGE)
    writable = page.writable and not slot.read_only
    if store and not writable:
        return Outcome(Verdict.INJECT)
    r = judged.view & ~(HPTE_R_RPN & -size) | page.address
    if is_writable(r) and not writable:
        r = read_only(r)
    state = guest.frame(start)
    state.slots.add(judged.slot)
    r &= (R_R if state.referenced else 0) | (R_C if state.changed else 0) | ~R_RC
    if judged.v & V_VALID:
        table.write(judged.slot, judged.v & ~V_VALID | V_ABSENT, judged.r)
        guest.invalidate(judged.slot, judged.v, judged.r)
        harvested = table.read(judged.slot)[1] & R_RC
        guest.harvest(judged.slot, harvested, start, size)
        r |= harvested
    table.write(judged.slot, judged.v & ~V_ABSENT | V_VALID, r)
    return RESUME
