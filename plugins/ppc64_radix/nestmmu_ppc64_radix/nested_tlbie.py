"""L1's invalidations of L2's translations, as L0 emulates them (``kvmhv_emulate_priv_tlbie``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.addresses import AssignedTag, align_down
from nestmmu.points import Point
from nestmmu_ppc64_book3s.hcalls import H_PARAMETER, H_SUCCESS
from nestmmu_ppc64_book3s.tlbie import IS_ALL, IS_LPID, IS_PAGE, IS_PID, RIC_ALL, RIC_PWC, RIC_RESERVED, RIC_TLB, Tlbie

if TYPE_CHECKING:
    from nestmmu.nested_guests import NestedGuests
    from nestmmu.points import Steps
    from nestmmu_ppc64_radix.kvm import KvmGuest, KvmHv, KvmNestedGuest


class NestedTlbie:
    """Emulates the tlbie of one L1."""

    def __init__(self, host: KvmHv, guest: KvmGuest, nested: NestedGuests[KvmNestedGuest]) -> None:
        self.host = host
        self.guest = guest
        self.nested = nested

    def emulate(self, operands: Tlbie) -> Steps[int]:
        """Do one tlbie of L1 and return H_SUCCESS or H_PARAMETER.

        A form that is legal does nothing, and succeeds, for an LPID that L0 does not know.
        """
        refused = (
            operands.r == 0
            or operands.prs == 1
            or operands.ric == RIC_RESERVED
            or operands.scope == IS_PID
            or (operands.scope == IS_PAGE and operands.ric in {RIC_PWC, RIC_ALL})
        )
        if refused or (operands.scope == IS_PAGE and operands.page_shift is None):
            return H_PARAMETER
        if operands.scope == IS_ALL:
            held = yield from self.nested.each()
            for one in held:
                yield from self.whole(one, operands.ric)
                yield from self.nested.put(one)
            return H_SUCCESS
        found = yield from self.nested.get(AssignedTag(operands.lpid), create=False)
        if found is None:
            return H_SUCCESS
        if operands.scope == IS_LPID:
            yield from self.whole(found, operands.ric)
        else:
            yield from self.pages(found, operands.epn << 12, 1 << (operands.page_shift or 0))
        yield from self.nested.put(found)
        return H_SUCCESS

    def pages(self, nested: KvmNestedGuest, address: int, size: int) -> Steps[None]:
        """Remove every shadow leaf that maps anything of the page of ``size`` bytes at ``address``, each whole.

        What is asked for lies in 2**52 bytes; address bits above are not looked at, as in L1's own walk.
        """
        span = 1 << nested.tree.format.input_bits
        start = align_down(address & (span - 1), size.bit_length() - 1)
        yield Point.LOCK_NESTED
        yield Point.LOCK
        for leaf in list(nested.shadow.table.leaves(start, start + size)):
            nested.shadow.remove(leaf.page_start)
        yield Point.UNLOCK
        yield Point.UNLOCK_NESTED

    def whole(self, nested: KvmNestedGuest, ric: int) -> Steps[None]:
        """Do the action of one RIC on all of an L2 (``kvmhv_emulate_tlbie_lpid``)."""
        if ric == RIC_PWC:
            return
        yield Point.LOCK_NESTED
        yield from self.nested.flush(nested)
        if ric == RIC_ALL:
            self.host.update_ptbl_cache(self.guest, nested)
            if nested.gr_to_hr == 0:
                yield from self.nested.remove(nested)
        yield Point.UNLOCK_NESTED


__all__ = ["RIC_ALL", "RIC_PWC", "RIC_TLB", "NestedTlbie"]
