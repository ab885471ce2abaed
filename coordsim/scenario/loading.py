"""From files, names and flags to a :class:`~coordsim.scenario.model.Scenario`.

Layers, later ones winning key by key: built-in defaults, catalog entries, the TOML file, named arguments,
``--set key=value``. A file's ``include = ["other.toml", ...]`` puts those files, in order, just below it. A
workload or cluster *named* by a layer replaces the whole table of a file below if that table describes another
one; settings that the file adds to the same one, or to none by name, stay.
Every mistake is collected and reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from coordsim.errors import InputError, Problem
from coordsim.scenario import catalog, defaults
from coordsim.scenario.files import TooDeep, is_list, parse_toml, read_text, unreadable
from coordsim.scenario.layers import Layer, Origin, Overlay, Tree, parse_overrides
from coordsim.scenario.model import Scenario

_DEFAULTS = Origin("built-in defaults", ours=True)
_SECTIONS: tuple[catalog.Kind, ...] = ("workload", "cluster")
_MOST_FILES = 64
"""Files that one scenario may be made of."""
_MOST_PROBLEMS = 100
_SELF_CONTAINED = {
    "workload": ({"tensors"}, {"generator"}),
    "cluster": ({"machine", "control", "host", "data"},),
}
"""Keys that make a table a description of its own, rather than changes to a named one."""


class Changes(TypedDict, total=False):
    """What the named arguments of :func:`load_scenario` set; None leaves it as it is."""

    workload: str | None
    """Name of a catalog entry, or of a ``.toml`` file like one, or of a ``.csv`` file of tensors."""
    cluster: str | None
    """Name of a catalog entry, or of a ``.toml`` file like one."""
    ranks: int | None
    control_plane: str | None
    groups: str | int | Sequence[Sequence[str]] | None
    """``"none"``, ``"layer"``, a count, or lists of tensor names."""
    steps: int | None
    seed: int | None
    batch: int | None
    """Samples per rank and step."""
    global_batch: int | None
    """Samples of all ranks and a step."""
    rate: float | None
    """Samples a second of one GPU at that batch."""


_CHANGED = {
    "workload": ("workload", "base"), "cluster": ("cluster", "base"), "ranks": ("ranks",),
    "control_plane": ("control_plane", "name"), "groups": ("control_plane", "groups"), "steps": ("steps",),
    "seed": ("seed",), "batch": ("workload", "batch"), "global_batch": ("workload", "global_batch"),
    "rate": ("workload", "rate"),
}  # fmt: skip
"""The key that each of them sets."""


def load_scenario(
    path: Path | str | None = None, *, overrides: Sequence[str] = (), **changes: Unpack[Changes]
) -> Scenario:
    """The scenario in the TOML file ``path``, changed by the named arguments and ``overrides``.

    ``changes`` are ``workload``, ``cluster``, ``ranks``, ``control_plane``, ``groups``, ``steps``, ``seed``, ``batch``,
    ``global_batch`` and ``rate`` (:class:`Changes`). ``overrides`` are ``key=value`` texts with dotted keys, such as
    ``"cluster.host.per_request=0.3us"``. Raises :class:`~coordsim.errors.InputError` with every mistake.
    """
    from coordsim.scenario.resolving import resolve

    files, problems = _read_files(Path(path)) if path is not None else ([], [])
    incomplete = bool(problems)
    set_here, wrong = parse_overrides(overrides)
    problems += wrong
    layers = [_normal(layer) for layer in (*_layers_of(changes), *set_here)]
    fallback = files[-1].origin if files else Origin(str(path) if path is not None else "scenario")
    for file in reversed(files):
        layers = [_without_replaced(_normal(file), layers), *layers]
    overlay, unknown, wrong = _stack(layers, fallback)
    scenario, more = resolve(overlay, unknown)
    problems += _unless_missing(wrong + more) if incomplete else wrong + more
    if problems or scenario is None:
        raise InputError(_first(problems))
    return scenario


def _layers_of(changes: Changes) -> list[Layer]:
    """One layer for each named argument, called as the command line's flag."""
    layers = []
    for name, key in _CHANGED.items():
        value: Any = changes.get(name)
        if value is not None:
            tree = {key[0]: value if len(key) == 1 else {key[1]: value}}
            layers.append(Layer(tree, Origin(f"--{name.replace('_', '-')}")))
    for name in changes:
        if name not in _CHANGED:
            raise TypeError(f"load_scenario() got an unexpected keyword argument {name!r}")
    return layers


def _stack(layers: Sequence[Layer], fallback: Origin) -> tuple[Overlay, frozenset[str], list[Problem]]:
    """All layers over the catalog and the defaults; the sections whose base is unknown; mistakes."""
    user = Overlay(fallback)
    for layer in layers:
        user.apply(layer)
    overlay = Overlay(fallback)
    plane = user.get("control_plane", "name")
    overlay.apply(
        Layer(
            {
                "steps": defaults.STEPS,
                "seed": defaults.SEED,
                "control_plane": defaults.control_plane(plane if isinstance(plane, str) else ""),
                "noise": defaults.noise(),
            },
            _DEFAULTS,
        )
    )
    unknown: set[str] = set()
    problems: list[Problem] = []
    for section in _SECTIONS:
        bases, wrong = _base(section, user)
        for base in bases:
            overlay.apply(base)
        if wrong:
            unknown.add(section)
            problems += wrong
    for layer in layers:
        overlay.apply(layer)
    default_ranks = overlay.get("cluster", "default_ranks")
    if "ranks" not in overlay.values and default_ranks is not None:
        overlay.apply(Layer({"ranks": default_ranks}, overlay.origin(("cluster", "default_ranks"))))
    return overlay, frozenset(unknown), problems


def _base(section: catalog.Kind, user: Overlay) -> tuple[list[Layer], list[Problem]]:
    """The catalog entry or file that the section builds on."""
    key = (section, "base")
    name, known = user.get(*key), catalog.names(section)
    if name is None:
        if section in user.values:
            return [], []
        message = f"is missing: name one with --{section}, or describe one in a file"
        return [], [user.problem((section,), message, known, value="")]
    folder = user.origin(key).folder
    path = (folder if isinstance(folder, Path) else Path()) / str(name)
    if isinstance(name, str) and name.endswith(".toml"):
        files, problems = _read_files(path)
        return [_as_base(section, path.stem, file.tree, file.origin) for file in files], problems
    if section == "workload" and is_list(name):
        tree = {"tensors": path.name}
        return [_as_base(section, path.stem, tree, Origin(str(path), path.parent))], []
    if not isinstance(name, str) or name not in known:
        kinds = "a .toml or .csv file" if section == "workload" else "a .toml file"
        text = f"{name!r} is not a {section} of the catalog, nor {kinds}"
        return [], [user.problem(key if section in user.values else (section,), text, known)]
    origin = Origin(f"catalog {section} {name}", catalog.folder(section), ours=True)
    return [_as_base(section, name, catalog.read(section, name), origin)], []


def _as_base(section: catalog.Kind, name: str, tree: Tree, origin: Origin) -> Layer:
    noise = {"noise": tree["noise"]} if section == "cluster" and "noise" in tree else {}
    own = {key: value for key, value in tree.items() if key not in noise}
    return _normal(Layer({section: {"name": name} | own, **noise}, origin))


def _read_files(path: Path) -> tuple[list[Layer], list[Problem]]:
    """The files that ``path`` includes, in order, and then itself; mistakes name who includes whom."""
    read = 0

    def one(path: Path, chain: tuple[Path, ...]) -> tuple[list[Layer], list[Problem]]:
        nonlocal read
        read += 1
        label, places = str(path), (*chain, path)
        by = f" ({' includes '.join(map(str, places))})" if chain else ""
        if read > _MOST_FILES:
            return [], [Problem(str(chain[-1]), "include", label, f"leads to more than {_MOST_FILES} files{by}")]
        try:
            if path.resolve() in (outer.resolve() for outer in chain):
                return [], [Problem(str(chain[-1]), "include", label, f"goes in a circle{by}")]
            text = read_text(path)
        except (OSError, ValueError) as error:
            problem = unreadable(path, label, error)
            return [], [replace(problem, message=problem.message + by)]
        try:
            tree = parse_toml(text)
        except ValueError as error:
            reason = str(error) if isinstance(error, TooDeep) else f"is not TOML: {error}"
            return [], [Problem(label, "", label, f"{reason}{by}")]
        included = tree.pop("include", [])
        if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
            message = f'{included!r} is not a list of files, such as ["base.toml"]'
            return [], [Problem(label, "include", included, message)]
        layers: list[Layer] = []
        for name in included:
            below, problems = one(path.parent / name, places)
            if problems:  # the first is enough: what is below a broken include means little
                return [], problems
            layers += below
        return [*layers, Layer(tree, Origin(label, path.parent))], []

    return one(path, ())


def _normal(layer: Layer) -> Layer:
    """``workload = "stemdl"`` as ``[workload] base = "stemdl"``, and the like; ``parameters`` hoisted."""
    tree = dict(layer.tree)
    for section, key in (("workload", "base"), ("cluster", "base"), ("control_plane", "name")):
        if isinstance(tree.get(section), str):
            tree[section] = {key: tree[section]}
    workload = tree.get("workload")
    if isinstance(workload, dict) and isinstance(workload.get("parameters"), dict):
        rest = {key: value for key, value in workload.items() if key != "parameters"}
        tree["workload"] = workload["parameters"] | rest
    return Layer(tree, layer.origin)


def _without_replaced(file: Layer, above: Sequence[Layer]) -> Layer:
    """``file`` without the tables in whose place a later layer names another workload or cluster."""
    tree = dict(file.tree)
    for section in _SECTIONS:
        table = tree.get(section)
        names = [
            t["base"] for layer in above if isinstance(t := layer.tree.get(section), dict) and "base" in t
        ]
        if not names or not isinstance(table, dict):
            continue
        own = any(keys <= table.keys() for keys in _SELF_CONTAINED[section])
        if own or table.get("base", names[-1]) != names[-1]:
            del tree[section]
    return Layer(tree, file.origin)


def _first(problems: list[Problem]) -> list[Problem]:
    """The mistakes, or the first of them where they are too many to read."""
    if len(problems) <= _MOST_PROBLEMS:
        return problems
    more = Problem(problems[_MOST_PROBLEMS].where, "", None, f"and {len(problems) - _MOST_PROBLEMS:,} more mistakes")
    return [*problems[:_MOST_PROBLEMS], more]


def _unless_missing(problems: list[Problem]) -> list[Problem]:
    """Mistakes that an unreadable file does not explain."""
    return [problem for problem in problems if not problem.message.startswith("is missing")]


Scenario.load = load_scenario
