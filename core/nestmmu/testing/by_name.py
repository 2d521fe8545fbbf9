"""What ``pytest --nestmmu-arch NAME`` collects: the suite for an architecture that an installed plugin brings."""

from __future__ import annotations

from nestmmu.testing.plugin import chosen
from nestmmu.testing.suite import Conformance

for _architecture in chosen:

    class TestConformance(Conformance):
        """The suite for the architecture that was named."""

        architecture = _architecture
