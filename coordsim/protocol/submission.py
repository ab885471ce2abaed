"""From gradients that become ready one by one to units that are submitted as a whole (docs/horovod.md 4.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordsim.protocol.groups import GroupTable


@dataclass(frozen=True, slots=True)
class Unit:
    """Tensors to submit together, in registration order."""

    names: tuple[str, ...]
    absent: frozenset[str] = frozenset()
    """Those of ``names`` without a gradient in this step: submitted as zeros, under their own names."""


class StepUnits:
    """One rank's units of submission, step by step.

    A member never goes under another name, nor outside its unit, whether its gradient came or not; so a parameter
    that one rank does not use cannot hold up the others. Horovod's optimizer submits the members of such a group one
    by one under names of their own, which no other rank ever does: it stalls (docs/horovod.md 13.35).

    Raises ValueError when a group names a tensor that is not in ``names``.
    """

    def __init__(self, names: Iterable[str], groups: GroupTable) -> None:
        registered = tuple(names)
        self._groups = groups
        self._units = groups.units(registered)
        self._absent: dict[tuple[str, ...], set[str]] = {}
        self._known = frozenset(registered)
        self.start()

    def start(self) -> None:
        """A new step: nothing is ready."""
        self._absent = {unit: set(unit) for unit in self._units}

    def ready(self, name: str) -> Unit | None:
        """The gradient of ``name`` is there; returns its unit when it was the last one missing.

        Raises ValueError for an unknown name and for one that was ready before in this step (a second backward pass
        before :meth:`rest`).
        """
        if name not in self._known:
            raise ValueError(f"{name!r} is no parameter of this optimizer")
        unit = self._groups.members(name)
        absent = self._absent.get(unit, set())
        if name not in absent:
            raise ValueError(f"the gradient of {name!r} was ready twice in one step")
        absent.remove(name)
        if absent:
            return None
        del self._absent[unit]
        return Unit(unit)

    def rest(self) -> list[Unit]:
        """At synchronize: every unit that was not submitted, to be submitted now. Then the next step may start."""
        left = [Unit(unit, frozenset(absent)) for unit, absent in self._absent.items()]
        self.start()
        return left
