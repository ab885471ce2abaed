"""Scenarios built in code, small and odd on purpose."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from coordsim.scenario.model import (
    CONTROL_PLANES,
    Cluster,
    ControlNetwork,
    ControlPlane,
    DataNetwork,
    Groups,
    HostCosts,
    Machine,
    Noise,
    Scenario,
    Spread,
    Tensor,
    Workload,
)

NEGOTIATED = ("point-to-point", "coordinator", "hierarchical", "cached")

CONTROL = ControlNetwork(1500, 500, 12_500_000_000, 600, 32_000_000_000, 23_000_000_000, 0,
                         "linear", "binomial", "recursive-doubling")  # fmt: skip
HOST = HostCosts(500, 560, 1000, 2000, 4280, 10_000)
DATA = DataNetwork("nccl", "2.4.8", 20_000_000_000, 75, 40_000_000_000, 23_000_000_000,
                   350_000_000_000, 5000, 160)  # fmt: skip
MACHINE = Machine(6, 4608, 60_000_000_000_000, 5_500_000_000, 300_000, 600_000, 1100)
CLUSTER = Cluster("test", MACHINE, CONTROL, HOST, DATA)
PLANE = ControlPlane("cached", 1_000_000, 128 << 20, 1024, 4, "horovod", "async")


def tensors(backward_ns: list[int], elements: list[int] | None = None, dtype: str = "float32") -> tuple[Tensor, ...]:
    """Tensors t0, t1, ... in ready order, registered in reverse."""
    elements = elements or [1000] * len(backward_ns)
    made, clock = [], 0
    for index, (duration, count) in enumerate(zip(backward_ns, elements, strict=True)):
        clock += duration
        made.append(Tensor(f"t{index}", (count,), dtype, f"layer{index // 3}", len(elements) - 1 - index, clock, clock))
    return tuple(made)


def workload(count: int = 8, each_ns: int = 500_000, **changes: Any) -> Workload:
    base = Workload("toy", tensors([each_ns] * count), 2_000_000, 300_000, 1, 10**9, 0)
    return replace(base, **changes)


def scenario(ranks: int = 4, steps: int = 3, seed: int = 0, **changes: Any) -> Scenario:
    base = Scenario(workload(), CLUSTER, PLANE, Noise(tensor=Spread("normal", 50_000)), ranks, steps, seed)
    return replace(base, **changes)


def random_scenario(seed: int) -> Scenario:
    """Any corner: N = 1, 2, 3, powers of two and not, ties, saturation, odd groups, small caches, blocking."""
    dice = random.Random(seed)
    ranks = dice.choice([1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 23, 33, 40])
    count = dice.choice([1, 2, 3, 5, 8, 13, 20, 33])
    cycle_ns = dice.choice([0, 1, 1000, 100_000, 1_000_000, 1_000_000, 5_000_000])
    short = cycle_ns <= 1000  # so that the event engine does not turn a million idle cycles
    unit = dice.choice([1, 100, 1000] if short else [1, 1000, 1000, 50_000, 200_000])  # coarse units make ties
    backward = [dice.choice([0, 1, 1, 2, 3, 5, 20]) * unit for _ in range(count)]
    elements = [dice.choice([1, 10, 1000, 100_000, 3_000_000]) for _ in range(count)]
    made = list(tensors(backward, elements))
    if dice.random() < 0.3:
        made = [replace(t, dtype=dice.choice(["float16", "float32"])) for t in made]
    if dice.random() < 0.5:
        order = list(range(count))
        dice.shuffle(order)
        made = [replace(t, registration=order[i]) for i, t in enumerate(made)]
    names = [t.name for t in made]
    job = Workload(
        "random", tuple(made), dice.choice([1, 1000, 50_000] if short else [1, 1000, 700_000, 3_000_000]),
        dice.choice([0, 1000, 20_000 if short else 400_000]), 1, 10**9,
        0 if short else dice.choice([0, 0, 5_000_000]),
    )  # fmt: skip
    overhead = dice.choice([0, 1, 300, 500, 5000])
    control = ControlNetwork(
        dice.choice([700, 1500] if short else [1, 500, 1500, 40_000]), overhead,
        dice.choice([10**9, 12_500_000_000]), dice.choice([600] if short else [1, 600]), 32_000_000_000,
        dice.choice([10**9, 23_000_000_000]), dice.choice([0, 0, 60, 300]),
        dice.choice(["linear", "binomial", "node-leaders"]), "binomial", "recursive-doubling",
    )  # fmt: skip
    zero = dice.random() < 0.25
    host = HostCosts(0, 0, 0, 0, 0, 0) if zero else HostCosts(
        dice.choice([0, 500, 5000 if short else 100_000]), dice.choice([0, 560, 30_000]), dice.choice([0, 1000]),
        dice.choice([0, 2000, 5000 if short else 100_000]), dice.choice([0, 4280]),
        dice.choice([0, 10_000, 20_000 if short else 300_000]),
    )  # fmt: skip
    data = replace(DATA, copy_launch_ns=dice.choice([0, 5000]), allreduce=dice.choice(["ring", "nccl-tree", "nccl"]))
    machine = replace(MACHINE, ranks_per_node=dice.choice([1, 2, 4, 6]))
    groups = dice.choice([
        Groups(), Groups(), Groups("layer"), Groups("count", dice.randint(1, count)),
        Groups("explicit", 0, (tuple(dice.sample(names, dice.randint(1, count))),)),
    ])  # fmt: skip
    groups = replace(groups, strict=dice.random() < 0.4)
    plane = ControlPlane(
        dice.choice([*CONTROL_PLANES, "cached", "cached", "cached", "coordinator", "hierarchical"]),
        cycle_ns,
        dice.choice([0, 4096, 1 << 20, 128 << 20]),
        dice.choice([1, 2, max(count - 1, 1), count, 1024, 1024]), dice.choice([2, 3, 4, 16]),
        dice.choice(["horovod", "coordsim"]), dice.choice(["async", "async", "blocking"]),
        1 << 20, 1 << 12, groups,
    )  # fmt: skip

    def spread() -> Spread:
        kind = dice.choice(["normal", "half-normal", "exponential", "uniform"])
        return Spread(kind, dice.choice([0, 0, 10_000, 100_000, 600_000]))

    noise = Noise(
        spread(), spread(), spread(), spread(), dice.choice([0, 0, 50_000]),
        dice.choice([0, 20_000 if short else 2_000_000]), dice.choice([0, 0, 100_000]),
    )  # fmt: skip
    return Scenario(job, Cluster("random", machine, control, host, data), plane, noise, ranks,
                    dice.choice([1, 2, 4]), dice.randrange(2**40))  # fmt: skip


def small_cache_scenario(seed: int) -> Scenario:
    """``cached`` with fewer entries than tensors and ragged ranks: pending hits lose their bit."""
    dice = random.Random(seed)
    ranks, count = dice.choice([2, 3, 4, 6]), dice.choice([3, 4, 5, 6, 8])
    plane = replace(
        PLANE, cache_capacity=dice.randint(1, count), cycle_time_ns=dice.choice([100_000, 300_000, 700_000])
    )
    noise = Noise(
        rank=Spread("normal", dice.choice([100_000, 300_000])),
        tensor=Spread("exponential", dice.choice([200_000, 900_000])),
    )
    job = workload(tensors=tensors([dice.choice([100_000, 300_000, 500_000]) for _ in range(count)]))
    return scenario(ranks, steps=5, seed=seed, control_plane=plane, noise=noise, workload=job)


def exchange_scenario(seed: int) -> Scenario:
    """A random scenario that negotiates, with any AND, a tree that merges or not, and detours or none."""
    dice = random.Random(seed)
    base = small_cache_scenario(seed) if seed % 4 == 0 else random_scenario(seed)
    plane = replace(base.control_plane, merge=dice.random() < 0.3)
    if plane.name not in NEGOTIATED:
        plane = replace(plane, name=dice.choice(["hierarchical", "cached"]))
    short = plane.cycle_time_ns <= 1000  # so that the event engine does not turn a million idle cycles
    control = replace(
        base.cluster.control, and_reduce=dice.choice(["ring", "ring", "in-network", "recursive-doubling"]),
        in_network_ns=dice.choice([20_000] if short else [1, 700, 3000, 200_000]),
    )  # fmt: skip
    noise = replace(
        base.noise, detour_ppm=dice.choice([0, 1000, 50_000, 300_000, 1_000_000]),
        detour_ns=dice.choice([1, 500, 5000 if short else 300_000, 20_000 if short else 3_000_000]),
    )  # fmt: skip
    return replace(base, control_plane=plane, cluster=replace(base.cluster, control=control), noise=noise)


def two_clock_scenario(seed: int) -> Scenario:
    """Submissions run ahead of existence by a share or by a list, and somebody waits. Even seeds: any corner; odd ones
    are made so that the wait matters."""
    dice = random.Random(seed ^ 0x2C10C)
    described = dice.choice([random_scenario, exchange_scenario])(seed) if seed % 2 == 0 else _long_backward(dice)
    job, plane = described.workload, described.control_plane
    share, submitted_ns, made = dice.choice([0, 100, 250, 500, 900, 1000, None]), 0, []
    for each in job.tensors:
        submitted_ns = dice.randint(submitted_ns, each.ready_ns) if share is None else each.ready_ns * share // 1000
        made.append(replace(each, submit_ns=submitted_ns))
    wait = dice.choice(["host", "host", "stream"])
    if wait == "stream":
        plane = replace(plane, data_plane="async")
    return replace(
        described, workload=replace(job, tensors=tuple(made)), control_plane=replace(plane, wait_for_data=wait)
    )


def _long_backward(dice: random.Random) -> Scenario:
    """Backward takes many cycles, on ranks that are far apart."""
    count = dice.choice([3, 5, 8, 12])
    groups = dice.choice([Groups(), Groups(), Groups("layer"), Groups("count", 2), Groups("layer", strict=True)])
    plane = replace(
        PLANE, name=dice.choice([*NEGOTIATED, *NEGOTIATED, "ddp", "ideal"]), groups=groups,
        cycle_time_ns=dice.choice([50_000, 300_000, 700_000, 2_000_000]),
        fusion_threshold_bytes=dice.choice([0, 6000, 128 << 20]),
        cache_capacity=dice.choice([1024, 1024, count, dice.randint(1, count)]),
        data_plane=dice.choice(["async", "async", "blocking"]), bucket_bytes=8000, first_bucket_bytes=4000,
    )  # fmt: skip
    noise = Noise(
        rank=Spread("normal", dice.choice([0, 100_000, 300_000])),
        tensor=Spread("exponential", dice.choice([0, 200_000, 900_000])),
    )
    made = tensors(
        [dice.choice([1000, 100_000, 300_000, 900_000]) for _ in range(count)],
        [dice.choice([1000, 1000, 3_000_000]) for _ in range(count)],
    )
    job = workload(tensors=made, forward_ns=dice.choice([1000, 500_000]))
    ranks = dice.choice([2, 3, 4, 7, 12])
    return scenario(ranks, 2, dice.randrange(2**40), workload=job, control_plane=plane, noise=noise)


def shuffled_scenario(seed: int) -> Scenario:
    """Any corner that the vector engine can do with an order by rank; half of them with two clocks."""
    dice = random.Random(seed ^ 0x5EED)
    described = dice.choice([random_scenario, two_clock_scenario])(seed)
    job, plane = described.workload, described.control_plane
    if plane.name == "hierarchical":
        plane = replace(plane, name=dice.choice(["point-to-point", "coordinator", "cached"]))
    if plane.name == "cached":
        plane = replace(plane, cache_capacity=dice.choice([len(job.tensors), 1024]))
    return replace(described, workload=replace(job, order="shuffled"), control_plane=plane)


def successive_scenario(seed: int) -> Scenario:
    """Any corner, with noise that goes on from step to step and noise that all ranks have alike."""
    dice = random.Random(seed ^ 0xA12)
    described = dice.choice([random_scenario, exchange_scenario, two_clock_scenario, shuffled_scenario])(seed)
    kinds = ["normal", "half-normal", "exponential", "uniform"]
    noise = replace(
        described.noise, step=Spread(dice.choice(kinds), dice.choice([0, 10_000, 100_000, 600_000])),
        step_correlation_ppm=dice.choice([0, 1, 500_000, 900_000, 999_999]),
        common=Spread(dice.choice(kinds), dice.choice([0, 10_000, 100_000, 600_000])),
        common_correlation_ppm=dice.choice([0, 700_000, 999_999]),
    )  # fmt: skip
    return replace(described, noise=noise)
