"""Running the suite without pytest: for ``nestmmu conformance``, and for whoever wants to see what it catches."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from nestmmu.errors import NestmmuError
from nestmmu.testing.checks import NotApplicableError
from nestmmu.testing.suite import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nestmmu.testing.architecture import Architecture
    from nestmmu.testing.topic import Topic


class Verdict(enum.Enum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The architecture does not have what the test needs, and says why."""
    EXPECTED = "failed as expected"
    UNEXPECTED = "passed, and was expected to fail"

    @property
    def fine(self) -> bool:
        """Whether the suite is passed with this."""
        return self not in {Verdict.FAILED, Verdict.UNEXPECTED}


@attrs.frozen
class Result:
    """One test."""

    topic: str
    test: str
    verdict: Verdict
    message: str = ""
    """Why it failed, was skipped, or had to fail."""


def select(names: Iterable[str]) -> tuple[type[Topic], ...]:
    """Return topics by name; all where no name is given.

    :raises NestmmuError: for a name that no topic has.
    """
    known = list(dict.fromkeys(topic.name() for topic in TOPICS))
    wanted = set(names) or set(known)
    unknown = sorted(wanted.difference(known))
    if unknown:
        message = f"there is no topic {unknown[0]!r}; the topics are {', '.join(known)}"
        raise NestmmuError(message)
    return tuple(topic for topic in TOPICS if topic.name() in wanted)


def check_expectations(architecture: type[Architecture]) -> None:
    """Look whether every test that is expected to fail exists.

    :raises NestmmuError: naming one that does not.
    """
    known = {f"{topic.name()}.{test}" for topic in TOPICS for test in topic.methods()}
    unknown = sorted(set(architecture.capabilities.expected_failures) - known)
    if unknown:
        message = f"{architecture.capabilities.name}: expected_failures names {unknown[0]}, and there is no such test"
        raise NestmmuError(message)


def run_test(topic: type[Topic], test: str) -> Result:
    """Run one test of a topic that has an architecture."""
    name = topic.name()
    reason = topic.missing(topic.architecture())
    if reason is not None:
        return Result(name, test, Verdict.SKIPPED, reason)
    expected = topic.architecture.capabilities.expected_failures.get(f"{name}.{test}")
    try:
        getattr(topic(), test)()
    except NotApplicableError as error:
        return Result(name, test, Verdict.SKIPPED, str(error))
    except Exception as error:  # noqa: BLE001  (whatever it raises, the test has failed)
        text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        return Result(name, test, Verdict.FAILED if expected is None else Verdict.EXPECTED, expected or text)
    return Result(name, test, Verdict.PASSED if expected is None else Verdict.UNEXPECTED, expected or "")


def run(
    architecture: type[Architecture], topics: tuple[type[Topic], ...] = TOPICS, *, seed: int = 0
) -> Iterator[Result]:
    """Run topics, test by test.

    :raises NestmmuError: if the declaration expects a failure of a test that does not exist.
    """
    check_expectations(architecture)
    for topic in topics:
        made = topic.of(architecture, seed)
        for test in topic.methods():
            yield run_test(made, test)
