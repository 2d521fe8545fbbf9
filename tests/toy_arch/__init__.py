"""A made-up architecture, as small as one can be: it proves that the core knows no real one.

Two levels of tables with four entries each; pages of 16 bytes, and large ones of 64; entries of 4 bytes, little-endian.
Its faults are called NOPE, KEEP OUT, GARBLED and GRUBBY; its root table is an array of words, one a tag.
"""
