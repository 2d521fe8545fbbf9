"""What an HPTE permits: pp under the key of the segment, the storage keys of AMR and IAMR, no-execute and guarded."""

from __future__ import annotations

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu_ppc64_hpt.hpte import R_G, R_N, key_of, pp_of

_RWX, _RX = READ | WRITE | EXECUTE, READ | EXECUTE
PP_KEY0 = {0: _RWX, 1: _RWX, 2: _RWX, 3: _RX, 6: _RX}
PP_KEY1 = {0: 0, 1: _RX, 2: _RWX, 3: _RX, 6: 0}
"""Permissions by pp0 || pp; what is absent is reserved, and permits nothing."""
KEY_WRITE, KEY_READ = 2, 1
"""Of a key's two bits in AMR: no store, no load; IAMR's odd bit: no fetch."""


def by_pp(r: int, key: bool) -> int:  # noqa: FBT001  (Ks or Kp)
    """Return what pp permits.

    :param key: Kp of the segment for a problem-state access, Ks for another.
    """
    return (PP_KEY1 if key else PP_KEY0).get(pp_of(r), 0)


def by_keys(r: int, amr: int, iamr: int) -> int:
    """Return what the entry's storage key permits (5.7.10.3 virtual page class key protection)."""
    shift = 62 - 2 * key_of(r)
    data, fetch = amr >> shift & 3, iamr >> shift & 3
    denied = (WRITE if data & KEY_WRITE else 0) | (READ if data & KEY_READ else 0) | (EXECUTE if fetch & 1 else 0)
    return _RWX & ~denied


def executable(r: int) -> bool:
    """Tell whether N and G let the page be fetched from."""
    return not r & (R_N | R_G)
