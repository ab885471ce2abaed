"""How the suite is spread over two workers: everything that starts ranks as processes stays on one of them."""

from __future__ import annotations

import pytest

PROCESSES = ("tests/real_backend/", "tests/differential/test_backend_is_the_protocol.py", "tests/cli/test_report.py",
             "tests/bench/test_backends.py")  # fmt: skip
"""Files whose tests want both cores, and would only slow each other down side by side."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test's group; the one that takes longest comes first, or it would be waited for at the end."""
    for item in items:
        group = "processes" if _starts_processes(item) else _path(item)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not _starts_processes(item))


def _path(item: pytest.Item) -> str:
    return item.path.relative_to(item.config.rootpath).as_posix()


def _starts_processes(item: pytest.Item) -> bool:
    return _path(item).startswith(PROCESSES)
