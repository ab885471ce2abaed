"""How the suite is spread over two workers: everything that starts ranks as processes stays on one of them."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests import budget

budget.register()

PROCESSES = ("tests/real_backend/", "tests/differential/test_backend_is_the_protocol.py", "tests/cli/test_report.py",
             "tests/bench/test_backends.py")  # fmt: skip
"""Files whose tests want both cores, and would only slow each other down side by side."""
SLOW = ("tests/golden/", "tests/property/test_planted_faults.py", "tests/test_analyses.py",
        "tests/analyse/test_validate_", "tests/analyse/test_calibrate_", "tests/differential/")  # fmt: skip
"""Files with tests that take long: begun last, they would be waited for at the end."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """A worker takes a whole file, in the long run a single test; all of :data:`PROCESSES` count as one.

    The mark ``xdist_group`` would do, but xdist 3.8 hides it in a node's id, where pytest 9.2 does not look.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(PROCESSES):
            return "processes"
        return nodeid if _is_long(self.config) else nodeid.partition("::")[0]


def _is_long(config: pytest.Config) -> bool:
    return config.option.markexpr.startswith("long")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The scope that takes longest comes first, then files with tests that do."""
    items.sort(key=lambda item: (not item.nodeid.startswith(PROCESSES), not item.nodeid.startswith(SLOW)))
