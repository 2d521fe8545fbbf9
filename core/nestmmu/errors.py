"""Errors of the model itself, as opposed to the faults that it models (:mod:`nestmmu.faults`).

A fault is an answer: the architecture says that an access does not translate. An error
means that there is no answer: the input cannot be read, or the model was asked something
that it cannot do.
"""

from __future__ import annotations


class NestmmuError(Exception):
    """Base of all errors of the model."""


class InputError(NestmmuError):
    """What the user gave cannot be used: the command line prints one line and exits with 2.

    :param where: the file, or the argument, that is at fault.
    :param field: the part of it (``"l1.slots[3].size"``), or ``""`` for the whole.
    :param problem: what is wrong with it.
    :param remedy: what to do about it.
    """

    def __init__(self, where: object, field: str, problem: str, remedy: str) -> None:
        self.where = str(where)
        self.field = field
        self.problem = problem
        self.remedy = remedy
        subject = f"{self.where}: {field}" if field else self.where
        super().__init__(" ".join(f"{subject}: {problem}; {remedy}".split()))


class OutsideMemoryError(NestmmuError):
    """A physical address lies outside the memory.

    :param address: the address, in bytes.
    :param size: how many bytes were asked for.
    """

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size
        super().__init__(f"{size} bytes at {address:#x} lie outside the memory")


class CycleError(NestmmuError):
    """Reading a table needs the translation that the table itself gives.

    :param names: the memories on the way round, outermost first, the first repeated last.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        super().__init__(f"translation reads itself: {' -> '.join(names)}")


class OutOfPagesError(NestmmuError):
    """An allocator of table pages has none left."""


class PoisonedError(NestmmuError):
    """Freed table memory was read or freed again: a bug of the code that runs on the model.

    :param address: the address that was used, in bytes.
    """

    def __init__(self, address: int, what: str) -> None:
        self.address = address
        super().__init__(f"{what} at {address:#x}, which was freed")


class PluginError(NestmmuError):
    """A plugin cannot be used; the message names its distribution."""


class TooLargeError(NestmmuError):
    """A table reaches more than can honestly be there (a loop, or a bomb)."""
