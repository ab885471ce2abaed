"""``--steps A:B`` of the verbs that read ranks' records."""

from __future__ import annotations

from coordsim.errors import InputError


def step_range(steps: str | None) -> range | None:
    """Return the step numbers from A up to but not including B; None if ``steps`` is None.

    Raises InputError for another form.
    """
    if steps is None:
        return None
    first, colon, last = steps.partition(":")
    if not colon or not first.isdecimal() or not last.isdecimal() or int(first) >= int(last):
        raise InputError.one("--steps", "", steps, 'needs the form "A:B" with A less than B, such as "0:20"')
    return range(int(first), int(last))
