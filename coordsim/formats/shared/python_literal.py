"""Text that Python's ``repr`` wrote: lists, dicts, strings, numbers, True, False, None. Nothing is executed."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

LONGEST = 1 << 20
"""Largest number of characters; longer text is refused before it is parsed."""
_DEEPEST = 32
_NESTING = re.compile(r"[\[({]+|[\])}]+")
_LONG_NUMBER = re.compile(r"[0-9_]{400}")


def literal(text: str, longest: int = LONGEST) -> Any:
    """Return the value of a literal. Raises ValueError, with the reason, for anything else."""
    if len(text) > longest:
        raise ValueError(f"longer than {longest:,} characters")
    depth = 0
    for brackets in _NESTING.findall(text):
        depth += len(brackets) if brackets[0] in "[({" else -len(brackets)
        if depth > _DEEPEST:
            raise ValueError("nested too deep")
    if _LONG_NUMBER.search(text):
        raise ValueError("a number of absurd length")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash in a name is no news
            return ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("no literal of Python") from error
