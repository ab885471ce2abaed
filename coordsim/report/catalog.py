"""The catalog for people and for scripts: what there is, and where every number comes from."""

from __future__ import annotations

from typing import Any

from coordsim.report import text
from coordsim.report.tables import Page
from coordsim.scenario import catalog
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Scenario
from coordsim.scenario.resolved import resolved

SCHEMA = "coordsim.catalog/1"
ENTRY_SCHEMA = "coordsim.catalog_entry/1"
TIMED_ON = "summit"
"""Cluster for which a workload's times are shown where no cluster has the GPU that they are stated for."""
_ANY_WORKLOAD = "resnet50"
_SUFFIXES = ("_ns", "_ps", "_bytes", "_Bps", "_mW", "_permille", "_percent", "_ppm")
_NOT_VALUES = ("name", "sources", "tensors", "timing")
_KEY_WIDTH, _VALUE_WIDTH = 19, 18


def catalog_facts() -> dict[str, Any]:
    """Names, descriptions and sizes (schema ``coordsim.catalog/1``)."""
    clusters, workloads = [], []
    for entry in catalog.list_entries():
        scenario = _scenario(entry.kind, entry.name)
        named = {"name": entry.name, "description": entry.description}
        if entry.kind == "cluster":
            machine = scenario.cluster.machine
            clusters.append(
                named
                | {
                    "nodes": machine.max_nodes,
                    "ranks_per_node": machine.ranks_per_node,
                    "default_ranks": scenario.ranks,
                }
            )
        else:
            workload = scenario.workload
            workloads.append(
                named
                | {
                    "tensors": len(workload.tensors),
                    "gradient_bytes": workload.gradient_bytes,
                    "batch": workload.batch,
                    "flops_per_sample": workload.flops_per_sample,
                }
            )
    return {"schema": SCHEMA, "clusters": clusters, "workloads": workloads}


def catalog_table(facts: dict[str, Any], page: Page) -> str:
    """Both lists, a line of sizes and a description for each entry."""
    lines = [page.bold("clusters")]
    for each in facts["clusters"]:
        sizes = (
            f"{text.plural(each['nodes'], 'node')} x {each['ranks_per_node']:,} ranks; "
            f"{each['default_ranks']:,} ranks unless told otherwise"
        )
        lines += _entry(each, sizes, page)
    lines += ["", page.bold("workloads")]
    for each in facts["workloads"]:
        sizes = (
            f"{each['tensors']} tensors, {text.size(each['gradient_bytes'])}; "
            f"batch {each['batch']}, {text.si(each['flops_per_sample'], 'FLOP')} a sample"
        )
        lines += _entry(each, sizes, page)
    return "\n".join(lines)


def _entry(entry: dict[str, Any], sizes: str, page: Page) -> list[str]:
    return [*page.wrap(sizes, f"  {entry['name']:<14}"), *page.wrap(entry["description"], " " * 16)]


def entry_facts(name: str) -> dict[str, Any]:
    """One entry, resolved (schema ``coordsim.catalog_entry/1``). Raises InputError for an unknown name.

    ``values`` lists ``{"key", "field", "value", "text", "source"}``: ``key`` as a scenario file has it,
    ``field`` with the unit of ``value``, ``text`` what the catalog's file says (null: computed).
    """
    catalog.show(name)  # refuses an unknown name
    kind: catalog.Kind = "cluster" if name in catalog.names("cluster") else "workload"
    raw = catalog.read(kind, name)
    scenario = _scenario(kind, name)
    data = resolved(scenario)
    tree = {key: value for key, value in data[kind].items() if key not in _NOT_VALUES}
    sources = dict(getattr(scenario, kind).sources)
    if kind == "cluster":
        tree["default_ranks"] = scenario.ranks
        if "noise" in raw:
            tree["noise"] = {axis: data["noise"][axis] for axis in raw["noise"] if axis in data["noise"]}
    else:
        tree["rates"] = {gpu: _plain_rate(rate) for gpu, rate in raw.get("rates", {}).items()}
    tree["parameters"] = {key: each for key, each in tree.get("parameters", {}).items() if key not in tree}
    values = []
    for field, value in _leaves(tree):
        key = _key(field, sources)
        written = _written(raw, key)
        if written is None and isinstance(value, str) and _source(key, sources) is None:
            continue  # a word that nobody wrote: the default
        values.append(
            {
                "key": key,
                "field": field,
                "value": value,
                "text": None if written is None else str(written),
                "source": _source(key, sources),
            }
        )
    entry = {"schema": ENTRY_SCHEMA, "kind": kind, "name": name, "description": raw.get("description", "")}
    if kind == "cluster":
        return entry | {"values": values}
    tensors = {
        "count": len(scenario.workload.tensors),
        "gradient_bytes": scenario.workload.gradient_bytes,
        "backward_ns": scenario.workload.backward_ns,
        "source": sources.get("tensors"),
        **data["workload"]["tensors"],
    }
    return entry | {"timed_on": scenario.cluster.name, "values": values, "tensors": tensors}


def _plain_rate(rate: Any) -> Any:
    """Samples a second, or samples a second by batch, as JSON has them."""
    if isinstance(rate, dict):
        return {str(batch): float(each) for batch, each in rate.items()}
    return float(rate)


def entry_table(facts: dict[str, Any], page: Page) -> str:
    """Key, value and source, wrapped."""
    lines = [page.bold(f"{facts['kind']} {facts['name']}"), *page.wrap(facts["description"])]
    if facts["kind"] == "workload":
        lines += page.wrap(f"times: as on {facts['timed_on']}")
    section = None
    for each in facts["values"]:
        head, _, tail = each["key"].rpartition(".")
        if head != section:
            lines += ["", page.bold(head)] if head else [""]
            section = head
        lines += _sourced(tail, _shown(each), each["source"], page)
    if facts["kind"] == "workload":
        found = facts["tensors"]
        count = f"{found['count']}, {text.size(found['gradient_bytes'])}"
        lines += ["", page.bold("gradients"), *_sourced("tensors", count, found["source"], page)]
        lines += _sourced("backward", text.seconds(found["backward_ns"] / 1e9), "the last tensor's time", page)
    return "\n".join(lines)


def _sourced(key: str, value: str, source: str | None, page: Page) -> list[str]:
    opening = f"  {key:<{_KEY_WIDTH}} {value:<{_VALUE_WIDTH}} "
    return page.wrap(source or "no source", opening, " " * (_KEY_WIDTH + _VALUE_WIDTH + 4))


def _shown(each: dict[str, Any]) -> str:
    """The catalog's own text where it is short, else the resolved value."""
    if each["text"] is not None and len(each["text"]) <= _VALUE_WIDTH:
        return str(each["text"])
    field, value = str(each["field"]), each["value"]
    if field.endswith("_ns"):
        return text.seconds(value / 1e9)
    if field.endswith("_bytes"):
        return text.size(value)
    if field.endswith("_ppm"):
        return text.percent(value / 1e6)
    if field.endswith("flops_per_sample"):
        return text.si(value, "FLOP")
    return str(value)


def _scenario(kind: catalog.Kind, name: str) -> Scenario:
    if kind == "cluster":
        return load_scenario(cluster=name, workload=_ANY_WORKLOAD)
    return load_scenario(cluster=_own_cluster(name), workload=name, ranks=1)


def _own_cluster(workload: str) -> str:
    """A cluster of the GPUs that the workload's times are stated for."""
    gpu = catalog.read("workload", workload).get("gpu")
    same = [name for name in catalog.names("cluster") if catalog.read("cluster", name)["machine"]["gpu"] == gpu]
    return TIMED_ON if not same or TIMED_ON in same else same[0]


def _leaves(tree: dict[str, Any], at: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value), scalars before tables."""
    found = [(at + key, value) for key, value in tree.items() if not isinstance(value, dict)]
    for key, value in tree.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{at}{key}.")
    return found


def _key(field: str, sources: dict[str, str]) -> str:
    """The key of a scenario file for a field whose name carries a unit."""
    suffix = next((each for each in _SUFFIXES if field.endswith(each)), "")
    stripped = field.removesuffix(suffix) if suffix else field
    return field if field in sources else stripped


def _source(key: str, sources: dict[str, str]) -> str | None:
    """The source of ``key``, of the table that it lies in, or of the parameter it names."""
    while key:
        if key in sources:
            return sources[key]
        if key.startswith("parameters."):
            return sources.get(key.removeprefix("parameters."))
        key = key.rpartition(".")[0]
    return None


def _written(raw: dict[str, Any], key: str) -> Any:
    value: Any = raw
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
