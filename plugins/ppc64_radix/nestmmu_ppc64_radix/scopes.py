"""What a tlbie makes the hardware forget (Power ISA 3.0B, Book III, 5.9.3.3; reference 2.6)."""

from __future__ import annotations

from nestmmu.addresses import HardwareTag
from nestmmu.invalidation import Flush, FlushKind
from nestmmu_ppc64_book3s.tlbie import IS_ALL, IS_PAGE, IS_PID, RIC_ALL, RIC_PWC, RIC_TLB, Tlbie

_KINDS = {RIC_TLB: FlushKind.TRANSLATIONS, RIC_PWC: FlushKind.WALK_CACHE, RIC_ALL: FlushKind.TAG}


def decode(request: Tlbie) -> list[Flush]:
    """Return what a radix tlbie invalidates.

    :param request: its operands, with the LPID that counts: RS's for a hypervisor, LPIDR for a guest.
    :returns: one scope; none for R=0, which radix translations do not hear of.
    :raises ValueError: for a form that the hardware refuses.
    """
    if not request.legal:
        message = f"tlbie with RIC={request.ric} PRS={request.prs} R={request.r} IS={request.scope} is no legal form"
        raise ValueError(message)
    if request.r == 0:
        return []
    tag = HardwareTag(request.lpid)
    if request.scope == IS_PAGE:
        if request.page_shift is None:
            message = f"tlbie with AP={request.ap}: no page has that size"
            raise ValueError(message)
        address = request.epn << 12 >> request.page_shift << request.page_shift
        if request.prs == 0:
            return [Flush(tag, FlushKind.PAGE, address, request.page_shift)]
        return [Flush(tag, FlushKind.INPUT_PAGE, address, request.page_shift, process=request.pid)]
    process = request.pid if request.scope == IS_PID else None
    return [Flush(tag, _KINDS[request.ric], process=process, every=request.scope == IS_ALL)]
