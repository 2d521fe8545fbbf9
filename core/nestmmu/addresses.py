"""Address spaces as types, and the arithmetic on addresses that all of the model shares.

Every address is a number of bytes. The types below are all ``int`` when the program runs; they keep
a type checker from letting an address, or a tag, of one level pass for that of another.
"""

from __future__ import annotations

from typing import NewType

L0Real = NewType("L0Real", int)
"""An address in the memory of the outermost hypervisor: the machine's."""
L1Real = NewType("L1Real", int)
"""An address in what the guest hypervisor takes for the machine's memory."""
L2Real = NewType("L2Real", int)
"""An address in what the nested guest takes for the machine's memory."""

AssignedTag = NewType("AssignedTag", int)
"""The tag (LPID, VMID, VPID) that a guest hypervisor gave to its guest: a name in the guest hypervisor's tables."""
HardwareTag = NewType("HardwareTag", int)
"""The tag that the host allocated, by which hardware knows the guest's translations."""

ADDRESS_BITS = 64
ADDRESS_LIMIT = 1 << ADDRESS_BITS


def low_mask(bits: int) -> int:
    """Return the mask of the lowest ``bits`` bits."""
    return (1 << bits) - 1


def align_down(address: int, shift: int) -> int:
    """Return the start of the page of 2**shift bytes that holds ``address``."""
    return address >> shift << shift


def is_aligned(address: int, shift: int) -> bool:
    """Tell whether ``address`` is the start of a page of 2**shift bytes."""
    return address & ((1 << shift) - 1) == 0
