"""nestmmu: an executable model of nested address translation.

A level-n address space is defined by recursion: read the table of level n, whose words lie
in the memory of level n-1, which is defined the same way, down to the host's memory. What
else holds a translation (a TLB, a shadow table) is a cache of that truth.
"""

__version__ = "0.1.0"
API_VERSION = 1
"""The version of the hook contract (:mod:`nestmmu.hookspecs`) that this core speaks."""
