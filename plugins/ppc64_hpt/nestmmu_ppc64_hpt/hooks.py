"""The hooks of the POWER9 hash plugin. What they provide is imported when it is asked for."""

from __future__ import annotations

ARCH = "ppc64_hpt"
