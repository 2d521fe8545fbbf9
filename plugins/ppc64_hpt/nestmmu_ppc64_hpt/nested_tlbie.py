"""L1's tlbie of a hash L2, as L0 emulates it (reference 3.9, X8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nestmmu.addresses import AssignedTag
from nestmmu.points import Point
from nestmmu_ppc64_book3s.hcalls import H_PARAMETER, H_SUCCESS
from nestmmu_ppc64_book3s.tlbie import IS_ALL, IS_LPID, IS_PAGE, IS_PID, RIC_ALL, RIC_PWC, RIC_RESERVED, Tlbie
from nestmmu_ppc64_hpt.shadow import HashShadow

if TYPE_CHECKING:
    from nestmmu.nested_guests import NestedGuests
    from nestmmu.points import Steps


def emulate(nested: NestedGuests[Any], instruction: int, rs: int, rb: int) -> Steps[int]:
    """Do one tlbie of L1 and return H_SUCCESS or H_PARAMETER.

    One for radix (R=1) does nothing to a hash L2, one for hash nothing to a radix L2; nor does either for an LPID that
    L0 does not know.
    """
    operands = Tlbie.decode(instruction, rs, rb)
    if operands.r == 1:
        return H_SUCCESS
    refused = (
        (operands.prs == 1 and operands.ric != RIC_ALL)
        or operands.ric in {RIC_PWC, RIC_RESERVED}
        or (operands.scope == IS_PAGE and operands.ric == RIC_ALL)
        or operands.scope == IS_PID
    )
    if refused:
        return H_PARAMETER
    held = yield from nested.each()
    code = H_SUCCESS
    for one in held:
        named = operands.scope == IS_ALL or one.assigned == AssignedTag(operands.lpid)
        if named and isinstance(one.shadow, HashShadow):
            yield Point.LOCK_NESTED
            if operands.scope in {IS_LPID, IS_ALL}:
                yield from nested.flush(one)
            else:
                code = yield from _page(one.shadow, rb)
            yield Point.UNLOCK_NESTED
        yield from nested.put(one)
    return code


def _page(shadow: HashShadow, rb: int) -> Steps[int]:
    yield Point.LOCK
    try:
        shadow.invalidate(rb)
    except ValueError:
        return H_PARAMETER
    finally:
        yield Point.UNLOCK
    return H_SUCCESS
