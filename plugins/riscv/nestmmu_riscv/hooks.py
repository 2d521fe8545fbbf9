"""The hooks of the RISC-V plugin. What they provide is imported when it is asked for."""

from __future__ import annotations

ARCH = "riscv"
