"""The conformance suite catches what is wrong: each fault that is planted makes it fail."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from nestmmu.access import Access
from nestmmu.compose import compose_mappings
from nestmmu.mappings import Mapping
from nestmmu.testing.run import Result, run, select
from nestmmu_ppc64_hpt.conformance import Ppc64Hpt
from nestmmu_ppc64_radix.conformance import Ppc64Radix
from nestmmu_riscv.conformance import RiscvSv39x4, RiscvSvadu
from planting import Line, compiled, function_of, planted, resolve
from planting.hash import ON_HASH
from planting.power import ON_POWER
from planting.riscv import ON_RISCV, ON_SVADU
from planting.toy import ON_TOY
from toy_arch.conformance import WideToy

if TYPE_CHECKING:
    from collections.abc import Callable

    from planting import Mutant

ARCHITECTURES: dict[str, Any] = {
    "toy": WideToy, "ppc64_radix": Ppc64Radix, "ppc64_hpt": Ppc64Hpt, "riscv": RiscvSv39x4, "riscv_svadu": RiscvSvadu,
}  # fmt: skip
CASES = (
    *(("toy", mutant) for mutant in ON_TOY),
    *(("ppc64_radix", mutant) for mutant in ON_POWER),
    *(("ppc64_hpt", mutant) for mutant in ON_HASH),
    *(("riscv", mutant) for mutant in ON_RISCV),
    *(("riscv_svadu", mutant) for mutant in ON_SVADU),
)
EVERY = 1 if sys.version_info < (3, 12) else 10
"""All faults on the oldest Python, a tenth of them on the others: what they are caught by hangs on no version."""
PLANTED = [pytest.param(name, mutant, id=f"{name}: {mutant.name}") for name, mutant in CASES[::EVERY]]


def first_failure(name: str, topic: str = "") -> Result | None:
    """Run one topic, then the suite, the cheapest topics first, up to the first test that fails."""
    first = run(ARCHITECTURES[name], select([topic])) if topic else ()
    results = itertools.chain(first, run(ARCHITECTURES[name]))
    return next((result for result in results if not result.verdict.fine), None)


@pytest.mark.parametrize(("name", "mutant"), PLANTED)
def test_a_planted_fault_is_caught(name: str, mutant: Mutant, record_property: Callable[[str, object], None]) -> None:
    with planted(mutant):
        caught = first_failure(name, mutant.topic)
    assert caught is not None, f"no topic catches: {mutant.name}"
    record_property("fault", f"{name}: {mutant.name}")
    record_property("caught by", caught.topic)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_without_a_fault_nothing_is_caught(name: str) -> None:
    """After all that was planted and taken out again in this process."""
    assert first_failure(name) is None


def test_there_are_enough_faults_of_every_kind() -> None:
    assert len(CASES) >= 40
    assert Counter(name for name, _ in CASES).keys() == ARCHITECTURES.keys()
    assert len({(name, mutant.name) for name, mutant in CASES}) == len(CASES)


def test_planting_changes_what_runs_and_is_undone() -> None:
    inner, outer = Mapping(0, 64, 4, 7, accessed=True, dirty=True), Mapping(64, 128, 6, 3, accessed=True, dirty=True)
    fault = Line("either", "nestmmu.compose:compose_mappings", "inner.permissions & outer", "inner.permissions | outer")
    assert compose_mappings(inner, outer, Access.LOAD, (4, 6)).permissions == 3
    with planted(fault):
        assert compose_mappings(inner, outer, Access.LOAD, (4, 6)).permissions == 7
    assert compose_mappings(inner, outer, Access.LOAD, (4, 6)).permissions == 3


@pytest.mark.parametrize(("old", "problem"), [("no such text", "stands 0 times"), ("inner", "times in")])
def test_a_fault_whose_line_is_not_there_once_is_refused(old: str, problem: str) -> None:
    function = function_of(resolve("nestmmu.compose:compose_mappings"))
    with pytest.raises(AssertionError, match=problem):
        compiled(function, old, "anything")
