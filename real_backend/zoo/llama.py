"""Llama 3 8B (Grattafiori et al. 2024), with the parameter names of Hugging Face.

291 parameters, 8,030,261,248 values: 32 layers, width 4,096, 32 query and 8 key-value heads, vocabulary 128,256.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from real_backend.zoo.parts import AttentionCore, join_heads, split_heads

LAYERS, HIDDEN, HEADS, KEY_HEADS, WIDE, VOCABULARY = 32, 4096, 32, 8, 14_336, 128_256
ROTARY_BASE = 500_000.0


class Llama3(nn.Module):
    """For batch x tokens word numbers (any dtype); the output is batch x tokens x ``vocabulary``.

    The sizes make it small for runs in which only the order of gradients counts.
    """

    def __init__(
        self,
        *,
        hidden: int = HIDDEN,
        heads: int = HEADS,
        key_heads: int = KEY_HEADS,
        wide: int = WIDE,
        vocabulary: int = VOCABULARY,
        layers: int = LAYERS,
    ) -> None:
        super().__init__()
        self.model = _Decoder(hidden, heads, key_heads, wide, vocabulary, layers)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        scores: Tensor = self.lm_head(self.model(words.long()))
        return scores


class _Decoder(nn.Module):
    def __init__(
        self, hidden: int, heads: int, key_heads: int, wide: int, vocabulary: int, layers: int
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(_Layer(hidden, heads, key_heads, wide) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden, eps=1e-5)

    def forward(self, words: Tensor) -> Tensor:
        features = self.embed_tokens(words)
        for layer in self.layers:
            features = layer(features)
        out: Tensor = self.norm(features)
        return out


class _Layer(nn.Module):
    """A norm before attention and before the gated feed-forward network, each with a residual; no bias anywhere."""

    def __init__(self, hidden: int, heads: int, key_heads: int, wide: int) -> None:
        super().__init__()
        self.self_attn = _Attention(hidden, heads, key_heads)
        self.mlp = _Mlp(hidden, wide)
        self.input_layernorm = nn.RMSNorm(hidden, eps=1e-5)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=1e-5)

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.self_attn(self.input_layernorm(features))
        out: Tensor = features + self.mlp(self.post_attention_layernorm(features))
        return out


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.heads, self.key_heads = heads, key_heads
        shared = hidden // heads * key_heads
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, shared, bias=False)
        self.v_proj = nn.Linear(hidden, shared, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)
        self.core = AttentionCore(causal=True)

    def forward(self, features: Tensor) -> Tensor:
        query = _rotated(split_heads(self.q_proj(features), self.heads))
        key = _rotated(split_heads(self.k_proj(features), self.key_heads))
        value = split_heads(self.v_proj(features), self.key_heads)
        out: Tensor = self.o_proj(join_heads(self.core(query, key, value)))
        return out


class _Mlp(nn.Module):
    def __init__(self, hidden: int, wide: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, wide, bias=False)
        self.up_proj = nn.Linear(hidden, wide, bias=False)
        self.down_proj = nn.Linear(wide, hidden, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(features)) * self.up_proj(features))
        return out


def _rotated(features: Tensor) -> Tensor:
    """Rotary position embedding: pairs of features turned by an angle that grows with the position."""
    tokens, width = features.shape[2:]
    powers = torch.arange(0, width, 2, device=features.device) / width
    angle = torch.outer(torch.arange(tokens, device=features.device), ROTARY_BASE**-powers)
    cosine, sine = angle.cos().to(features.dtype), angle.sin().to(features.dtype)
    even, odd = features[..., ::2], features[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(3)
