"""Parts of transformers whose work the recorder must see."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class AttentionCore(nn.Module):
    """softmax(q k^T / sqrt(d)) v over batch x heads x tokens x d; groups of query heads share a key head.

    A module of its own, so that its work can be counted: it owns no parameter.
    """

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shared = query.shape[1] // key.shape[1]
        if shared > 1:
            key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)

    @staticmethod
    def forward_flops(query: Tensor, key: Tensor) -> int:
        """Two matrix products, 2 FLOPs a multiply-add; counted in full under a causal mask too, as is usual."""
        return 4 * query.numel() * key.shape[2]


class BareBias(nn.Module):
    """A module whose own parameter is a bias, added to what it returns."""


def split_heads(features: Tensor, heads: int) -> Tensor:
    """batch x tokens x (heads d) as batch x heads x tokens x d."""
    batch, tokens, width = features.shape
    return features.view(batch, tokens, heads, width // heads).transpose(1, 2)


def join_heads(features: Tensor) -> Tensor:
    """batch x heads x tokens x d as batch x tokens x (heads d)."""
    return features.transpose(1, 2).flatten(2)
