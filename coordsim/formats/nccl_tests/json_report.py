"""Reads the JSON that nccl-tests writes (``-J``, since 2.17): ``src/util.cu`` there."""

from __future__ import annotations

from typing import Any, NoReturn

from coordsim.formats.nccl_tests.run import CPU_TIME, EXPECTED, Device, Kind, Printed, Run, program_in
from coordsim.formats.shared.benchmark_table import LARGEST, LARGEST_SIZE, MOST_RANKS, Spread, Table
from coordsim.formats.shared.json_text import JsonText, members
from coordsim.formats.shared.sources import SourcePath

NEWEST_FILE = 3
"""The newest ``version`` of the file that was known when this was written."""
_MOST_ARGUMENTS = 1000
_VARIANTS = ("in_place", "out_of_place")


def read_json(path: SourcePath) -> list[Table]:
    """Return the tables of one run. Raises InputError, with file and key, if there is none or a row is invalid."""
    text, run = JsonText(path, EXPECTED, "row"), Run(path)
    config: dict[str, Any] = {}
    top: dict[str, Any] = {}
    arguments, rows = 0, 0
    for key, value in members(text, frozenset({"results", "args", "env"})):
        if key == "results":
            _add_result(run, f"results[{rows}]", rows, value)
            rows += 1
        elif key == "args" and arguments < _MOST_ARGUMENTS:
            arguments += 1
            run.program = run.program or program_in(str(value)[:1000])
        elif key == "config" and isinstance(value, dict):
            config = value
        elif key not in ("env", "args"):
            top[key] = value
    if not rows:
        Table(path).wrong_at("results", None, f"holds no row; {EXPECTED}")
    _add_devices(run, config, config.get("devices", top.get("devices", [])))
    _add_rest(run, top)
    if text.lost is not None:
        run.unknown["cut"] = f"the file is cut off: {text.lost}"
    return run.finish()


def _add_rest(run: Run, top: dict[str, Any]) -> None:
    """Add versions, and what the run states of all its rows."""
    version = top.get("version")
    if type(version) is int and version > NEWEST_FILE:
        run.unknown["version"] = f"the file is of version {version}; the newest known is {NEWEST_FILE}"
    nccl = top.get("nccl_version")
    run.version = f"NCCL {nccl}" if type(nccl) is int and 0 < nccl < 1_000_000 else None
    for key, name in (("out_of_bounds", "count"), ("average_bus_bandwidth", "bandwidth")):
        held = top.get(key)
        value = held.get(name) if isinstance(held, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
            continue
        if name == "count":
            run.out_of_bounds = int(value)
        else:
            run.average_bus = float(value)


def _add_devices(run: Run, config: dict[str, Any], devices: Any) -> None:
    """Add ranks, hosts and GPUs: one device is listed for each process, which may have several."""
    if not isinstance(devices, list) or not all(isinstance(device, dict) for device in devices):
        Table(run.path).wrong_at("config.devices", None, "is no list of devices")
    threads, gpus = config.get("nthreads"), config.get("ngpus")
    run.shortened, run.per_process = True, None
    if isinstance(threads, int) and isinstance(gpus, int) and 0 < threads * gpus * len(devices) <= MOST_RANKS:
        run.per_process = threads * gpus
    for place, device in enumerate(devices[:MOST_RANKS]):
        group, host, gpu = (str(device.get(key, ""))[:200] for key in ("group", "hostname", "device_info"))
        run.devices.append(Device(group, host, str(place), gpu[:80]))


def _add_result(run: Run, where: str, place: int, value: Any) -> None:
    table = Table(run.path)
    size = value.get("size") if isinstance(value, dict) else None
    if type(size) is not int or not 0 <= size < LARGEST_SIZE:
        _refuse_row(table, where)
    variants = [name for name in _VARIANTS if isinstance(value.get(name), dict)]
    if not variants:
        _refuse_row(table, where)
    taken = value[variants[0]]
    if "cpu_time" in taken:
        table.wrong_at(where, "cpu_time", CPU_TIME)

    def number(of: dict[str, Any], name: str, optional: bool = False) -> float | None:
        given = of.get(name)
        if optional and given in (None, "nan", "inf", "-nan"):
            return None
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LARGEST:
            table.wrong_at(f"{where}.{name}", str(given)[:40], f"{str(given)[:40]!r} is no {name}")
        return float(given)

    times, spread = value.get(f"{variants[0]}_per_iter"), None
    if isinstance(times, dict):
        least, median, p99, most = (
            round((number(times, f"{name}_us") or 0.0) * 1000) for name in ("min", "p50", "p99", "max")
        )
        spread = Spread(least, median, p99, most)
    checks = [number(value[name], "nwrong", optional=True) for name in variants]
    checked = [check for check in checks if check is not None]
    algorithm, bus = number(taken, "alg_bw", optional=True), number(taken, "bus_bw", optional=True)
    wrong = any(checked) if checked else None
    row = Printed(size, number(taken, "time") or 0.0, algorithm, bus, wrong, spread)
    dtype, redop, root = (str(value.get(key, ""))[:40].strip() for key in ("type", "redop", "root"))
    # sizes that begin anew in rows of one kind are another cycle (-N), which the file does not number
    if run.begun and run.tables[-1].rows[-1].nbytes > size and (dtype, redop, root) == _kind_before(run):
        run.cycle += 1
    run.add(where, place + 1, Kind(dtype, redop, root, run.cycle), row)


def _kind_before(run: Run) -> tuple[str, str, str]:
    kind = run.kinds[-1]
    return kind.dtype, kind.redop, kind.root


def _refuse_row(table: Table, where: str) -> NoReturn:
    table.wrong_at(where, None, f"is no row with a size and times; {EXPECTED}")
