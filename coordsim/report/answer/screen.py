"""An answer on one screen: where the step goes, who was last, what the control plane did, what would change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coordsim.analyse.answer.model import Answer
from coordsim.report import tables, text
from coordsim.report.answer.advice import advice_lines
from coordsim.report.answer.rank_table import rank_lines
from coordsim.report.answer.rows import cost_rows, happened, results
from coordsim.report.answer.split import split_lines
from coordsim.report.tables import LABEL, Page

SHOWN_ASSUMPTIONS = 3
_LONGEST_ERROR = 120


def answer_screen(answer: Answer, title: str, page: Page, ranks: bool = False) -> str:
    """``title``: what a run is called; ``ranks``: the table of ranks, whether or not they differ."""
    bare = replace(answer, facts=replace(answer.facts, simulated=None, imported=None))  # what has no names to show
    answer, title = text.printable_all(bare), text.printable(title)  # a file's names may hold anything
    lines = [page.bold(line) for line in page.wrap(_headline(answer, title), rest="  ")]
    lines += ["", *tables.facts(results(answer), page, label=LABEL), "", *split_lines(answer, page)]
    table = None if answer.findings is None else answer.findings.rank_table
    if table is not None and (ranks or table.differs):
        lines += ["", *rank_lines(table, page, ranks)]
    lines += ["", *tables.facts([*happened(answer), *cost_rows(answer)], page, label=LABEL)]
    lines += advice_lines(answer, page)
    lines += _listed("what this record cannot tell", _caveats(answer), page)
    more = len(answer.assumptions) - SHOWN_ASSUMPTIONS
    lines += _listed("assumes", answer.assumptions[:SHOWN_ASSUMPTIONS], page)
    return "\n".join([*lines, *([page.dim(f"  + {more} more with --json")] if more > 0 else [])])


def _headline(answer: Answer, title: str) -> str:
    subject = answer.subject
    if subject is not None:
        return (
            f"{subject.workload} on {subject.cluster}: {text.plural(subject.ranks, 'GPU')} "
            f"({text.plural(subject.nodes, 'node')}), {subject.control_plane}{subject.groups}; "
            f"{text.plural(subject.steps, 'step')}, seed {subject.seed}"
        )
    ranks = text.plural(answer.ranks, "rank") if answer.ranks else "ranks unknown"
    source = "real run" if answer.real else "simulation"
    return f"{title}: {source}, {ranks}, {text.plural(answer.steps, 'step')} from number {answer.first_step:,} on"


def _listed(title: str, sentences: Sequence[str], page: Page) -> list[str]:
    """Sentences below a title; nothing where there are none."""
    lines = [title] if sentences else []
    for sentence in sentences:
        lines += page.wrap(sentence, "  - ")
    return ["", *map(page.dim, lines)] if lines else []


def _caveats(answer: Answer) -> list[str]:
    facts = answer.facts
    caveats = tables.reasons({**answer.missing, **answer.unknown})
    absent = facts.ranks_absent or ()
    present = (answer.ranks or 0) - len(absent) - len(facts.ranks_without_steps)
    detailed = facts.ranks_with_details
    if detailed is not None and len(detailed) < present:
        caveats.append(
            f"cycles were recorded on {len(detailed):,} of {answer.ranks:,} ranks; steps and who was last on all"
        )
    if facts.ranks_without_steps:
        caveats.append(f"ranks that ended no step, so they are left out: {_some(facts.ranks_without_steps)}")
    if absent:
        caveats.append(f"ranks without a record: {_some(absent)}")
    command = facts.command
    if command is not None and command.end is not None and command.end.failure:
        caveats.append(_short(command.end.failure))
    if facts.ended_early:
        caveats.append(f"ranks whose process died while it recorded: {_some(facts.ended_early)}")
    for rank, error in list(facts.ended_with_error.items())[:2]:
        caveats.append(f"rank {rank} ended with {_short(error)}")
    if command is not None and command.exit_code:
        caveats.append(f"the command ended with exit code {command.exit_code}")
    return caveats


def _short(error: str) -> str:
    line = " ".join(error.split())
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 3] + "..."


def _some(ranks: Sequence[int]) -> str:
    more = f" and {len(ranks) - 8:,} more" if len(ranks) > 8 else ""
    return ", ".join(f"{rank:,}" for rank in ranks[:8]) + more
