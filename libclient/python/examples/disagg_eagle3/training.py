# SPDX-License-Identifier: Apache-2.0
"""The three pieces of work: training a target, capturing its hidden states, training a draft head.

All of them are the same whether they run in one process or in several on several nodes. Sums are
made by one thread and in one order, so that two runs with one seed give the same bits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import torch
from torch.nn import functional as F

from model import Draft, Shape, Target, acceptance_length
from stores import SampleStore, Tensors

TEXTS = Path("/usr/share/common-licenses")  # of every Debian and Ubuntu
PROMPT_BYTES = 24


@dataclass(frozen=True)
class Size:
    """How much work a run is."""

    shape: Shape
    target_steps: int  # of `batch` sequences each
    samples: int
    epochs: int
    batch: int
    guesses: int  # of the draft in a row
    prompts: int  # to measure the acceptance length with


SIZES = {
    # For the test suite: a few seconds, and the draft learns little.
    "tiny": Size(Shape(32, 4, 2, 32), 30, 12, 2, 4, 3, 2),
    # For people: under two minutes on two cores.
    "test": Size(Shape(64, 5, 4, 64), 140, 96, 3, 8, 4, 5),
    "more": Size(Shape(192, 8, 6, 192), 1500, 1000, 6, 8, 5, 12),
}


def prepare(seed: int) -> None:
    """One thread: with more, how a sum is split may depend on what else the machine does."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)


def read_text() -> torch.Tensor:
    """The bytes of all files, one after the other."""
    files = sorted(path for path in TEXTS.iterdir() if path.is_file() and not path.is_symlink())
    return torch.tensor(list(b"".join(path.read_bytes() for path in files)), dtype=torch.uint8)


def cut_sequences(text: torch.Tensor, count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Pieces of the text from places that the generator gives: (count, length), int64."""
    starts = torch.randint(len(text) - length, (count,), generator=generator)
    return torch.stack([text[start : start + length] for start in starts.tolist()]).long()


def train_target(size: Size, seed: int) -> Target:
    """A decoder that knows a little of the text."""
    prepare(seed)
    text, generator = read_text(), torch.Generator().manual_seed(seed)
    target = Target(size.shape)
    optimizer = torch.optim.AdamW(target.parameters(), lr=2e-3)
    for _ in range(size.target_steps):
        tokens = cut_sequences(text, size.batch, size.shape.length, generator)
        _, last = target(tokens)
        loss = F.cross_entropy(target.logits(last[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return target


def save_target(target: Target, path: Path) -> None:
    torch.save({"shape": target.shape.to_dict(), "weights": target.state_dict()}, path)


def load_target(path: Path) -> Target:
    saved = torch.load(path)
    target = Target(Shape(**saved["shape"]))
    target.load_state_dict(saved["weights"])
    return target.eval().requires_grad_(False)


@torch.no_grad()
def capture(target: Target, size: Size, seed: int) -> Iterator[tuple[str, Tensors]]:
    """What an inference server would put: for each sample its id and four tensors, hidden states as
    BF16. About width * 8 bytes per token."""
    text, generator = read_text(), torch.Generator().manual_seed(seed + 1)
    for number in range(size.samples):
        tokens = cut_sequences(text, 1, size.shape.length, generator)
        auxiliary, last = target(tokens)
        yield f"sample-{number:05}", {
            "aux_hidden_state": auxiliary[0].bfloat16(),
            "hidden_state": last[0].bfloat16(),
            "input_ids": tokens[0],
            "loss_mask": torch.ones(size.shape.length, dtype=torch.uint8),
        }


@dataclass
class Curve:
    """What training a draft gave. Losses are exact: a float of JSON is read back as the same bits."""

    losses: list[float]
    acceptance: list[float]  # before, and after each epoch
    waited_s: float  # for samples
    trained_s: float  # the rest
    samples: int

    def to_dict(self) -> dict[str, Any]:
        seconds = self.waited_s + self.trained_s
        return {
            **self.__dict__,
            "samples_per_s": self.samples / seconds,
            "wait_ms_per_sample": 1000 * self.waited_s / self.samples,
        }


class InProcess:
    """The store of a colocated run: the samples stay in this process."""

    def __init__(self, samples: Iterator[tuple[str, Tensors]]) -> None:
        self._samples = dict(samples)
        self.keys = list(self._samples)

    def put(self, sample_id: str, tensors: Tensors) -> str:
        self._samples[sample_id] = tensors
        return sample_id

    def read(self, keys: Any) -> Iterator[Tensors]:
        for key in keys:
            yield self._samples[key]

    def ack(self, keys: list[str]) -> None:
        for key in keys:
            del self._samples[key]


def train_draft(target: Target, store: SampleStore, keys: list[str], size: Size, seed: int) -> Curve:
    """Several epochs over the samples, each in an order that the seed gives. In the last one samples
    are acked once the optimizer has used them."""
    prepare(seed)
    generator = torch.Generator().manual_seed(seed + 2)
    draft = Draft(target)
    optimizer = torch.optim.AdamW((p for p in draft.parameters() if p.requires_grad), lr=1e-3)
    prompts = cut_sequences(
        read_text(), size.prompts, PROMPT_BYTES, torch.Generator().manual_seed(seed + 3)
    )

    def measure() -> float:
        return acceptance_length(target, draft, prompts, size.shape.length // 2, size.guesses)

    curve = Curve([], [measure()], 0.0, 0.0, 0)
    for epoch in range(size.epochs):
        order = [keys[i] for i in torch.randperm(len(keys), generator=generator).tolist()]
        arriving = store.read(order)
        for first in range(0, len(order), size.batch):
            began = time.perf_counter()
            batch = order[first : first + size.batch]
            samples = [next(arriving) for _ in batch]
            came = time.perf_counter()
            curve.losses.append(_train_step(target, draft, optimizer, samples, size.guesses))
            curve.trained_s += time.perf_counter() - came
            curve.waited_s += came - began
            curve.samples += len(batch)
            if epoch == size.epochs - 1:
                store.ack(batch)
        curve.acceptance.append(measure())
    return curve


def _train_step(
    target: Target, draft: Draft, optimizer: torch.optim.Optimizer, samples: list[Tensors], guesses: int
) -> float:
    """One step of the optimizer; gives the loss."""
    stacked = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    with torch.no_grad():
        wanted = target.logits(stacked["hidden_state"].float()[:, 1:]).softmax(dim=-1)
        wanted = wanted * stacked["loss_mask"][:, 1:, None]
    auxiliary = stacked["aux_hidden_state"].float()[:, :-1]
    loss = draft.loss(auxiliary, stacked["input_ids"][:, 1:], wanted, guesses)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss)
