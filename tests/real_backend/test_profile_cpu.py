"""The thread's CPU time and its waits for a core, as the kernel counts them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from real_backend.profile.cpu import Clocks, CpuClocks

SCHEDSTAT = Path("/proc/self/schedstat")


def test_counters_of_a_thread_only_grow() -> None:
    clocks = CpuClocks()
    before = clocks()
    sum(range(10_000))
    after = clocks()
    assert after.thread_ns > before.thread_ns
    assert after.process_ns > before.process_ns
    if SCHEDSTAT.exists():
        assert before.core_wait_ns is not None
        assert after.core_wait_ns is not None
        assert after.core_wait_ns >= before.core_wait_ns


@pytest.mark.skipif(not SCHEDSTAT.exists(), reason="the kernel does not count waits for cores")
def test_another_thread_reads_its_own_waits() -> None:
    clocks, seen = CpuClocks(), list[Clocks]()
    mine = clocks()
    thread = threading.Thread(target=lambda: seen.append(clocks()))
    thread.start()
    thread.join()
    assert seen[0].thread_ns < mine.thread_ns
    assert seen[0].core_wait_ns is not None
    again = clocks()
    assert again.core_wait_ns is not None
    assert mine.core_wait_ns is not None
    assert again.core_wait_ns >= mine.core_wait_ns
