"""Where a hypervisor that a plugin models differs from what is right, for people to read."""

from __future__ import annotations

import enum

import attrs


class Invariant(enum.IntEnum):
    """What must always hold of a nest."""

    SOUNDNESS = 1
    """Each shadow entry is allowed by the composition of the two tables under it: target, permission, size."""
    EQUIVALENCE = 2
    """Hardware's walk through the shadow gives the recursive truth's result, after the faults that it takes."""
    INVALIDATION = 3
    """After an invalidation or an unmap, no cache holds anything derived from what is gone."""
    REVERSE_MAP = 4
    """Every shadow entry is found from its frame; every reverse entry leads to one, or is seen to be stale."""
    DIRTY = 5
    """No write to a page goes unseen by the dirty log or by the guest hypervisor's changed bit."""
    PROGRESS = 6
    """A faulting access, retried, ends in bounded steps: done, reflected, emulated or refused."""
    ISOLATION = 7
    """No shadow entry reaches outside the guest hypervisor's memory slots."""
    LIFETIME = 8
    """A table page is freed once, only when nothing reaches it, and nothing reads it afterwards."""


@attrs.frozen
class QuirkInfo:
    """One behaviour that is a mistake."""

    arch: str
    name: str
    """The member's name in the plugin's own flag."""
    function: str
    """The function of the kernel that has it."""
    what: str
    breaks: Invariant | None
    """The invariant that it breaks; None where it breaks none."""
    why_none: str = ""
    """Why it breaks no invariant."""
    default: bool = True
    """Whether the plugin's model of the kernel has it when nothing else is said."""
