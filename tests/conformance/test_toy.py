"""The conformance suite for the toy."""

from __future__ import annotations

from nestmmu.testing import Conformance
from toy_arch.conformance import Toy, WideToy


class TestToy(Conformance):
    architecture = Toy


class TestWideToy(Conformance):
    architecture = WideToy
