"""The arguments of ``simulate``, which load as a scenario and print as a command."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordsim.scenario.model import Scenario

DEFAULT_WORKLOAD = "stemdl"
DEFAULT_CLUSTER = "summit"


@dataclass(frozen=True)
class Request:
    """Arguments of ``simulate``; None means that the user gave no value."""

    scenario: Path | None = None
    cluster: str | None = None
    workload: str | None = None
    ranks: int | None = None
    control_plane: str | None = None
    groups: str | None = None
    steps: int | None = None
    seed: int | None = None
    batch: int | None = None
    global_batch: int | None = None
    rate: float | None = None
    engine: str = "auto"
    overrides: tuple[str, ...] = ()

    def load(self) -> Scenario:
        """Load the scenario. Without a file, the defaults are STEMDL on Summit."""
        from coordsim.scenario.loading import load_scenario

        return load_scenario(
            self.scenario,
            workload=self.workload or (DEFAULT_WORKLOAD if self.scenario is None else None),
            cluster=self.cluster or (DEFAULT_CLUSTER if self.scenario is None else None),
            ranks=self.ranks,
            control_plane=self.control_plane,
            groups=self.groups,
            steps=self.steps,
            seed=self.seed,
            batch=self.batch,
            global_batch=self.global_batch,
            rate=self.rate,
            overrides=self.overrides,
        )

    def changed(
        self, *, control_plane: str | None = None, groups: str | None = None, override: str | None = None
    ) -> Request:
        """Return the same request with one change."""
        more = () if override is None else (override,)
        return replace(
            self,
            control_plane=control_plane or self.control_plane,
            groups=groups or self.groups,
            overrides=self.overrides + more,
        )

    def command(self, *more: str) -> str:
        """Return the command line of this request."""
        words = ["coordsim", "simulate"] + ([str(self.scenario)] if self.scenario is not None else [])
        for flag, value in (
            ("--cluster", self.cluster),
            ("--workload", self.workload),
            ("--ranks", self.ranks),
            ("--control-plane", self.control_plane),
            ("--groups", self.groups),
            ("--steps", self.steps),
            ("--seed", self.seed),
            ("--batch", self.batch),
            ("--global-batch", self.global_batch),
            ("--rate", self.rate),
            ("--engine", None if self.engine == "auto" else self.engine),
        ):
            words += [flag, str(value)] if value is not None else []
        for override in self.overrides:
            words += ["--set", override]
        return shlex.join([*words, *more])
