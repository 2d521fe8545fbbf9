"""The pytest plugin: ``--nestmmu-arch``, skips, expected failures. It imports nothing until it is used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from nestmmu.testing.architecture import Architecture
    from nestmmu.testing.topic import Topic

OPTION, SEED = "--nestmmu-arch", "--nestmmu-seed"
chosen: list[type[Architecture]] = []
"""What :data:`OPTION` named."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("nestmmu", "conformance of architectures")
    group.addoption(OPTION, metavar="NAME", help="run the conformance suite for an architecture that a plugin brings")
    group.addoption(SEED, type=int, default=0, metavar="N", help="seed of what the conformance suite draws by lot")


def pytest_configure(config: pytest.Config) -> None:
    """Collect the suite for what was named, and where no file was, nothing else.

    :raises pytest.UsageError: if no plugin brings it, or its declaration cannot be.
    """
    name = config.getoption(OPTION)
    if name is None:
        return
    from nestmmu.errors import NestmmuError  # noqa: PLC0415  (see the module)
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    try:
        chosen[:] = [Plugins().architecture(name)]
    except NestmmuError as error:
        message = f"{OPTION}: {error}"
        raise pytest.UsageError(message) from None
    suite = str(Path(__file__).with_name("by_name.py"))
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    config.args = [*config.args, suite] if named else [suite]


def _topic(item: pytest.Item) -> type[Topic] | None:
    """Return the topic that a test belongs to; None for any other test."""
    module = sys.modules.get("nestmmu.testing.topic")
    cls = getattr(item, "cls", None)
    return cls if module is not None and isinstance(cls, type) and issubclass(cls, module.Topic) else None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Skip a test of the suite that has found nothing to ask."""
    if _topic(pyfuncitem) is None:
        return (yield)
    from nestmmu.testing.checks import NotApplicableError  # noqa: PLC0415  (see the module)

    try:
        return (yield)
    except NotApplicableError as error:
        pytest.skip(str(error))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is expected to fail, and what the architecture does not have.

    :raises pytest.UsageError: if a declaration expects a test to fail that does not exist.
    """
    topics = {item: topic for item in items if (topic := _topic(item)) is not None}
    if not topics:
        return
    from nestmmu.errors import NestmmuError  # noqa: PLC0415  (see the module)
    from nestmmu.testing.run import check_expectations  # noqa: PLC0415

    for item, topic in topics.items():
        topic.seed = int(config.getoption(SEED) or 0)
        reason = topic.missing(topic.architecture())
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        expected = topic.architecture.capabilities.expected_failures.get(f"{topic.name()}.{item.name}")
        if expected is not None:
            item.add_marker(pytest.mark.xfail(reason=expected, strict=True))
    try:
        for architecture in {topic.architecture for topic in topics.values()}:
            check_expectations(architecture)
    except NestmmuError as error:
        raise pytest.UsageError(str(error)) from None
