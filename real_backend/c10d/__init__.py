"""``torch.distributed.init_process_group("coord")``, for unchanged scripts with DDP, FSDP2 or DTensor.

Importing this module makes the backend's name known. If the package is installed, torch imports it by itself (entry
point ``torch.backends``). All else is loaded when the first group is made.
"""

from __future__ import annotations

import logging
from typing import Any


def register() -> None:
    """Make ``coord`` known to torch. Does nothing if it is known."""
    import torch.distributed as dist

    if dist.is_available() and not hasattr(dist.Backend, "COORD"):
        dist.Backend.register_backend("coord", _make, extended_api=True, devices=["cpu", "cuda"])


def autoload() -> None:
    """Entry point that ``import torch`` calls. Importing this module has registered the backend already."""


def _make(options: Any, backend_options: Any = None) -> Any:
    from real_backend.c10d.group import make

    return make(options, backend_options)


try:
    register()
except Exception as error:  # Whatever the error is, `import torch` must not fail because of it.
    logging.getLogger(__name__).warning("the torch.distributed backend 'coord' is not available: %s", error)
