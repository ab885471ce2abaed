"""``torch.distributed.init_process_group("coord")``, for scripts with DDP, FSDP2 or DTensor that stay as they are.

Importing this makes the name known; installed, torch does that itself (entry point ``torch.backends``). All else is
loaded when the first group is made.
"""

from __future__ import annotations

import logging
from typing import Any


def register() -> None:
    """Make ``coord`` known. Harmless when it is."""
    import torch.distributed as dist

    if dist.is_available() and not hasattr(dist.Backend, "COORD"):
        dist.Backend.register_backend("coord", _make, extended_api=True, devices=["cpu", "cuda"])


def autoload() -> None:
    """What ``import torch`` calls. Importing this module has done it already."""


def _make(options: Any, backend_options: Any = None) -> Any:
    from real_backend.c10d.group import make

    return make(options, backend_options)


try:
    register()
except Exception as error:  # whatever it is, `import torch` must not fail of it
    logging.getLogger(__name__).warning("the torch.distributed backend 'coord' is not available: %s", error)
