"""One answer for every verb that explains a step."""

from __future__ import annotations

from coordsim.analyse.answer.model import Answer, AnswerKind, Basis, Candidate, Quantity

__all__ = ["Answer", "AnswerKind", "Basis", "Candidate", "Quantity"]
