"""A calibration as a cluster file: every key, each with a comment that says where its value comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from coordsim.analyse.calibrate.result import Calibration, Estimate
from coordsim.analyse.predict.collectives import CollectiveCosts
from coordsim.errors import InputError
from coordsim.fragments import toml_comment, toml_key, toml_value
from coordsim.record.files import whole_file
from coordsim.units import format_rate, format_time

HEADER = "# A cluster calibrated by coordsim."
_TABLES = ("machine", "control", "host", "data")
_COSTLY = {"ns": "high", "B/s": "low"}
"""Unit -> the end of a range that slows training down."""
_SPREADS = ("rank", "node", "step", "common")


def check_target(path: Path) -> None:
    """Raises InputError for a file that is no calibrated cluster, a wrong name, or a folder that is not there."""
    if path.suffix != ".toml":
        raise InputError.one("--out", "", str(path), "a cluster file's name ends in .toml")
    if not path.absolute().parent.is_dir():
        raise InputError.one("--out", "", str(path), f"no folder {path.absolute().parent}")
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(HEADER.encode())):
        raise InputError.one("--out", "", str(path), "is there already and no calibrated cluster; it is left alone")


def write_cluster(path: Path, calibration: Calibration, base: dict[str, Any]) -> None:
    """Whole or not at all; ``base`` as the catalog has it. Raises OSError."""
    with whole_file(path) as fresh:
        fresh.write_text(cluster_toml(calibration, base), encoding="utf-8")


def cluster_toml(calibration: Calibration, base: dict[str, Any]) -> str:
    """The text. ``base``: the tree of the base cluster's TOML."""
    found, choices = calibration.by_key, {each.key: each for each in calibration.choices}
    own = base.get("sources", {})
    lines = [*_head(calibration), f"description = {toml_value(_description(calibration))}"]
    lines.append(f"default_ranks = {base['default_ranks']}  {toml_comment(f'from base {calibration.base}')}")
    sources = {"default_ranks": f"from base {calibration.base}"}
    for table in _TABLES:
        lines += ["", f"[{table}]"]
        for name, value in base[table].items():
            key = f"{table}.{name}"
            if key in found:
                text, source = value_of(found[key]), provenance(calibration, found[key])
            elif key in choices:
                text, source = toml_value(choices[key].value), f"{calibration.source}: {choices[key].why}"
            else:
                text, source = toml_value(value), f"from base {calibration.base}: {own.get(key, 'no source')}"
            sources[key] = source
            lines += [toml_comment(source), f"{toml_key(name)} = {text}"]
    lines += _collectives(calibration.collectives)
    lines += ["", "[noise]", *_noise(calibration, base.get("noise", {}))]
    lines += ["", "[sources]", *(f"{toml_key(key)} = {toml_value(text)}" for key, text in sources.items())]
    return "\n".join([*lines, *_ranges(calibration, base)]) + "\n"


def _ranges(calibration: Calibration, base: dict[str, Any]) -> list[str]:
    """How far numbers may be off: measured ones by their intervals, the others as the base says."""
    stated: dict[str, dict[str, str]] = {}
    for key, estimate in calibration.by_key.items():
        table, _, name = key.partition(".")
        if table in _TABLES and name in base[table] and estimate.low < estimate.high and estimate.unit in _COSTLY:
            ends = (value_of(replace(estimate, value=end)).strip('"') for end in (estimate.low, estimate.high))
            low, high = ends
            stated[key] = {
                "name": key.replace(".", "_"), "label": estimate.name, "low": low, "high": high,
                "costly": _COSTLY[estimate.unit], "source": f"{calibration.source}: 95 % interval, {estimate.holds}",
            }  # fmt: skip
    for key, each in base.get("ranges", {}).items():
        if not key.startswith("noise.") and key not in calibration.by_key:
            stated[key] = {**each, "source": f"from base {calibration.base}: {each['source']}"}
    lines = []
    for key, entries in stated.items():
        lines += ["", f"[ranges.{toml_key(key)}]"]
        lines += [f"{toml_key(name)} = {toml_value(text)}" for name, text in entries.items()]
    return lines


def _collectives(found: CollectiveCosts | None) -> list[str]:
    """Which backend's collectives the file describes, and what they cost on shared cores."""
    if found is None:
        return []
    return [
        "", toml_comment("A torch backend's collectives where ranks share cores; coordsim predict uses them."),
        "[collectives]", *(f"{toml_key(key)} = {toml_value(text)}" for key, text in found.table().items()),
    ]  # fmt: skip


def value_of(estimate: Estimate) -> str:
    """As a scenario writes it."""
    if estimate.unit == "ns":
        least = 1 if estimate.key.endswith("latency") else 0
        return toml_value(format_time(max(round(estimate.value), least)).replace(" ", ""))
    if estimate.unit == "B/s":
        return toml_value(format_rate(max(round(estimate.value), 1)).replace(" ", ""))
    if estimate.unit == "number":
        return f"{estimate.value:.4f}"
    return toml_value(f"{min(round(estimate.value * 1e6), 1_000_000)}ppm")


def provenance(calibration: Calibration, estimate: Estimate) -> str:
    """``MEASURED 12.3 us (11.8 us to 12.9 us), ...`` on one line."""
    value, low, high = (told(each, estimate.unit) for each in (estimate.value, estimate.low, estimate.high))
    parts = [f"{calibration.source} {value} ({low} to {high})", estimate.holds]
    if estimate.error_median is not None and estimate.error_worst is not None:
        parts.append(f"fit off by {estimate.error_median:.0%} (median), {estimate.error_worst:.0%} (worst)")
    parts += [str(calibration.taken.get("date") or "date unknown"), f"host {calibration.host.get('name') or 'unknown'}"]
    if estimate.loose:
        parts.append("a range rather than a value")
    if estimate.note:
        parts.append(estimate.note)
    return ", ".join(parts)


def told(value: float, unit: str) -> str:
    """For people."""
    if unit == "ns":
        return format_time(round(value)) if value >= 10 or value == 0 else f"{value:.2g} ns"
    if unit == "B/s":
        return format_rate(round(value))
    return f"{100 * value:.3g} %" if unit == "share" else f"{value:.2g}"


def _head(calibration: Calibration) -> list[str]:
    host = calibration.host
    facts = [f"cores {host['cores']}"] if host.get("cores") else []
    told = ("cpu", "load_before", "system", "python")
    facts += [f"{key.replace('_', ' ')} {host[key]}" for key in told if key in host]
    date = calibration.taken.get("date") or "an unknown date"
    return [
        toml_comment(
            f"{HEADER.removeprefix('# ')} {calibration.source} on {date}, host {host.get('name') or 'unknown'}."
        ),
        *([toml_comment(f"{', '.join(facts)}.")] if facts else []),
        "# Intervals hold 95 % of what other repeats would give; they do not know what the model leaves out.",
        *(toml_comment(f"{note}.") for note in calibration.notes),
        *(toml_comment(f"Not fitted: {what}: {why}.") for what, why in calibration.not_fitted),
    ]


def _description(calibration: Calibration) -> str:
    date = calibration.taken.get("date") or "unknown date"
    return f"{calibration.source.lower()} on {calibration.host.get('name') or 'an unknown host'}, {date}"


def _noise(calibration: Calibration, base: dict[str, Any]) -> list[str]:
    found = calibration.by_key
    distribution = next((each.value for each in calibration.choices if each.key == "noise.step.distribution"), "normal")
    lines = []
    for name in _SPREADS:
        estimate = found.get(f"noise.{name}")
        if estimate is not None:
            law = distribution if name == "step" else "normal"
            value = f"distribution = {toml_value(law)}, sigma = {value_of(estimate)}"
            goes_on = found.get(f"noise.{name}.correlation")
            if goes_on is not None:
                value += f", correlation = {value_of(goes_on)}"
                lines.append(toml_comment(f"correlation: {provenance(calibration, goes_on)}"))
            lines += [toml_comment(provenance(calibration, estimate)), f"{name} = {{ {value} }}"]
        elif name in base:
            lines += [toml_comment(f"from base {calibration.base}"), f"{name} = {toml_value(base[name])}"]
        else:
            lines.append(toml_comment(f"{name}: from base {calibration.base}, which has none"))
    for name in ("stall_probability", "stall_length", "detour_probability", "detour_length"):
        estimate = found.get(f"noise.{name}")
        if estimate is not None:
            lines += [toml_comment(provenance(calibration, estimate)), f"{name} = {value_of(estimate)}"]
        elif name in base:
            lines += [toml_comment(f"from base {calibration.base}"), f"{name} = {toml_value(base[name])}"]
    return lines
