"""Fixtures of the page's and the panel's tests: a study of eight phantoms, and a server at which five of them are labelled."""

from __future__ import annotations

import pytest
from serving import phantoms, serving_labelled


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A study of eight phantoms."""
    return phantoms(tmp_path_factory.mktemp("study"), 8, n_landmarks=12)


@pytest.fixture(scope="module")
def server(material, tmp_path_factory):
    """A running server; five of the eight cases are labelled, so there is a shape to propose."""
    with serving_labelled(material, 5, tmp_path_factory.mktemp("labels")) as server:
        yield server
