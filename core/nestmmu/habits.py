"""Habits of hypervisors that are mistakes: what some kernel does, and the model can do too.

All are off where nothing else is said. A plugin turns on those of the kernel that it models, by names of its own.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Habits:
    """One mistake each; False is right."""

    maps_beyond_slots: bool = False
    """A large page of the host is mapped where it reaches beyond a memory slot."""
    merges_targets: bool = False
    """A new leaf is ORed into one that leads elsewhere."""
    flushes_children_by_target: bool = False
    """The pages of a dropped table are flushed at the address that they lead to."""
    ages_asked_frame_only: bool = False
    """Ageing looks in the reverse map at the frame that was asked for, not at the first of the host's page."""
    flushes_flags_by_assigned_tag: bool = False
    """When flags of a shadow entry are cleared, the flush names the tag that the guest hypervisor assigned."""
    flags_keep_sequence: bool = False
    """Clearing accessed or dirty does not make a fault under way look again."""
    loses_creation_race: bool = False
    """Of two that make one nested guest at once, the second fails."""


NO_HABITS = Habits()
