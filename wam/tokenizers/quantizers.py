"""Quantisers behind one interface: finite scalar, vector, residual vector, and none (a Gaussian bottleneck).

A quantiser takes what an encoder says, (..., `inputs`), and gives latents (..., A), codes (..., levels) and the loss that
keeps both together. Inputs are normalised over the batch first, without which a quantiser that is trained from scratch
tends to hold one code. Restarts and noise are drawn from the generator given, so that a resumed run equals an
uninterrupted one.

Sources: finite scalar quantisation Mentzer et al. 2023; vector quantisation with averaged codes van den Oord et al. 2017;
restarts of dead codes Dhariwal et al. 2020; residual stages Zeghidour et al. 2021; beta-VAE Higgins et al. 2017.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wam.contracts import expected

Kind = Literal["fsq", "vq", "rvq", "vae"]
ACTIVE = 0.01
"""Variance of a continuous latent's mean over a batch from which on it counts as used."""


@dataclass(kw_only=True)
class QuantizerConfig:
    """kind: fsq, vq, rvq (residual vq) or vae (continuous).

    fsq: levels, the steps of each dimension; the codebook is their product. vq, rvq: codes and dim of each codebook,
    stages of rvq; decay of the averaged codes; a code that holds less than restart_below inputs of an average batch is put
    where an input is; commitment: weight that keeps inputs near their codes. vae: dim and the weight beta of the divergence
    from a unit Gaussian. decorrelate: weight of the squared correlation between dimensions, so that products of codes are used.
    """

    kind: Kind = "fsq"
    levels: tuple[int, ...] = (5, 5, 5)
    codes: int = 128
    dim: int = 8
    stages: int = 2
    decay: float = 0.95
    restart_below: float = 0.05
    commitment: float = 0.25
    beta: float = 1e-3
    decorrelate: float = 0.1

    def validate(self) -> None:
        if self.kind == "fsq" and (not self.levels or min(self.levels) < 2):
            raise expected(
                "fsq levels of 2 and more", got=self.levels, do="give the steps of each dimension, as [5, 5, 5]"
            )
        if min(self.codes, 2 * self.dim, 2 * self.stages) < 2:
            raise expected(
                "a quantizer with codes of at least 2, dim and stages of at least 1",
                got=f"{self.codes}, {self.dim} and {self.stages}",
                do="raise them",
            )
        if not 0 < self.decay < 1:
            raise expected("a quantizer's decay between 0 and 1", got=self.decay, do="give a share such as 0.95")


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """latents (..., A), float; gradients pass straight through the rounding. codes (..., levels) int64, None where
    latents are continuous. loss: what the quantiser asks for, a scalar."""

    latents: Tensor
    codes: Tensor | None
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class CodeHealth:
    """size: codes there are in all. perplexity: the exponential of the entropy of their use, the number of codes as evenly
    used; share: of size. dead: codes never used. Several codebooks (residual stages) are averaged, their dead codes added.
    Of continuous latents: dimensions, those that vary (twice), their share, and those that do not.
    """

    size: int
    perplexity: float
    share: float
    dead: int


def code_health(counts: Tensor) -> CodeHealth:
    """counts (codebooks, size): how often each code was used."""
    shares = counts.double() / counts.double().sum(dim=1, keepdim=True).clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-300).log()).sum(dim=1)
    perplexity = float(entropy.exp().mean())
    size = counts.shape[1]
    return CodeHealth(size=size, perplexity=perplexity, share=perplexity / size, dead=int((counts == 0).sum()))


class Quantizer(nn.Module, abc.ABC):
    """inputs: width it wants from the encoder. dim: A of its latents. levels: codes per latent. books, size: codebooks
    whose use is counted, and codes in each; of continuous latents 1 and A.

    usage (books, size): counts of the codes of recent training batches, falling by a hundredth a batch (of continuous latents:
    the variance of each dimension's mean); batches: how many there were.
    """

    usage: Tensor
    batches: Tensor

    def __init__(self, *, inputs: int, dim: int, levels: int, books: int, size: int, decorrelate: float = 0.0) -> None:
        super().__init__()
        self.inputs, self.dim, self.levels, self.books, self.size = inputs, dim, levels, books, size
        self.decorrelate = decorrelate
        self.register_buffer("usage", torch.zeros(books, size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, *, generator: torch.Generator | None = None) -> Quantized:
        """z (..., inputs), in any precision; everything here is done in float32."""
        if z.shape[-1] != self.inputs:
            raise expected(f"inputs of width {self.inputs}", got=z.shape[-1], do="give what the encoder says")
        with torch.autocast(z.device.type, enabled=False):
            flat = z.reshape(-1, self.inputs).float()
            found = self.quantize(flat, generator)
        if self.training:
            self._count(found)
        codes = None if found.codes is None else found.codes.reshape(*z.shape[:-1], self.levels)
        return Quantized(latents=found.latents.reshape(*z.shape[:-1], self.dim), codes=codes, loss=found.loss)

    @abc.abstractmethod
    def quantize(self, z_ND: Tensor, generator: torch.Generator | None) -> Quantized:
        """The same for float32 rows (N, inputs)."""

    @abc.abstractmethod
    def latents_of(self, codes: Tensor) -> Tensor:
        """Codes (..., levels) -> latents (..., A)."""

    def book_indices(self, codes: Tensor) -> Tensor:
        """Codes (N, levels) -> the code used of each codebook whose use is counted, (N, books)."""
        return codes

    def counts(self, codes: Tensor) -> Tensor:
        """How often each code is used in codes (..., levels): (books, size)."""
        indices = self.book_indices(codes.reshape(-1, self.levels))
        return torch.stack([torch.bincount(column, minlength=self.size) for column in indices.T])

    @property
    def health(self) -> CodeHealth:
        """Of recent training batches."""
        return code_health(self.usage)

    @torch.no_grad()
    def _count(self, found: Quantized) -> None:
        assert found.codes is not None
        self.usage.mul_(0.99).add_(self.counts(found.codes))
        self.batches += 1

    def _correlation(self, z_ND: Tensor) -> Tensor:
        """The mean squared correlation between different dimensions, weighted; of normalised rows."""
        if not self.decorrelate or z_ND.shape[1] < 2 or not self.training:
            return z_ND.new_zeros(())
        correlation = z_ND.T @ z_ND / len(z_ND)
        off = correlation - torch.diag(torch.diagonal(correlation))
        return self.decorrelate * off.square().sum() / (z_ND.shape[1] * (z_ND.shape[1] - 1))


class FiniteScalarQuantizer(Quantizer):
    """Each dimension squashed and rounded to one of its levels, evenly from -1 to 1; the code says the level of each."""

    def __init__(self, levels: tuple[int, ...], *, decorrelate: float = 0.0) -> None:
        dims, size = len(levels), math.prod(levels)
        super().__init__(inputs=dims, dim=dims, levels=dims, books=1, size=size, decorrelate=decorrelate)
        self.norm = nn.BatchNorm1d(dims, affine=False, eps=1e-8)
        self.register_buffer("steps", torch.tensor(levels) - 1, persistent=False)
        places = [math.prod(levels[:place]) for place in range(dims)]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.steps: Tensor
        self.places: Tensor

    def quantize(self, z_ND: Tensor, generator: torch.Generator | None) -> Quantized:
        z = self.norm(z_ND)
        smooth = z.tanh()
        codes = ((smooth + 1) / 2 * self.steps).round()
        rounded = codes / self.steps * 2 - 1
        return Quantized(latents=smooth + (rounded - smooth).detach(), codes=codes.long(), loss=self._correlation(z))

    def latents_of(self, codes: Tensor) -> Tensor:
        return codes / self.steps * 2 - 1

    def book_indices(self, codes: Tensor) -> Tensor:
        return (codes * self.places).sum(dim=-1, keepdim=True)


class VectorQuantizer(Quantizer):
    """The nearest of a codebook's vectors; residual: stages that each quantise what the ones before have left.

    Codes are averages of the inputs that chose them, not trained by gradients.
    """

    codebooks: Tensor
    held: Tensor
    sums: Tensor

    def __init__(self, config: QuantizerConfig, *, stages: int = 1) -> None:
        size, dim = config.codes, config.dim
        super().__init__(inputs=dim, dim=dim, levels=stages, books=stages, size=size, decorrelate=config.decorrelate)
        self.config, self.norm = config, nn.BatchNorm1d(dim, affine=False, eps=1e-8)
        scales = torch.tensor([0.5**stage for stage in range(stages)])[:, None, None]
        self.register_buffer("codebooks", torch.randn(stages, size, dim) * scales)
        self.register_buffer("held", torch.ones(stages, size))
        self.register_buffer("sums", self.codebooks.clone())

    def quantize(self, z_ND: Tensor, generator: torch.Generator | None) -> Quantized:
        z = self.norm(z_ND)
        left, chosen, total = z.detach(), [], torch.zeros_like(z)
        for stage in range(self.levels):
            book = self.codebooks[stage]
            codes = (book.square().sum(dim=1) - 2 * left @ book.T).argmin(dim=1)
            picked = book[codes]
            if self.training:
                self._learn(stage, left, codes, generator)
            total, left = total + picked, left - picked
            chosen.append(codes)
        loss = self.config.commitment * (z - total).square().mean() + self._correlation(z)
        return Quantized(latents=z + (total - z).detach(), codes=torch.stack(chosen, dim=1), loss=loss)

    def latents_of(self, codes: Tensor) -> Tensor:
        stages = torch.arange(self.levels, device=codes.device)
        return self.codebooks[stages, codes].sum(dim=-2)

    @torch.no_grad()
    def _learn(self, stage: int, rows: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        """Move each code towards the mean of its inputs; put what holds too few onto inputs drawn at random."""
        decay = self.config.decay
        onehot = nn.functional.one_hot(codes, self.size).to(rows.dtype)
        self.held[stage].lerp_(onehot.sum(dim=0), 1 - decay)
        self.sums[stage].lerp_(onehot.T @ rows, 1 - decay)
        empty = self.held[stage] < self.config.restart_below
        drawn = torch.randint(len(rows), (self.size,), generator=generator).to(rows.device)
        self.sums[stage] = torch.where(empty[:, None], rows[drawn], self.sums[stage])
        self.held[stage] = torch.where(empty, torch.ones_like(self.held[stage]), self.held[stage])
        self.codebooks[stage] = self.sums[stage] / self.held[stage].clamp_min(1e-5)[:, None]


class GaussianBottleneck(Quantizer):
    """No codes: a diagonal Gaussian, drawn from in training, its mean afterwards; the loss is its divergence from a unit
    Gaussian in nats per dimension, times beta."""

    def __init__(self, dim: int, beta: float) -> None:
        super().__init__(inputs=2 * dim, dim=dim, levels=0, books=1, size=dim)
        self.beta = beta

    @property
    def health(self) -> CodeHealth:
        active = int((self.usage > ACTIVE).sum())
        return CodeHealth(size=self.dim, perplexity=float(active), share=active / self.dim, dead=self.dim - active)

    def quantize(self, z_ND: Tensor, generator: torch.Generator | None) -> Quantized:
        mean, logvar = z_ND.chunk(2, dim=1)
        logvar = logvar.clamp(-12, 6)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        latents = mean
        if self.training:
            self._spread = mean.detach().var(dim=0)
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
            latents = mean + (0.5 * logvar).exp() * noise
        return Quantized(latents=latents, codes=None, loss=self.beta * kl)

    @torch.no_grad()
    def _count(self, found: Quantized) -> None:
        self.usage[0].lerp_(self._spread, 0.01 if self.batches else 1.0)
        self.batches += 1

    def latents_of(self, codes: Tensor) -> Tensor:
        raise expected(
            "a quantizer with codes", got="a continuous one", do="use its latents, or train with fsq, vq or rvq"
        )


def make_quantizer(config: QuantizerConfig) -> Quantizer:
    config.validate()
    if config.kind == "fsq":
        return FiniteScalarQuantizer(tuple(config.levels), decorrelate=config.decorrelate)
    if config.kind == "vae":
        return GaussianBottleneck(config.dim, config.beta)
    return VectorQuantizer(config, stages=config.stages if config.kind == "rvq" else 1)
