"""The conformance suite for POWER9's hash tables."""

from __future__ import annotations

from nestmmu.testing import Conformance
from nestmmu_ppc64_hpt.conformance import Ppc64Hpt


class TestPpc64Hpt(Conformance):
    architecture = Ppc64Hpt
