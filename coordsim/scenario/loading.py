"""From files, names and flags to a :class:`~coordsim.scenario.model.Scenario`.

Layers, later ones winning key by key: built-in defaults, catalog entries, the TOML file, named arguments,
``--set key=value``. A workload or cluster *named* by an argument or ``--set`` replaces the file's whole
table if that table describes another one; settings that the file adds to the same one, or to none by name,
stay.
Every mistake is collected and reported at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordsim.errors import InputError, Problem
from coordsim.scenario import catalog, defaults
from coordsim.scenario.layers import Layer, Origin, Overlay, Tree, parse_overrides

if TYPE_CHECKING:
    from coordsim.scenario.model import Scenario

_DEFAULTS = Origin("built-in defaults", ours=True)
_SECTIONS: tuple[catalog.Kind, ...] = ("workload", "cluster")
_SELF_CONTAINED = {
    "workload": ({"tensors"}, {"generator"}),
    "cluster": ({"machine", "control", "host", "data"},),
}
"""Keys that make a table a description of its own, rather than changes to a named one."""


def load_scenario(
    path: Path | str | None = None,
    *,
    workload: str | None = None,
    cluster: str | None = None,
    ranks: int | None = None,
    control_plane: str | None = None,
    groups: str | int | Sequence[Sequence[str]] | None = None,
    steps: int | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
) -> Scenario:
    """The scenario in the TOML file ``path``, changed by the named arguments and ``overrides``.

    ``workload`` and ``cluster`` are names of catalog entries or of ``.toml`` files like them. ``groups`` is
    ``"none"``, ``"layer"``, a count, or lists of tensor names. ``overrides`` are ``key=value`` texts with
    dotted keys, such as ``"cluster.host.per_request=0.3us"``. Raises
    :class:`~coordsim.errors.InputError` with every mistake.
    """
    from coordsim.scenario.resolving import resolve

    file, problems = _read_file(Path(path)) if path is not None else (None, [])
    named = {
        "--workload": ("workload", "base", workload),
        "--cluster": ("cluster", "base", cluster),
        "--ranks": ("ranks", None, ranks),
        "--control-plane": ("control_plane", "name", control_plane),
        "--groups": ("control_plane", "groups", groups),
        "--steps": ("steps", None, steps),
        "--seed": ("seed", None, seed),
    }
    flags = [
        Layer({key: value if inner is None else {inner: value}}, Origin(flag))
        for flag, (key, inner, value) in named.items()
        if value is not None
    ]
    changes, found = parse_overrides(overrides)
    problems += found
    above = [_normal(layer) for layer in (*flags, *changes)]
    fallback = file.origin if file is not None else Origin(str(path) if path is not None else "scenario")
    layers = ([_without_replaced(_normal(file), above)] if file is not None else []) + above
    overlay, unknown, found = _stack(layers, fallback)
    scenario, more = resolve(overlay, unknown)
    unreadable = path is not None and file is None
    problems += _unless_missing(found + more) if unreadable else found + more
    if problems or scenario is None:
        raise InputError(problems)
    return scenario


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
        base, wrong = _base(section, user)
        if base is not None:
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


def _base(section: catalog.Kind, user: Overlay) -> tuple[Layer | None, list[Problem]]:
    """The catalog entry or file that the section builds on."""
    key = (section, "base")
    name, known = user.get(*key), catalog.names(section)
    if name is None:
        if section in user.values:
            return None, []
        message = f"is missing: name one with --{section}, or describe one in a file"
        return None, [user.problem((section,), message, known, value="")]
    if isinstance(name, str) and name.endswith(".toml"):
        folder = user.origin(key).folder
        path = (folder if isinstance(folder, Path) else Path()) / name
        file, problems = _read_file(path)
        if file is None:
            return None, problems
        return _as_base(section, path.stem, file.tree, file.origin), []
    if not isinstance(name, str) or name not in known:
        text = f"{name!r} is not a {section} of the catalog, nor a .toml file"
        return None, [user.problem(key if section in user.values else (section,), text, known)]
    origin = Origin(f"catalog {section} {name}", catalog.folder(section), ours=True)
    return _as_base(section, name, catalog.read(section, name), origin), []


def _as_base(section: catalog.Kind, name: str, tree: Tree, origin: Origin) -> Layer:
    noise = {"noise": tree["noise"]} if section == "cluster" and "noise" in tree else {}
    own = {key: value for key, value in tree.items() if key not in noise}
    return _normal(Layer({section: {"name": name} | own, **noise}, origin))


def _read_file(path: Path) -> tuple[Layer | None, list[Problem]]:
    label = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        tree: dict[str, Any] = tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        return None, [Problem(label, "", label, f"cannot be read: {error.strerror}")]
    except UnicodeDecodeError:
        return None, [Problem(label, "", label, "cannot be read: is not UTF-8 text")]
    except (ValueError, RecursionError) as error:
        return None, [Problem(label, "", label, f"is not TOML: {error}")]
    return Layer(tree, Origin(label, path.parent)), []


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


def _unless_missing(problems: list[Problem]) -> list[Problem]:
    """Mistakes that an unreadable file does not explain."""
    return [problem for problem in problems if not problem.message.startswith("is missing")]
