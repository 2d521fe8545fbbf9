"""What came of a run, for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from nestmmu.cli.output import console
from nestmmu.nests import size_text
from nestmmu.report.tables import show_table

if TYPE_CHECKING:
    from nestmmu.cli.run import RunResult


def show_run(result: RunResult, most: int) -> None:
    """Print a run: accesses, faults, the shadow by page size, and at most ``most`` differences of each kind."""
    out = console()
    out.print(f"{result.image.path}: {result.image.origin}", markup=False)
    wrong = Counter(one.outcome for one in result.different)
    rows = [(name, count, count - wrong[name]) for name, count in sorted(result.outcomes.items())]
    show_table("Accesses by outcome", ("outcome", "accesses", "as recorded"), rows)
    if result.nest.faults:
        show_table("Faults handled by the hypervisors", ("kind", "faults"), sorted(result.nest.faults.items()))
    if result.shadow.kernel or result.shadow.rebuilt:
        _show_shadow(result)
    for one in result.different[:most]:
        out.print(f"differs: {one.label}", markup=False)
        for name in sorted(one.expected.keys() | one.computed.keys()):
            left, right = one.expected.get(name), one.computed.get(name)
            if left != right:
                out.print(f"  {name}: expected {_hex(left)}, got {_hex(right)}", markup=False)
    shadow = result.shadow
    unexplained = [one for one in (*shadow.different, *shadow.only_kernel, *shadow.only_rebuilt) if not one.why]
    for entry in unexplained[:most]:
        out.print(f"shadow differs: {entry.describe()}", markup=False)
    for why, count in sorted(result.explained.items()):
        out.print(f"{count:,} entries only in the rebuilt shadow, explained: {why}", markup=False)
    verdict = "everything as recorded" if result.fine else "DIFFERENCES FOUND"
    out.print(
        f"{result.total - len(result.different):,} of {result.total:,} accesses and "
        f"{shadow.equal:,} of {shadow.kernel:,} shadow entries equal: {verdict}",
        markup=False,
    )


def _show_shadow(result: RunResult) -> None:
    """Print the shadow's entries by the page sizes of the two tables under it."""
    kernel: Counter[tuple[str, str]] = Counter()
    rebuilt: Counter[tuple[str, str]] = Counter()
    for counter, leaves in ((kernel, result.nest.kernel_shadow()), (rebuilt, result.nest.rebuilt_shadow())):
        for leaf in leaves:
            counter[result.nest.page_sizes(leaf), size_text(leaf.page_shift)] += 1
    rows = [
        (under, size, kernel[under, size], rebuilt[under, size])
        for under, size in sorted(kernel.keys() | rebuilt.keys())
    ]
    show_table("Shadow entries", ("L1 over L0", "shadow page", "kernel's", "rebuilt"), rows)


def _hex(value: int | None) -> str:
    return "nothing" if value is None else f"{value:#x}"
