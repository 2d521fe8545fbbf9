"""The conformance suite for POWER9 radix: corrected, and as Linux 6.1 has it."""

from __future__ import annotations

from nestmmu.testing import Conformance
from nestmmu_ppc64_radix.conformance import Ppc64Radix, Ppc64RadixLinux


class TestPpc64Radix(Conformance):
    architecture = Ppc64Radix


class TestPpc64RadixLinux(Conformance):
    architecture = Ppc64RadixLinux
