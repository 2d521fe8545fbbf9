"""The conformance suite for POWER9's hash tables, and for nested guests that have such."""

from __future__ import annotations

import sys

from nestmmu.testing import Conformance
from nestmmu_ppc64_hpt.conformance import Ppc64Hpt, Ppc64Hpt256M


class TestPpc64Hpt(Conformance):
    architecture = Ppc64Hpt


if sys.version_info < (3, 12):  # the same code with other numbers: on the oldest Python alone

    class TestPpc64Hpt256M(Conformance):
        architecture = Ppc64Hpt256M
