"""A small scenario on disk: four tensors on two Summit nodes."""

from __future__ import annotations

from pathlib import Path

CSV = """name,shape,dtype,layer,registration,ready
fc.bias,10,float32,fc,3,1000000
fc.weight,10x64,float32,fc,2,2000000
conv.bias,64,float32,conv,1,3500000
conv.weight,64x3x7x7,float32,conv,0,5000000
"""

TOML = """ranks = 12
{run}
cluster = "summit"

[workload]
name = "small"
tensors = "small.csv"
forward = "3ms"
optimizer = "0.5ms"
batch = 32

[control_plane]
name = "cached"
"""


def write_small(folder: Path, run: str) -> Path:
    """``small.toml`` with its ``small.csv`` in ``folder``; ``run``: lines that say how many steps."""
    (folder / "small.csv").write_text(CSV)
    path = folder / "small.toml"
    path.write_text(TOML.format(run=run))
    return path
