"""Protection of a hash page: page protection, no-execute, guarded, virtual page class keys (Power ISA 3.0B, 5.7.12)."""

from __future__ import annotations

from nestmmu.access import ALL_PERMISSIONS, EXECUTE, READ, WRITE, Access
from nestmmu_ppc64_book3s.interrupts import (
    DSISR_ISSTORE,
    DSISR_KEYFAULT,
    DSISR_NOEXEC_OR_G,
    DSISR_PROTFAULT,
)
from nestmmu_ppc64_hpt.hpte import R_G, R_N, R_PP, R_PP0, key_of

PP_RWXX, PP_RWRX, PP_RWRW, PP_RXRX, PP_RXXX = 0, 1, 2, 3, R_PP0 | 2
"""Values of pp0 and pp, in place: what key 0 may do, and then what key 1 may."""
PP_NONE = R_PP0
"""A value that is reserved: nobody may do anything."""
_RW = READ | WRITE | EXECUTE
_RO = READ | EXECUTE
_BY_PP = {
    PP_RWXX: (_RW, 0),
    PP_RWRX: (_RW, _RO),
    PP_RWRW: (_RW, _RW),
    PP_RXRX: (_RO, _RO),
    PP_RXXX: (_RO, 0),
}
"""Permissions by pp0 and pp, for key 0 and for key 1; other values are reserved, and permit nothing."""
_KEY_NO_WRITE, _KEY_NO_READ = 2, 1


def page_permissions(r: int, *, key: bool) -> int:
    """Return what pp0 and pp permit; what may be read may be fetched, as far as they go.

    :param key: the segment's storage key, Ks or Kp.
    """
    both = _BY_PP.get(r & (R_PP0 | R_PP))
    return 0 if both is None else both[key]


def execute_permissions(r: int) -> int:
    """Return what N and G leave: all, or all but to fetch."""
    return ALL_PERMISSIONS & ~EXECUTE if r & (R_N | R_G) else ALL_PERMISSIONS


def key_permissions(r: int, amr: int, iamr: int) -> int:
    """Return what AMR and IAMR leave of a page's virtual class key."""
    at = 62 - 2 * key_of(r)
    denied = amr >> at
    permissions = ALL_PERMISSIONS
    if denied & _KEY_NO_WRITE:
        permissions &= ~WRITE
    if denied & _KEY_NO_READ:
        permissions &= ~READ
    if iamr >> at & _KEY_NO_READ:
        permissions &= ~EXECUTE
    return permissions


def denial(access: Access, pages: int, execution: int, keys: int) -> int:
    """Return the bits of DSISR, or of SRR1, that say why an access is denied; 0 where it is not.

    :param pages: from :func:`page_permissions`; ``execution`` and ``keys`` from the others.
    """
    if access & pages & execution & keys:
        return 0
    if access is Access.FETCH:
        cause = 0 if access & execution else DSISR_NOEXEC_OR_G
        cause = cause or (0 if access & pages else DSISR_PROTFAULT)
    else:
        cause = (0 if access & pages else DSISR_PROTFAULT) | (DSISR_ISSTORE if access is Access.STORE else 0)
    return cause | (0 if access & keys else DSISR_KEYFAULT)


def is_writable(r: int) -> bool:
    """Tell whether key 0 may store (``hpte_is_writable``)."""
    return r & (R_PP0 | R_PP) not in {PP_RXRX, PP_RXXX}


def read_only(r: int) -> int:
    """Return doubleword 1 with pp0 and pp that let nobody store, and nobody else read (``hpte_make_readonly``)."""
    if r & R_PP0 or r & R_PP == PP_RWXX:
        return r & ~R_PP | PP_RXXX
    return r | PP_RXRX


def limited(r: int, permissions: int) -> int:
    """Return doubleword 1 with no more than ``permissions``; a page that may not be read may not be fetched either."""
    if not permissions & EXECUTE:
        r |= R_N
    if not permissions & READ:
        return r & ~R_PP | PP_NONE
    nothing = not page_permissions(r, key=False) | page_permissions(r, key=True)
    return r if permissions & WRITE or nothing else read_only(r)
