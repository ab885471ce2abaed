"""GPT-2 small (Radford et al. 2019), with the parameter names of OpenAI and Hugging Face.

148 parameters, 124,439,808 values: the word embedding is also the last layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from real_backend.zoo.parts import AttentionCore, join_heads, split_heads

LAYERS, HIDDEN, HEADS, VOCABULARY, POSITIONS = 12, 768, 12, 50_257, 1024


class Gpt2(nn.Module):
    """For batch x tokens word numbers (any dtype); the output is batch x tokens x ``vocabulary``.

    ``hidden``, ``vocabulary`` and ``layers`` make it small for runs in which only the order of gradients counts.
    """

    def __init__(
        self, *, hidden: int = HIDDEN, heads: int = HEADS, vocabulary: int = VOCABULARY, layers: int = LAYERS
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, hidden)
        self.wpe = nn.Embedding(POSITIONS, hidden)
        self.h = nn.ModuleList(_Block(hidden, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(hidden)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, words: Tensor) -> Tensor:
        words = words.long()
        features = self.wte(words) + self.wpe(torch.arange(words.shape[1], device=words.device))
        for block in self.h:
            features = block(features)
        scores: Tensor = self.lm_head(self.ln_f(features))
        return scores


class _Block(nn.Module):
    """A norm before attention and before the feed-forward network four times as wide, each with a residual."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(hidden)
        self.attn = _Attention(hidden, heads)
        self.ln_2 = nn.LayerNorm(hidden)
        self.mlp = _Mlp(hidden)

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.attn(self.ln_1(features))
        out: Tensor = features + self.mlp(self.ln_2(features))
        return out


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(hidden, 3 * hidden)
        self.core = AttentionCore(causal=True)
        self.c_proj = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        parts = (split_heads(part, self.heads) for part in self.c_attn(features).chunk(3, dim=2))
        out: Tensor = self.c_proj(join_heads(self.core(*parts)))
        return out


class _Mlp(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(hidden, 4 * hidden)
        self.c_proj = nn.Linear(4 * hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(features), approximate="tanh"))
        return out
