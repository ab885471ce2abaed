"""Torch's element types and the protocol's."""

from __future__ import annotations

import torch

from coordsim.protocol.messages import DType

TORCH: dict[DType, torch.dtype] = {
    DType.UINT8: torch.uint8, DType.INT8: torch.int8, DType.INT16: torch.int16, DType.INT32: torch.int32,
    DType.INT64: torch.int64, DType.FLOAT16: torch.float16, DType.FLOAT32: torch.float32,
    DType.FLOAT64: torch.float64, DType.BOOL: torch.bool, DType.BFLOAT16: torch.bfloat16,
}  # fmt: skip
PROTOCOL: dict[torch.dtype, DType] = {value: key for key, value in TORCH.items()}
