"""What both POWER9 MMUs, radix and hash, share: registers, interrupts, the partition table.

Bit numbering: bit 0 is the least significant. The source of a constant is Power ISA 3.0B, Book III,
unless it says otherwise.
"""
