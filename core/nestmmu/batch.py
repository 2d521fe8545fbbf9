"""Many translations at once: what the scalar path says of each address, over arrays.

A batch is a tree of stages, one for each table and each guest's memory in a nest. What addresses share is done once:
pages of tables are copied once, upper levels walked once for each prefix, and a guest's table is found through its
host's once for each page of it. Memory is read as it is when it is first needed; nothing else may change it meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.arrays import integer_array, together
from nestmmu.batch_stages import Batch
from nestmmu.translations import Lanes, StageNames, Translations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nestmmu.access import Access

CHUNK = 1 << 15
"""How many addresses are under way at a time."""


def translate_many(
    target: Any,  # noqa: ANN401  (a table, a memory, a CPU: see below)
    addresses: NDArray[Any] | Sequence[int],
    access: Access | None,
    *,
    update: bool = False,
    progress: Callable[[int, int], None] | None = None,
    jit: bool | None = None,
) -> Translations:
    """Translate addresses, in chunks; the extra memory does not grow with their number.

    :param target: a :class:`~nestmmu.radix.RadixTable`: results are its :meth:`~nestmmu.radix.RadixTable.translate`'s,
        in the memory that its leaves lead to. A :class:`~nestmmu.memory.TranslatedMemory`: results are its
        :meth:`~nestmmu.memory.TranslatedMemory.locate`'s, through every table down to the machine's memory, with what
        all of them permit and the smallest page. A :class:`ManyTranslator`, as CPUs are. Any other
        :class:`~nestmmu.memory.Translator` is asked address by address.
    :param addresses: in bytes, shape (n,), any integers.
    :param access: None: look up only, as :meth:`~nestmmu.radix.RadixTable.lookup`; permissions do not count.
    :param update: whether accessed and dirty are set in the memory, by tables whose walkers do so. All walks of a
        chunk come first.
    :param progress: called after each chunk with how many addresses are done, and how many there are.
    :param jit: whether to use numba; None: where it is installed and the addresses are many.
    :raises InputError: if the addresses are no such array.
    :raises ~nestmmu.errors.NestmmuError: as the scalar path does (a circle of memories, freed memory), and where numba
        is asked for and not installed.
    """
    array = integer_array(addresses, ADDRESS_LIMIT - 1, "addresses", "")
    total = len(array)
    outputs, faults, shifts, permissions = together(total, (np.uint64, np.uint16, np.uint8, np.uint8))
    result = Lanes(outputs, shifts, permissions, faults)
    names = StageNames()
    batch = Batch(names, update=update, jit=jit, total=total)
    stage = batch.stage(target)
    for start in range(0, total, CHUNK):
        part = slice(start, min(start + CHUNK, total))
        lanes = result.part(part)
        lanes.addresses[:], lanes.shifts[:], lanes.permissions[:], lanes.faults[:] = array[part], 64, 7, 0
        stage.run(lanes, access)
        batch.trim()
        if progress is not None:
            progress(part.stop, total)
    batch.close()
    return Translations(access, outputs, shifts, permissions, faults, names.names())
