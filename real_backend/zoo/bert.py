"""BERT-large (Devlin et al. 2018) with its two pre-training heads, with the parameter names of Hugging Face.

398 parameters, 336,226,108 values: the word embedding is also the last layer of the masked-word head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from real_backend.zoo.parts import AttentionCore, BareBias, join_heads, split_heads

LAYERS, HIDDEN, HEADS, VOCABULARY, POSITIONS = 24, 1024, 16, 30_522, 512


class BertLarge(nn.Module):
    """For batch x tokens word numbers (any dtype); the output is a row of word scores, then 2 of the next sentence.

    ``hidden``, ``vocabulary`` and ``layers`` make it small for runs in which only the order of gradients counts.
    """

    def __init__(
        self, *, hidden: int = HIDDEN, heads: int = HEADS, vocabulary: int = VOCABULARY, layers: int = LAYERS
    ) -> None:
        super().__init__()
        self.bert = _Bert(hidden, heads, vocabulary, layers)
        words = self.bert.embeddings.word_embeddings.weight
        assert isinstance(words, nn.Parameter)
        self.cls = _Heads(hidden, vocabulary, words)

    def forward(self, words: Tensor) -> Tensor:
        scores: Tensor = self.cls(*self.bert(words.long()))
        return scores


class _Bert(nn.Module):
    def __init__(self, hidden: int, heads: int, vocabulary: int, layers: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(hidden, vocabulary)
        self.encoder = _Encoder(hidden, heads, layers)
        self.pooler = _Pooler(hidden)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(self.embeddings(words))
        return features, self.pooler(features)


class _Embeddings(nn.Module):
    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, hidden)
        self.position_embeddings = nn.Embedding(POSITIONS, hidden)
        self.token_type_embeddings = nn.Embedding(2, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, words: Tensor) -> Tensor:
        positions = torch.arange(words.shape[1], device=words.device)
        features = self.word_embeddings(words) + self.position_embeddings(positions)
        out: Tensor = self.LayerNorm(features + self.token_type_embeddings(torch.zeros_like(words)))
        return out


class _Encoder(nn.Module):
    def __init__(self, hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(hidden, heads) for _ in range(layers))

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layer:
            features = layer(features)
        return features


class _Layer(nn.Module):
    """Self-attention and a feed-forward network four times as wide, each with a residual and a norm after it."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(hidden, heads)
        self.intermediate = _Wider(hidden)
        self.output = _Output(4 * hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        features = self.attention(features)
        out: Tensor = self.output(self.intermediate(features), features)
        return out


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.self = _SelfAttention(hidden, heads)
        self.output = _Output(hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.output(self.self(features), features)
        return out


class _SelfAttention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.core = AttentionCore(causal=False)

    def forward(self, features: Tensor) -> Tensor:
        parts = (split_heads(make(features), self.heads) for make in (self.query, self.key, self.value))
        return join_heads(self.core(*parts))


class _Output(nn.Module):
    """Linear layer, residual, norm."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, features: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(features) + residual)
        return out


class _Wider(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, 4 * hidden)

    def forward(self, features: Tensor) -> Tensor:
        return F.gelu(self.dense(features))


class _Pooler(nn.Module):
    """A linear layer on the first word's features."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.dense(features[:, 0]))


class _Heads(nn.Module):
    def __init__(self, hidden: int, vocabulary: int, words: nn.Parameter) -> None:
        super().__init__()
        self.predictions = _WordHead(hidden, vocabulary, words)
        self.seq_relationship = nn.Linear(hidden, 2)

    def forward(self, features: Tensor, pooled: Tensor) -> Tensor:
        scores = torch.flatten(self.predictions(features), 1)
        return torch.cat([scores, self.seq_relationship(pooled)], dim=1)


class _WordHead(BareBias):
    """The masked-word head. Its matrix is the word embedding, registered there; its bias is its own."""

    def __init__(self, hidden: int, vocabulary: int, words: nn.Parameter) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.transform = _Transform(hidden)
        self.decoder = nn.Linear(hidden, vocabulary, bias=False)
        self.decoder.weight = words

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.transform(features)) + self.bias
        return out


class _Transform(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(F.gelu(self.dense(features)))
        return out
