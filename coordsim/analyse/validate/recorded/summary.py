"""A validation as one JSON object, schema ``coordsim.validation/1`` (docs/validation.md 4)."""

from __future__ import annotations

from typing import Any

from coordsim.analyse.validate.recorded.fit import METRIC_NAMES, Fit
from coordsim.analyse.validate.recorded.judge import TOLERANCE, Quantiles, Row, Validation

SCHEMA = "coordsim.validation/1"


def facts(found: Validation) -> dict[str, Any]:
    """Rows, medians of their errors, and the fits they rest on."""
    return {
        "schema": SCHEMA,
        "rows": [_row_facts(row) for row in found.rows],
        "median_abs_relative_error": {
            "fitted": found.median_error(True), "predicted": found.median_error(False),
        },
        "median_abs_relative_error_by_metric": {
            metric: {"fitted": found.median_error(True, metric), "predicted": found.median_error(False, metric)}
            for metric in METRIC_NAMES
        },
        "tolerance": TOLERANCE,
        "missed": found.missed,
        "fit": [_fit_facts(each) for each in found.fits],
        "folder": str(found.runs.folder),
        "fitted_on": list(found.globs),
    }  # fmt: skip


def _row_facts(row: Row) -> dict[str, Any]:
    predicted = row.predicted
    return {
        "case": row.case.name,
        "workload": row.case.workload,
        "metric": row.metric,
        "measured": row.measured.median,
        "predicted": None if predicted is None else predicted.median,
        "relative_error": row.relative_error,
        "ks": row.ks,
        "fitted": row.case.fitted,
        "controller": row.case.controller,
        "ranks": row.case.ranks,
        "launches": len(row.case.launches),
        "judged_by": row.judged_by,
        "measured_quantiles": _quantile_facts(row.measured),
        "predicted_quantiles": None if predicted is None else _quantile_facts(predicted),
        "reason": row.reason or None,
    }


def _quantile_facts(found: Quantiles) -> dict[str, float]:
    return {
        "p10": found.p10, "median": found.median, "p90": found.p90, "median_p05": found.low, "median_p95": found.high
    }  # fmt: skip


def _fit_facts(each: Fit) -> dict[str, Any]:
    return {
        "controller": each.controller,
        "files": list(each.files),
        "parameters": [
            {
                "name": found.parameter.name, "unit": found.parameter.unit, "value": found.value, "low": found.low,
                "high": found.high, "pinned": found.pinned, "expected": found.parameter.expected,
                "meaning": found.parameter.meaning, "expected_from": found.parameter.source,
            }
            for found in each.ranges
        ],
        "moved_together": [list(pair) for pair in each.ridges],
        "main_threads_crowd_one_core": each.crowded,
        "notice_ns": each.measured.notice_ns,
        "poll_ns": each.measured.poll_ns,
        "loss": each.loss,
        "parameter_sets_tried": each.tried,
    }  # fmt: skip
