"""BERT on a synthetic language: masked words and next sentences, as Devlin et al. 2018 train it.

The language has topics, and the words of a topic stand in a ring. Half of the time a word is followed by its successor
in the ring, else by any word of the topic, the first twice as often as the second, and so on (Zipf). A masked word can
thus be guessed from the topic, and better from its neighbours.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from real_backend.training.task import Batch, Draw, Task
from real_backend.zoo import BertLarge

START, END, MASK = 1, 2, 3
WORDS_FROM = 4
"""Number of the first word; the numbers below are marks (0 is padding, not used here)."""
IGNORED = -100
FOLLOWS, MASKED = 0.5, 0.15


class Words(Task):
    """Small: 2 layers of 64 features, 64 words, 32 tokens. Full: BERT-large, 30,522 words, 128 tokens.

    Full keeps at most 7.4 GB for the backward pass (counted on the meta device, not measured), and 5.4 GB for
    weights, gradients and AdamW.
    """

    name = "bert"
    title = "BERT"
    error_name = "share of masked words missed"
    trivial_name = "most frequent word"

    def __init__(self, size: str = "small") -> None:
        small = size == "small"
        super().__init__(size, batch=32, steps=300 if small else 100)
        self.tokens, self.vocabulary, self.topics = (32, 64, 4) if small else (128, 30_522, 100)
        self.hidden, self.heads, self.layers = (64, 4, 2) if small else (1024, 16, 24)

    def model(self) -> nn.Module:
        """Return a model with BERT's own initial weights: normal, standard deviation 0.02, larger with fewer
        features."""
        model = BertLarge(hidden=self.hidden, heads=self.heads, layers=self.layers, vocabulary=self.vocabulary)
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.64 / sqrt(self.hidden))
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=2e-3 if self.size == "small" else 1e-4)

    def samples(self, draw: Draw, count: int, device: torch.device) -> Batch:
        """Return inputs [sample, token] and targets [sample, token + 1]: the original word or IGNORED, then 1 or 0.

        A sample has two halves, each closed by END: the second continues the first's topic (1), or has any (0). Of the
        words to be predicted, four in five are masked, one in ten is another word, and one in ten stays, as in BERT.
        """
        draws = draw.generator()
        half = self.tokens // 2
        topic = torch.randint(self.topics, (count,), generator=draws)
        goes_on = torch.randint(2, (count,), generator=draws)
        other = torch.where(goes_on == 1, topic, torch.randint(self.topics, (count,), generator=draws))
        words = torch.cat([self._sentence(each, half, draws) for each in (topic, other)], dim=1)
        words[:, 0], words[:, half - 1], words[:, -1] = START, END, END
        asked = (torch.rand(words.shape, generator=draws) < MASKED) & (words >= WORDS_FROM)
        targets = torch.cat([torch.where(asked, words, IGNORED), goes_on[:, None]], dim=1)
        chance = torch.rand(words.shape, generator=draws)
        wrong = torch.randint(WORDS_FROM, self.vocabulary, words.shape, generator=draws)
        words = torch.where(asked & (chance < 0.8), MASK, words)
        words = torch.where(asked & (chance >= 0.9), wrong, words)
        return Batch(words.to(device), targets.to(device))

    def _sentence(self, topic: Tensor, length: int, draws: torch.Generator) -> Tensor:
        """Return words of one topic for each sample, shape [sample, token]."""
        ring = (self.vocabulary - WORDS_FROM) // self.topics
        zipf = 1 / torch.arange(1, ring + 1)
        anywhere = torch.multinomial(zipf, len(topic) * length, replacement=True, generator=draws).view(-1, length)
        jumps = torch.rand(anywhere.shape, generator=draws) >= FOLLOWS
        jumps[:, 0] = True
        steps = torch.arange(length).expand_as(anywhere)
        landed = torch.where(jumps, steps, 0).cummax(dim=1).values  # where the last jump was
        return WORDS_FROM + topic[:, None] * ring + (anywhere.gather(1, landed) + steps - landed) % ring

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        scores = self._scores(outputs).flatten(0, 1).float()
        words = F.cross_entropy(scores, targets[:, :-1].flatten(), ignore_index=IGNORED)
        return words + F.cross_entropy(outputs[:, -2:].float(), targets[:, -1])

    def misses(self, outputs: Tensor, targets: Tensor) -> tuple[float, int]:
        words = targets[:, :-1]
        asked = words != IGNORED
        return float((self._scores(outputs).argmax(dim=2) != words)[asked].sum()), int(asked.sum())

    def trivial_error(self, targets: Tensor) -> float:
        """Return the error of the most frequent word."""
        words = targets[:, :-1]
        asked = words[words != IGNORED]
        return 1 - int(asked.bincount().max()) / len(asked)

    def _scores(self, outputs: Tensor) -> Tensor:
        """Return word scores, shape [sample, token, word]."""
        return outputs[:, :-2].reshape(-1, self.tokens, self.vocabulary)
