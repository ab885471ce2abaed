"""One Hypothesis profile for protocol tests: the same examples on every run, no database, no deadline."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

from tests.budget import examples


def profile(number: int, *, shrink: bool = True, steps: int = 50) -> settings:
    """``number`` of examples in the long run (:func:`examples`). ``shrink=False`` for tests that expect a failure and
    do not care for the smallest one: they take ``number`` always."""
    phases = [Phase.explicit, Phase.generate] + [Phase.shrink] * shrink
    return settings(
        derandomize=True, database=None, deadline=None, phases=phases,
        max_examples=examples(number) if shrink else number,
        stateful_step_count=steps, suppress_health_check=[HealthCheck.too_slow],
        print_blob=False, report_multiple_bugs=False,
    )  # fmt: skip
