# SPDX-License-Identifier: Apache-2.0
"""The target, a byte-level decoder, and an EAGLE3-style draft head for it. Small enough for a CPU.

Shapes: B sequences, T bytes each, D the width. Positions are rows, outermost first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 256  # a byte is a token


@dataclass(frozen=True)
class Shape:
    """How large the target is."""

    width: int
    layers: int
    heads: int
    length: int  # of a sequence, in bytes

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


class Layer(nn.Module):
    """Attention to what came before, then two linear layers. `inputs` may be wider than `width`:
    the draft head reads features and embeddings side by side."""

    def __init__(self, width: int, heads: int, inputs: int | None = None) -> None:
        super().__init__()
        inputs = inputs or width
        self.heads = heads
        self.norm = nn.LayerNorm(inputs)
        self.qkv = nn.Linear(inputs, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_after = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, residual: Tensor, inputs: Tensor) -> Tensor:
        """residual: (B, T, width); inputs: (B, T, inputs). Gives (B, T, width)."""
        batch, length, width = residual.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm(inputs)).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        hidden = residual + self.out((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return hidden + self.down(F.gelu(self.up(self.norm_after(hidden))))


class Target(nn.Module):
    """The large model of the field, here with a few hundred thousand parameters."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(VOCABULARY, shape.width)
        self.positions = nn.Embedding(2 * shape.length, shape.width)
        self.layers = nn.ModuleList(Layer(shape.width, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, VOCABULARY, bias=False)
        # As in EAGLE3: the outputs of a low, a middle and a high layer.
        self.auxiliary = (0, (shape.layers - 1) // 2, shape.layers - 2)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens: (B, T). Gives the auxiliary states (B, T, 3 D) and the last one (B, T, D)."""
        hidden = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        kept = []
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, hidden)
            if number in self.auxiliary:
                kept.append(hidden)
        return torch.cat(kept, dim=-1), hidden

    def logits(self, last: Tensor) -> Tensor:
        """(B, T, D) to (B, T, 256)."""
        return self.head(self.norm(last))


class Draft(nn.Module):
    """One layer that guesses the target's next-but-one token from the target's hidden states.

    At position t it sees the auxiliary states of t and the token at t + 1, and predicts what the
    target would say after t + 1. The next guess has no states of the target to go by: the draft's
    own output stands in for them. It is trained for that, too ("training-time test").
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        width = target.shape.width
        self.fuse = nn.Linear(3 * width, width)
        self.layer = Layer(width, target.shape.heads, inputs=2 * width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.head.load_state_dict(target.head.state_dict())
        self.embedding.load_state_dict(target.embedding.state_dict())
        self.embedding.requires_grad_(False)

    def step(self, features: Tensor, next_tokens: Tensor) -> Tensor:
        """features: (B, T, D), of the target fused, or of the draft itself; next_tokens: (B, T),
        those after each. Gives the draft's states (B, T, D)."""
        inputs = torch.cat([features, self.embedding(next_tokens)], dim=-1)
        return self.layer(features, inputs)

    def logits(self, states: Tensor) -> Tensor:
        return self.head(self.norm(states))

    def loss(self, auxiliary: Tensor, next_tokens: Tensor, wanted: Tensor, steps: int) -> Tensor:
        """The cross entropy to what the target would say, over `steps` guesses in a row, later ones
        counting less.

        auxiliary: (B, T, 3 D); next_tokens: (B, T); wanted: the target's probabilities (B, T, 256).
        """
        features = self.fuse(auxiliary)
        total = torch.zeros(())
        for number in range(steps):
            states = self.step(features, next_tokens)
            guesses = self.logits(states)[:, number:].log_softmax(dim=-1)
            total = total - 0.8**number * (wanted[:, number:] * guesses).sum(dim=-1).mean()
            # Where a position's features would be the draft's own: those of the position before.
            features = torch.cat([features[:, :1], states[:, :-1]], dim=1)
        return total


@torch.no_grad()
def acceptance_length(target: Target, draft: Draft, prompts: Tensor, new_tokens: int, steps: int) -> float:
    """Tokens that each pass of the target gives when it checks `steps` guesses of the draft, greedily:
    1 when none is ever right, steps + 1 when all are. prompts: (N, T)."""
    passes = made = 0
    for prompt in prompts:
        tokens = prompt[None]
        end = tokens.shape[1] + new_tokens
        auxiliary, last = target(tokens)
        tokens = torch.cat([tokens, target.logits(last[:, -1:]).argmax(-1)], dim=1)
        while tokens.shape[1] < end:
            guessed = _guess(draft, draft.fuse(auxiliary), tokens, steps)
            auxiliary, last = target(guessed)
            said = target.logits(last).argmax(-1)[0]
            known = tokens.shape[1]
            accepted = 0
            while accepted < steps and guessed[0, known + accepted] == said[known + accepted - 1]:
                accepted += 1
            tokens = torch.cat([guessed[:, : known + accepted], said[None, None, known + accepted - 1]], dim=1)
            auxiliary = auxiliary[:, : known + accepted]
            passes += 1
            made += accepted + 1
    return made / passes


def _guess(draft: Draft, features: Tensor, tokens: Tensor, steps: int) -> Tensor:
    """tokens (1, n) with `steps` more; features: (1, n - 1, D), of all but the last of them."""
    for _ in range(steps):
        states = draft.step(features, tokens[:, 1:])
        tokens = torch.cat([tokens, draft.logits(states[:, -1:]).argmax(-1)], dim=1)
        features = torch.cat([features, states[:, -1:]], dim=1)
    return tokens
