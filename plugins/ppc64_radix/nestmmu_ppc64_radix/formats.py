"""The radix tree of POWER9 (Power ISA 3.0B, Book III, 5.7.9), as its hardware and as KVM's software read it."""

from __future__ import annotations

import attrs

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import Level, Match, RadixFormat

VALID = 1 << 63
LEAF = 1 << 62
SW0 = 1 << 61
"""Linux: the entry is for the moment invalid (``_PAGE_INVALID``)."""
RPN = 0x01FFFFFFFFFFF000
NLB = 0x0FFFFFFFFFFFFF00
NLS = 0x1F
REFERENCE = 0x100
CHANGE = 0x080
ATT = 0x30
ATT_NON_IDEMPOTENT = 0x20
EAA_PRIV = 0x008
EAA_READ = 0x004
EAA_WRITE = 0x002
EAA_EXEC = 0x001

ROOT_BITS = 13
INPUT_BITS = 52
SHIFT_64K = 16

_LEAF = Match(LEAF, LEAF)

POWER9 = RadixFormat(
    name="ppc64_radix",
    input_bits=INPUT_BITS,
    levels=(
        Level("PGD", (ROOT_BITS,), _LEAF),
        Level("PUD", (9,), _LEAF),
        Level("PMD", (9,), _LEAF),
        Level("PTE", (5, 9), _LEAF, may_table=False),
    ),
    entry_bytes=8,
    byteorder="big",
    valid=Match(VALID, VALID),
    output_mask=RPN,
    table_mask=NLB,
    permissions=(
        (Match(EAA_READ, EAA_READ), READ),
        (Match(EAA_WRITE, EAA_WRITE), READ | WRITE),
        (Match(EAA_EXEC, EAA_EXEC), EXECUTE),
    ),
    accessed=REFERENCE,
    dirty=CHANGE,
    attributes=ATT,
    width_mask=NLS,
    strict_table=False,
    strict_output=False,
    late_geometry=True,
)
"""As the CPU reads it: low bits of a base or a page that should be zero are dropped."""

KVM_WALK = attrs.evolve(
    POWER9,
    name="ppc64_radix_kvm",
    levels=(attrs.evolve(POWER9.levels[0], may_leaf=False), *POWER9.levels[1:]),
    strict_table=True,
    strict_output=True,
    late_geometry=False,
)
"""As ``kvmppc_mmu_walk_radix_tree`` reads it: what is not aligned, and a leaf of 512 GiB, is refused."""
