"""Where Linux differs from what is right: one named member each.

``Quirk.LINUX_6_1`` is bit for bit the kernel; ``Quirk.NONE`` is corrected.
"""

from __future__ import annotations

import enum

from nestmmu.habits import Habits


class Quirk(enum.Flag):
    """One behaviour of Linux 6.1 each, by the kernel function that has it."""

    NONE = 0
    BASE_PAGES_UNDER_GIGANTIC = enum.auto()
    """``__kvmhv_nested_page_fault``: under a larger page of the host, the shadow gets a base page, never 2 MiB."""
    MERGED_TARGETS = enum.auto()
    """``kvmppc_create_pte``: a new leaf is ORed into one that leads elsewhere, and leads to neither."""
    CHILDREN_FLUSHED_AT_HOST_ADDRESS = enum.auto()
    """``kvmppc_unmap_free_pte``: pages of a dropped table are flushed, and looked up, at the address they lead to."""
    FETCH_REFLECTED_AS_STORE = enum.auto()
    """``kvmhv_translate_addr_nested``: a fetch that needs a write is shown to L1 as MSR[VEC], not as HISI_WRITE."""
    DATA_INTERRUPT_FOR_FETCH = enum.auto()
    """``__kvmhv_nested_page_fault``: L2 gets a DSI, also where its fetch is at fault."""
    NO_MEMORY_TO_GUEST = enum.auto()
    """``kvmppc_create_pte``: out of pages for a table, L1 sees the fault as hardware raised it, and cannot mend it."""
    WRITE_WITHOUT_READ = enum.auto()
    """``__kvmhv_nested_page_fault``: L1's write-only leaf takes read from the shadow, which it implies."""
    PAGES_BEYOND_SLOT = enum.auto()
    """``kvmppc_book3s_instantiate_page``: a large page of the host may reach beyond the memory slot."""

    AGED_BY_FRAME = enum.auto()
    """``kvm_age_radix``: in the middle of a large page of L0, the shadows keep R."""
    FLUSHED_BY_L1_LPID = enum.auto()
    """``kvmhv_update_nest_rmap_rc``: the flush names the LPID that L1 assigned, not the one that the CPU uses."""
    STALE_REFERENCE_CHANGE = enum.auto()
    """``kvm_radix_test_clear_dirty``: a fault under way may put back the C that was just cleared."""
    CREATION_RACE_LOST = enum.auto()
    """``kvmhv_get_nested``: of two vcpus that enter a new L2 at once, the second gets H_PARAMETER."""
    PARTITION_TABLE_STAYS_CACHED = enum.auto()
    """``kvmhv_set_partition_table``: entries of L1's old table are used until L1 flushes them with RIC=2."""
    WALK_FLUSH_FLUSHES_ALL = enum.auto()
    """``do_tlb_invalidate_nested``: a flush of walk caches alone, over all addresses, empties the shadow."""
    COPY_FROM_ZERO = enum.auto()
    """``kvmhv_copy_tofrom_guest_nested``: with neither pointer given, L2's memory is written from L1's address 0."""

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
