"""No module imports itself by way of others: any module can be read, tested and moved with only what is below it."""

from __future__ import annotations

import copy
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import, those inside functions and for type checkers too."""
    return grimp.build_graph("coordsim", "real_backend", cache_dir=None)


def circle(graph: grimp.ImportGraph) -> list[str]:
    """The modules of one import circle; none where there is none."""
    try:
        TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_there_is_no_import_circle(graph):
    assert len(graph.modules) > 300
    assert circle(graph) == []


def test_a_circle_would_be_named(graph):
    graph = copy.deepcopy(graph)
    graph.add_import(importer="coordsim.errors", imported="coordsim.scenario.loading")
    assert {"coordsim.errors", "coordsim.scenario.loading"} <= set(circle(graph))
