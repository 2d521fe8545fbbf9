"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "nestmmu",
    deadline=None,
    derandomize=False,  # hypothesis would where CI is set, and then no run finds more than the first did
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nestmmu")

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of recorded data."""
    return DATA
