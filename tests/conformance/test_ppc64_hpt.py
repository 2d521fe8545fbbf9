"""The conformance suite for POWER9's hash tables, and for nested guests that have such."""

from __future__ import annotations

from nestmmu.testing import Conformance
from nestmmu_ppc64_hpt.conformance import Ppc64Hpt, Ppc64Hpt256M


class TestPpc64Hpt(Conformance):
    architecture = Ppc64Hpt


class TestPpc64Hpt256M(Conformance):
    architecture = Ppc64Hpt256M
