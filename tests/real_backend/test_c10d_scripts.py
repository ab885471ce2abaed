"""Scripts that know nothing of this project, under torchrun; and DDP over gloo with our hook."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.real_backend.processes import run
from tests.real_backend.profile_jobs import START_RANKS
from tests.real_backend.test_c10d_training import gloo, train

LIGHT = """
import sys
import torch
ours = [name for name in sys.modules if name.startswith(("real_backend", "coordsim"))]
assert sorted(ours) == ["real_backend", "real_backend.c10d"], ours
import torch.distributed as dist

dist.init_process_group("coord")
total = torch.ones(1)
dist.all_reduce(total)
"""
TRAINS = """
from torch.nn.parallel import DistributedDataParallel

torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Linear(4, 1))
for _ in range(3):
    model(torch.randn(8, 4)).square().mean().backward()
gradients = [None] * dist.get_world_size()
dist.all_gather_object(gradients, model.module.weight.grad.tolist())
assert gradients[0] == gradients[1]
"""
SAYS = """
if dist.get_rank() == 0:
    print("ranks", int(total), dist.get_backend(), flush=True)
"""
TIDIES = "dist.destroy_process_group()"


TORCHRUN = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2"]
LIGHTER = [sys.executable, START_RANKS, "2"]
"""Its ranks are as real, and a third process that loads torch is spared."""


@pytest.mark.parametrize(
    ("launcher", "parts"), [(TORCHRUN, (LIGHT, TRAINS, SAYS, TIDIES)), (LIGHTER, (LIGHT, SAYS))],
    ids=["DDP", "just ends"],
)  # fmt: skip
def test_a_script_needs_no_import(tmp_path: Path, launcher: list[str], parts: tuple[str, ...]) -> None:
    script = tmp_path / "train.py"
    script.write_text("".join(parts), encoding="utf-8")
    told = subprocess.run(
        [*launcher, str(script)], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    hint = "\n(not known to torch: install the project again, the entry point is read from its metadata)"
    assert told.returncode == 0, told.stderr + (hint if "coord" in told.stderr else "")
    assert told.stdout.strip() == "ranks 2 coord"
    assert "Traceback" not in told.stderr


def test_importing_torch_never_fails_of_us(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import real_backend.c10d as module

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("another torch")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.delattr(dist.Backend, "COORD")
        patch.setattr(dist.Backend, "register_backend", refuse)
        importlib.reload(module).autoload()
    assert "'coord' is not available: another torch" in caplog.text
    importlib.reload(module)
    assert dist.Backend("coord") == "coord"


def hooked() -> dict[str, int]:
    """Gradients as plain DDP's, through an engine that the group knows nothing of."""
    import real_backend as rb
    from real_backend.c10d.comm_hook import HookState, coord_hook

    def wrap(state: HookState | None, hook: Any) -> Any:
        def wrapped(model: nn.Module) -> nn.Module:
            ddp = DistributedDataParallel(model, bucket_cap_mb=0.005, broadcast_buffers=False)
            if hook is not None:
                ddp.register_comm_hook(state, hook)
            return ddp

        return wrapped

    with gloo():
        expected = train(wrap(None, None))
        engine = rb.init()
        counts: list[int] = []
        found = train(wrap(None, coord_hook), after=lambda step: counts.append(engine.counters.slow_cycles))
        again = train(wrap(HookState("second", engine), coord_hook))
        for one, other, third in zip(found, expected, again, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, third)
        snapshot = engine.counters.snapshot()
        rb.shutdown()
    assert counts[-1] == counts[-2]
    return snapshot


def test_comm_hook() -> None:
    for counters in run(2, hooked):
        assert counters["hits"] > 0


def lost_in_hook() -> str:
    import real_backend as rb
    from real_backend.c10d.comm_hook import coord_hook

    with gloo():
        rb.init()
        model = DistributedDataParallel(nn.Linear(4, 4))
        model.register_comm_hook(None, coord_hook)
        if dist.get_rank() == 1:
            rb.shutdown()
            return "left"
        with pytest.raises(RuntimeError, match="shut down"):
            model(torch.ones(1, 4)).sum().backward()
        return "told"


def test_an_error_in_the_hook_ends_the_backward_pass() -> None:
    assert run(2, lost_in_hook) == ["told", "left"]
