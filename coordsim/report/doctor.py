"""``coordsim doctor`` for people."""

from __future__ import annotations

from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page


def doctor_table(facts: dict[str, Any], page: Page) -> str:
    """Everything the examination found, one line each."""
    machine, cache, terminal = facts["machine"], facts["kernel_cache"], facts["terminal"]
    memory = "unknown" if machine["memory_bytes"] is None else text.size(machine["memory_bytes"])
    rows = [
        ("coordsim", facts["coordsim"]),
        ("python", f"{facts['python']['version']}  {facts['python']['executable']}"),
    ]
    for name, found in facts["required"].items():
        rows.append((name, f"{found['version'] or 'MISSING'}  (needs {found['needs']})"))
    for name, found in facts["optional"].items():
        missing = f"not installed; for the real backend: pip install 'coordsim[{found['extra']}]'"
        rows.append((name, f"{found['version'] or missing}"))
    kernels = f"{text.plural(cache['kernels'], 'kernel')}, {text.size(cache['nbytes'])}"
    if not cache["kernels"]:
        kernels = "empty: the first simulation compiles, once"
    access = "" if cache["writable"] else "  NOT WRITABLE: every process compiles again; set NUMBA_CACHE_DIR"
    seen = f"{terminal['columns']} columns, {'colour' if terminal['colour'] else 'no colour'}, {terminal['encoding']}"
    rows += [
        ("machine", f"{text.plural(machine['cores'], 'core')}, {memory}, {machine['system']}"),
        ("compiled code", f"{kernels}{access}"),
        ("", cache["directory"]),
        ("terminal", seen if terminal["stdout_is_terminal"] else f"none (stdout is a file or a pipe), {seen}"),
    ]
    return "\n".join(tables.facts(rows, page, indent=0, label=16))
