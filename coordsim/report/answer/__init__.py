"""Renderers of an :class:`~coordsim.analyse.answer.Answer`: the terminal's screen and JSON.

A page and Markdown will be two more modules here, each a function of an answer and of where it goes.
"""

from __future__ import annotations

from coordsim.report.answer.as_json import answer_json
from coordsim.report.answer.screen import answer_screen

__all__ = ["answer_json", "answer_screen"]
