"""The state machine: everything that may happen to a nest, in any order; Hypothesis looks for what breaks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nestmmu.access import Access
from nestmmu.errors import NestmmuError
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.happenings import Happenings
from nestmmu.testing.topic import Topic

if TYPE_CHECKING:
    from nestmmu.testing.architecture import Architecture

EXAMPLES, STEPS = 20, 24
SLOTS: tuple[dict[str, bool], ...] = ({}, {"gone": True}, {"read_only": True}, {"dirty_log": True})


def make_machine(architecture: type[Architecture]) -> Any:  # noqa: ANN401  (a class of Hypothesis's, of rules)
    """Return the state machine of an architecture, a class.

    :raises NestmmuError: if Hypothesis is not installed.
    """
    try:
        from hypothesis import strategies as st  # noqa: PLC0415  (an extra)
        from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule  # noqa: PLC0415
    except ImportError:
        message = "the state machine needs Hypothesis; install nestmmu[test]"
        raise NestmmuError(message) from None
    form = architecture.capabilities
    most = max(form.rights, key=int.bit_count)
    who, size, scope = st.integers(0, 1), st.sampled_from(form.nest_shifts), st.sampled_from(form.scopes)
    chunk, page = st.integers(0, 3), st.sampled_from((0, 1, 7))
    rights = st.sampled_from((most, most, *form.rights))
    flags = st.sampled_from(((True, True), (True, True), (True, False), (False, False)))
    steps = {
        "begin": initialize(shift=size)(Happenings.begin),
        "map": rule(
            number=who, chunk=chunk, page=page, shift=size, to=st.integers(0, 4), rights=rights, flags=flags,
            scope=scope,
        )(Happenings.map),
        "unmap": rule(number=who, pick=st.integers(0, 9), scope=scope)(Happenings.unmap),
        "touch": rule(number=who, kind=st.sampled_from(Access), page=page)(Happenings.touch),
        "take_away": rule(chunk=chunk, moves=st.booleans())(Happenings.take_away),
        "age": rule(chunk=chunk)(Happenings.age),
        "slot": rule(kind=st.sampled_from(SLOTS))(Happenings.slot),
        "take_log": rule()(Happenings.take_log),
        "release": rule(number=who)(Happenings.release),
        "check": invariant()(Happenings.check),
    }  # fmt: skip
    return type("Nests", (Happenings, RuleBasedStateMachine), {"architecture": architecture, **steps})


class StateMachine(Topic):
    """The machine, run."""

    needs = (Feature.NEST,)

    def test_any_order_of_events(self) -> None:
        machine = make_machine(self.architecture)
        from hypothesis import HealthCheck, Phase, seed, settings  # noqa: PLC0415  (an extra)
        from hypothesis.stateful import run_state_machine_as_test  # noqa: PLC0415

        chosen = settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None, print_blob=True,
            suppress_health_check=[HealthCheck.too_slow], phases=(Phase.generate, Phase.shrink), derandomize=False,
        )  # fmt: skip
        run_state_machine_as_test(seed(self.seed)(machine), settings=chosen)
