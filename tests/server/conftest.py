"""A failing test shows the logs of the servers that were running."""

from __future__ import annotations

import logging

import pytest
import serving

from landmarklabel.services.console import set_up_console


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        report.sections += [(f"log of {server.url}", serving.tail(server)) for server in serving.LIVE]


@pytest.fixture(scope="session")
def running_server():
    """Context manager: ``with running_server(material) as server``."""
    return serving.serving


@pytest.fixture
def console():
    """The package's log on stderr, as in a server."""
    log = logging.getLogger("landmarklabel")
    before = log.handlers[:], log.level, log.propagate
    set_up_console()
    yield
    log.handlers[:], log.propagate = before[0], before[2]
    log.setLevel(before[1])
