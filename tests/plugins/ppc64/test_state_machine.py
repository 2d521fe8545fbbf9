"""The state machine of two L1s with two L2s each, for radix: corrected, on 4 KiB pages, and as Linux does it."""

from __future__ import annotations

import sys

from hypothesis import settings
from power_nests import PowerNests

from nestmmu_ppc64_radix.quirks import Quirk


class PowerNests4K(PowerNests):
    page_shift = 12


class LinuxNests(PowerNests):
    """What is left of Linux 6.1 where the quirks are taken out that break an invariant, or what is checked here."""

    quirks = Quirk.LINUX_6_1 & ~(
        Quirk.MERGED_TARGETS
        | Quirk.FLUSHED_BY_L1_LPID
        | Quirk.CHILDREN_FLUSHED_AT_HOST_ADDRESS
        | Quirk.PAGES_BEYOND_SLOT
        | Quirk.AGED_BY_FRAME
    )


TestCorrected = PowerNests.TestCase
TestCorrected4K = PowerNests4K.TestCase
TestLinux = LinuxNests.TestCase
EXAMPLES = 160 if sys.version_info < (3, 12) else 30
"""On the oldest Python 10,000 steps and more in all; on the others enough to see that it runs there."""
TestCorrected.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None, print_blob=True)
TestCorrected4K.settings = TestLinux.settings = settings(TestCorrected.settings, max_examples=EXAMPLES // 2)
