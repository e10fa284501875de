"""A failing test shows the logs of the servers that were running."""

from __future__ import annotations

import pytest
import serving


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        report.sections += [(f"log of {server.url}", serving.tail(server)) for server in serving.LIVE]


@pytest.fixture(scope="session")
def running_server():
    """Context manager: ``with running_server(material) as server``."""
    return serving.serving
