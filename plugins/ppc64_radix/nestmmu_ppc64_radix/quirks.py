"""Where Linux differs from what is right: one named member each.

``Quirk.LINUX_6_1`` is bit for bit the kernel; ``Quirk.NONE`` is corrected.
"""

from __future__ import annotations

import enum

from nestmmu.habits import Habits
from nestmmu.quirks import Invariant, QuirkInfo


class Quirk(enum.Flag):
    """One behaviour of Linux 6.1 each; :func:`quirk_infos` says what, and where."""

    NONE = 0
    BASE_PAGES_UNDER_GIGANTIC = enum.auto()
    MERGED_TARGETS = enum.auto()
    CHILDREN_FLUSHED_AT_HOST_ADDRESS = enum.auto()
    FETCH_REFLECTED_AS_STORE = enum.auto()
    DATA_INTERRUPT_FOR_FETCH = enum.auto()
    NO_MEMORY_TO_GUEST = enum.auto()
    WRITE_WITHOUT_READ = enum.auto()
    PAGES_BEYOND_SLOT = enum.auto()

    AGED_BY_FRAME = enum.auto()
    FLUSHED_BY_L1_LPID = enum.auto()
    STALE_REFERENCE_CHANGE = enum.auto()
    CREATION_RACE_LOST = enum.auto()
    PARTITION_TABLE_STAYS_CACHED = enum.auto()
    WALK_FLUSH_FLUSHES_ALL = enum.auto()
    COPY_FROM_ZERO = enum.auto()
    MIXED_ENDIAN_EXIT_FAILS = enum.auto()

    LINUX_6_1 = (
        BASE_PAGES_UNDER_GIGANTIC
        | MERGED_TARGETS
        | CHILDREN_FLUSHED_AT_HOST_ADDRESS
        | FETCH_REFLECTED_AS_STORE
        | DATA_INTERRUPT_FOR_FETCH
        | NO_MEMORY_TO_GUEST
        | WRITE_WITHOUT_READ
        | PAGES_BEYOND_SLOT
        | AGED_BY_FRAME
        | FLUSHED_BY_L1_LPID
        | STALE_REFERENCE_CHANGE
        | CREATION_RACE_LOST
        | PARTITION_TABLE_STAYS_CACHED
        | WALK_FLUSH_FLUSHES_ALL
        | COPY_FROM_ZERO
        | MIXED_ENDIAN_EXIT_FAILS
    )


def habits_of(quirks: Quirk) -> Habits:
    """Return the quirks that are the core's to act out."""
    return Habits(
        maps_beyond_slots=Quirk.PAGES_BEYOND_SLOT in quirks,
        merges_targets=Quirk.MERGED_TARGETS in quirks,
        flushes_children_by_target=Quirk.CHILDREN_FLUSHED_AT_HOST_ADDRESS in quirks,
        ages_asked_frame_only=Quirk.AGED_BY_FRAME in quirks,
        flushes_flags_by_assigned_tag=Quirk.FLUSHED_BY_L1_LPID in quirks,
        loses_creation_race=Quirk.CREATION_RACE_LOST in quirks,
        flags_keep_sequence=Quirk.STALE_REFERENCE_CHANGE in quirks,
    )


_WHAT: dict[Quirk, tuple[str, str]] = {
    Quirk.BASE_PAGES_UNDER_GIGANTIC: (
        "__kvmhv_nested_page_fault",
        "under a larger page of the host, the shadow gets a base page, never 2 MiB.",
    ),
    Quirk.MERGED_TARGETS: (
        "kvmppc_create_pte",
        "a new leaf is ORed into one that leads elsewhere, and leads to neither.",
    ),
    Quirk.CHILDREN_FLUSHED_AT_HOST_ADDRESS: (
        "kvmppc_unmap_free_pte",
        "pages of a dropped table are flushed, and looked up, at the address they lead to.",
    ),
    Quirk.FETCH_REFLECTED_AS_STORE: (
        "kvmhv_translate_addr_nested",
        "a fetch that needs a write is shown to L1 as MSR[VEC], not as HISI_WRITE.",
    ),
    Quirk.DATA_INTERRUPT_FOR_FETCH: (
        "__kvmhv_nested_page_fault",
        "L2 gets a DSI, also where its fetch is at fault.",
    ),
    Quirk.NO_MEMORY_TO_GUEST: (
        "kvmppc_create_pte",
        "out of pages for a table, L1 sees the fault as hardware raised it, and cannot mend it.",
    ),
    Quirk.WRITE_WITHOUT_READ: (
        "__kvmhv_nested_page_fault",
        "L1's write-only leaf takes read from the shadow, which it implies.",
    ),
    Quirk.PAGES_BEYOND_SLOT: (
        "kvmppc_book3s_instantiate_page",
        "a large page of the host may reach beyond the memory slot.",
    ),
    Quirk.AGED_BY_FRAME: (
        "kvm_age_radix",
        "in the middle of a large page of L0, the shadows keep R.",
    ),
    Quirk.FLUSHED_BY_L1_LPID: (
        "kvmhv_update_nest_rmap_rc",
        "the flush names the LPID that L1 assigned, not the one that the CPU uses.",
    ),
    Quirk.STALE_REFERENCE_CHANGE: (
        "kvm_radix_test_clear_dirty",
        "a fault under way may put back the C that was just cleared.",
    ),
    Quirk.CREATION_RACE_LOST: (
        "kvmhv_get_nested",
        "of two vcpus that enter a new L2 at once, the second gets H_PARAMETER.",
    ),
    Quirk.PARTITION_TABLE_STAYS_CACHED: (
        "kvmhv_set_partition_table",
        "entries of L1's old table are used until L1 flushes them with RIC=2.",
    ),
    Quirk.WALK_FLUSH_FLUSHES_ALL: (
        "do_tlb_invalidate_nested",
        "a flush of walk caches alone, over all addresses, empties the shadow.",
    ),
    Quirk.COPY_FROM_ZERO: (
        "kvmhv_copy_tofrom_guest_nested",
        "with neither pointer given, L2's memory is written from L1's address 0.",
    ),
    Quirk.MIXED_ENDIAN_EXIT_FAILS: (
        "kvmhv_write_guest_state_and_regs",
        "an L1 of the other byte order gets H_AUTHORITY, and nothing of what its L2 did.",
    ),
}
"""The kernel function that has the quirk, and what it does there."""

_INVARIANTS: dict[Quirk, Invariant | str] = {
    Quirk.BASE_PAGES_UNDER_GIGANTIC: "the shadow is sound; it only takes more faults and more table memory",
    Quirk.MERGED_TARGETS: Invariant.SOUNDNESS,
    Quirk.CHILDREN_FLUSHED_AT_HOST_ADDRESS: Invariant.INVALIDATION,
    Quirk.FETCH_REFLECTED_AS_STORE: Invariant.PROGRESS,
    Quirk.DATA_INTERRUPT_FOR_FETCH: Invariant.EQUIVALENCE,
    Quirk.NO_MEMORY_TO_GUEST: Invariant.PROGRESS,
    Quirk.WRITE_WITHOUT_READ: Invariant.PROGRESS,
    Quirk.PAGES_BEYOND_SLOT: Invariant.ISOLATION,
    Quirk.AGED_BY_FRAME: Invariant.SOUNDNESS,
    Quirk.FLUSHED_BY_L1_LPID: Invariant.DIRTY,
    Quirk.STALE_REFERENCE_CHANGE: Invariant.DIRTY,
    Quirk.CREATION_RACE_LOST: Invariant.PROGRESS,
    Quirk.PARTITION_TABLE_STAYS_CACHED: Invariant.INVALIDATION,
    Quirk.WALK_FLUSH_FLUSHES_ALL: "flushing more than was asked for is always allowed",
    Quirk.COPY_FROM_ZERO: "L1 may write its own guest's memory; the request is only an odd one",
    Quirk.MIXED_ENDIAN_EXIT_FAILS: Invariant.PROGRESS,
}
"""The invariant that a quirk breaks, or why it breaks none."""


def quirk_infos() -> list[QuirkInfo]:
    """Return the quirks as a table, in the order of their bits."""
    infos = []
    for quirk, invariant in _INVARIANTS.items():
        name = str(quirk.name)
        function, what = _WHAT[quirk]
        broken = invariant if isinstance(invariant, Invariant) else None
        why = "" if isinstance(invariant, Invariant) else invariant
        infos.append(QuirkInfo("ppc64_radix", name, function, what, broken, why, quirk in Quirk.LINUX_6_1))
    return infos
