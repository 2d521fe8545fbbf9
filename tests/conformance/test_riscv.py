"""The conformance suite for the G-stage of RISC-V, and for its nest."""

from __future__ import annotations

import sys

from nestmmu.testing import Conformance
from nestmmu_riscv.conformance import RiscvSv39, RiscvSv39x4, RiscvSv48x4, RiscvSv57x4, RiscvSvadu


class TestRiscv(Conformance):
    architecture = RiscvSv39x4


class TestRiscvSvadu(Conformance):
    architecture = RiscvSvadu


class TestRiscvSv39(Conformance):
    architecture = RiscvSv39


if sys.version_info < (3, 12):  # the same code with more levels: on the oldest Python alone

    class TestRiscvSv48x4(Conformance):
        architecture = RiscvSv48x4

    class TestRiscvSv57x4(Conformance):
        architecture = RiscvSv57x4
