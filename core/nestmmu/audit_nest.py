"""A whole nest under audit: its shadow table, and the two tables under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.audit import Judge, Verdict
from nestmmu.audit_tables import Findings, aliased, exposed, malformed, shared
from nestmmu.extents import Extents
from nestmmu.extract import extract

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nestmmu.nests import NestTables


@attrs.frozen(eq=False)
class Audit:
    """What an audit found."""

    shadow: Extents
    """The entries of the shadow table, by address; none where there is no shadow."""
    verdicts: NDArray[np.uint8]
    """Of each a :class:`~nestmmu.audit.Verdict`, shape (n,)."""
    judge: Judge | None
    """What knows the tables under it; None where there is no shadow."""
    findings: tuple[Findings, ...]
    """What is wrong with the tables themselves; none is empty."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings and not self.verdicts.any()

    @property
    def offenders(self) -> NDArray[np.intp]:
        """Which entries are not sound."""
        return np.flatnonzero(self.verdicts)

    def counts(self) -> dict[Verdict, int]:
        """Return how many entries each verdict was given to, all verdicts named."""
        counts = np.bincount(self.verdicts, minlength=len(Verdict)).tolist()
        return {verdict: counts[verdict] for verdict in Verdict}


def audit_nest(tables: NestTables, progress: Callable[[int, int], None] | None = None) -> Audit:
    """Judge every entry of a nest's shadow table, and look at its tables; nothing is changed.

    :param progress: called now and then with how many entries are judged, and how many there are.
    :raises Fault: MALFORMED, where the root of a table is.
    :raises ~nestmmu.errors.NestmmuError: as :func:`~nestmmu.extract.extract` does.
    """
    inner = extract(tables.inner, words=False)
    name = tables.inner.walker.stage
    found = [*malformed(name, inner), aliased(name, inner.extents), shared(name, inner)]
    found.append(exposed(name, inner.extents, inner))
    if tables.outer is None or tables.shadow is None:
        return Audit(Extents.empty(), np.zeros(0, np.uint8), None, _some(found))
    outer = extract(tables.outer, words=False)
    judge = Judge(inner.extents, outer.extents)
    shadow = extract(tables.shadow, words=False)
    host, third = tables.outer.walker.stage, tables.shadow.walker.stage
    found += [*malformed(host, outer), aliased(host, outer.extents), *malformed(third, shadow)]
    found.append(shared(f"{host}, {third}", outer, shadow))
    found += [exposed(one, space, outer, shadow) for one, space in ((host, outer.extents), (third, shadow.extents))]
    verdicts = judge.judge(shadow.extents, progress)
    return Audit(shadow.extents, verdicts, judge, _some(found))


def _some(found: list[Findings]) -> tuple[Findings, ...]:
    return tuple(one for one in found if len(one))
