"""Names of parameters on the wire, and groups of parameters that are reduced together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch.nn import Parameter

from coordsim.protocol.groups import GroupTable, by_layer, equal_parts

Groups = int | str | Sequence[Sequence[Parameter]] | Sequence[Sequence[str]] | None
"""None; a number of parts of equal count; ``"layer"``; or lists of parameters or of their names."""


def named(
    optimizer: torch.optim.Optimizer, named_parameters: Iterable[tuple[str, Parameter]] | None
) -> dict[str, Parameter]:
    """Return name -> parameter of the optimizer, in the order of ``named_parameters``.

    Without names they are ``noname.<param group>.<position>``. Raises ValueError for items that are no (name,
    parameter) pairs, for a repeated name or parameter, and for parameters of the optimizer that have no name.
    """
    wanted = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if named_parameters is None:
        return {
            f"noname.{number}.{position}": parameter
            for number, group in enumerate(optimizer.param_groups)
            for position, parameter in enumerate(group["params"])
        }
    pairs = list(named_parameters)
    if any(not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str) for pair in pairs):
        raise ValueError("named_parameters: (name, parameter) pairs, such as model.named_parameters()")
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"named_parameters: names must be unique, these are not: {', '.join(sorted(twice)[:6])}")
    mine = {id(parameter) for parameter in wanted}
    by_name = {name: parameter for name, parameter in pairs if id(parameter) in mine}
    missing = len(mine - {id(parameter) for parameter in by_name.values()})
    if missing:
        raise ValueError(f"named_parameters: {missing} of the optimizer's {len(mine)} parameters have no name")
    return by_name


def group_table(groups: Groups, names: dict[str, Parameter], strict: bool) -> GroupTable:
    """Return which of ``names`` are submitted together. Raises ValueError for invalid groups."""
    if groups is None:
        return GroupTable(strict=strict)
    if isinstance(groups, bool) or (isinstance(groups, int) and groups < 1):
        raise ValueError(f"groups={groups!r}: at least 1")
    if isinstance(groups, int):
        return GroupTable(tuple(equal_parts(list(names), min(groups, len(names)))), strict)
    if isinstance(groups, str):
        if groups != "layer":
            raise ValueError(f"groups={groups!r}: a number, 'layer', or lists of parameters")
        return GroupTable(tuple(by_layer({name: name.rpartition(".")[0] or name for name in names})), strict)
    name_of = {id(parameter): name for name, parameter in names.items()}
    explicit = [
        tuple(str(member) if isinstance(member, str) else _named(member, name_of) for member in members)
        for members in groups
    ]
    unknown = {name for members in explicit for name in members} - names.keys()
    if unknown:
        raise ValueError(f"groups: no parameters of this optimizer: {', '.join(sorted(unknown)[:6])}")
    return GroupTable(tuple(members for members in explicit if members), strict)


def _named(parameter: Parameter, name_of: dict[int, str]) -> str:
    name = name_of.get(id(parameter))
    if name is None:
        raise ValueError("groups: a parameter that this optimizer does not have")
    return name
