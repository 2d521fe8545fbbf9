"""Images of a machine's memory, and the readers of what comes from outside."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from nestmmu.images.nest import Dropped, Frames, ImageSlot, NestImage, Section, Touch, read_nest_image
from nestmmu.images.opening import Description, kind_of, open_image, open_memory

__all__ = [
    "Description",
    "Dropped",
    "Frames",
    "ImageSlot",
    "NestImage",
    "Section",
    "Touch",
    "kind_of",
    "open_image",
    "open_memory",
    "read_nest_image",
    "shipped_image",
]


def shipped_image() -> Path:
    """Return the path of the image that is installed with the package."""
    return Path(str(resources.files(__name__).joinpath("data", "nest-64k-64k.json")))
