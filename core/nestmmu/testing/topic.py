"""What the topics of the suite share: a class each, whose methods ``test_*`` need nothing but an architecture."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar, Self, cast

from nestmmu.access import ALL_PERMISSIONS, Access
from nestmmu.addresses import ADDRESS_BITS, low_mask
from nestmmu.errors import NestmmuError
from nestmmu.formats import InputRule
from nestmmu.testing.architecture import Architecture, RadixArchitecture

if TYPE_CHECKING:
    from nestmmu.testing.capabilities import Capabilities, Feature

_HOME = "nestmmu.testing.topics."
UPDATES_NOTHING = "the hardware sets neither accessed nor dirty"
NO_TREES = "the guest hypervisor's tables are no trees of the suite's"
ONE_WORD = "no two words of the format mean the same"


class Topic:
    """One subject. A subclass that names an architecture can be run, by pytest or by :mod:`nestmmu.testing.run`."""

    architecture: ClassVar[type[Architecture]]
    """What is tested."""
    needs: ClassVar[tuple[Feature, ...]] = ()
    """Without these the whole topic is skipped."""
    seed: ClassVar[int] = 0
    """Of what is random in a test: the same seed, the same test."""

    @classmethod
    def name(cls) -> str:
        """Return the topic's name: of the module that it stands in."""
        return next(base for base in cls.__mro__ if base.__module__.startswith(_HOME)).__module__.removeprefix(_HOME)

    @classmethod
    def methods(cls) -> list[str]:
        """Return the names of its tests, in their order."""
        return [name for base in reversed(cls.__mro__) for name in vars(base) if name.startswith("test_")]

    @classmethod
    def of(cls, architecture: type[Architecture], seed: int = 0) -> type[Self]:
        """Return the topic for an architecture."""
        made = type(cls.__name__, (cls,), {"architecture": architecture, "seed": seed, "__doc__": cls.__doc__})
        return cast("type[Self]", made)

    @classmethod
    def missing(cls, arch: Architecture) -> str | None:
        """Return why an architecture cannot be asked; None if it can."""
        return next((reason for feature in cls.needs if (reason := arch.lacks(feature)) is not None), None)

    @property
    def arch(self) -> Architecture:
        """The architecture."""
        return self.architecture()

    @property
    def trees(self) -> RadixArchitecture:
        """The architecture, whose tables are trees.

        :raises NestmmuError: if it declares levels and is no RadixArchitecture.
        """
        arch = self.arch
        if not isinstance(arch, RadixArchitecture):
            message = f"{arch.capabilities.name}: what has levels is a RadixArchitecture"
            raise NestmmuError(message)
        return arch

    @property
    def form(self) -> Capabilities:
        """What the architecture declares."""
        return self.architecture.capabilities

    def canonical(self, address: int) -> int:
        """Return an address with the bits above those that a table translates as the architecture wants them."""
        bits = self.form.input_bits
        if self.form.above_input is InputRule.SIGN and address >> bits - 1 & 1:
            return address | low_mask(ADDRESS_BITS) ^ low_mask(bits)
        return address

    def random(self, name: str) -> random.Random:
        """Return random numbers for one test."""
        return random.Random(f"{self.seed} {name}")  # noqa: S311  (a test's)

    def most_rights(self) -> int:
        """Return the most that a leaf can permit."""
        return max(self.form.rights, key=lambda rights: (rights & ALL_PERMISSIONS).bit_count())

    def access_for(self, rights: int) -> Access:
        """Return an access that these rights permit."""
        return next(access for access in Access if access & rights)
