"""MMD-VAE: one variational autoencoder per modality, with a code that all share and a code of its own.

After J. Cheng, M. Gao, J. Liu, H. Yue, H. Kuang, J. Liu, J. Wang, "Multimodal Disentangled Variational Autoencoder With
Game Theoretic Interpretability for Glioma Grading", IEEE Journal of Biomedical and Health Informatics 26(2), 673-684,
doi 10.1109/JBHI.2021.3095476. Modality m is a row x_m of F_m features, standardised. Its encoder gives the mean and
log-variance of a common code c_m and a distinctive code d_m. With |.|^2 a mean over entries:

    L = CE(head([mean_m c_m, d_1, ..., d_M]))
        + reconstruction * sum_m |x_m - decoder_m(c_m, d_m)|^2
        + cross          * sum_{m != n} |x_m - decoder_m(c_n, d_m)|^2         the common code of n rebuilds m
        + divergence     * sum_m KL(q(c_m, d_m | x_m) || N(0, I))
        + separation     * (sum_{m<n} |c_m - c_n|^2 + sum_m cos(c_m, d_m)^2 + sum_{m<n} cos(d_m, d_n)^2)

In training the codes are drawn, otherwise they are the means. Layer sizes and weights are not public: ours are choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench import Batch, Context, FusionStrategy, Needs, Parts, Stage, hookimpl

EXTRACTOR = "radiomics"
CLIP = 5.0
"""In standard deviations. Sizes and sums of grey values have long tails: one huge tumour would drown all else."""
LOG_VARIANCE = 10.0
"""The largest log-variance either way; its exponential is then finite in half floats too."""

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Weights:
    """What the terms of the loss count beside the cross-entropy."""

    reconstruction: float
    cross: float
    divergence: float
    separation: float


class Standardised(nn.Module):
    """The best features of a table, with mean 0 and deviation 1 over the training part, clipped."""

    chosen: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, top: int) -> None:
        super().__init__()
        self.size = min(top, features) if top else features
        self.register_buffer("chosen", torch.arange(self.size))
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def fit(self, rows: Tensor, labels: Tensor) -> None:
        """Choose features and keep their statistics, from rows (N, F) and their classes (N,)."""
        rows = rows.double()  # for features far from zero
        constant = rows.amax(0) == rows.amin(0)
        mean, deviation = rows.mean(0), rows.std(0, correction=0).masked_fill(constant, 1)
        scale = deviation.reciprocal().masked_fill(constant, 0)  # so that another value in a test subject says nothing
        scores = univariate_scores((rows - mean) * scale, labels)
        self.chosen.copy_(scores.argsort(descending=True, stable=True)[: self.size].sort().values)
        self.mean.copy_(mean[self.chosen])
        self.scale.copy_(scale[self.chosen])

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, 1, 1, 1) -> (B, size)."""
        return ((x.flatten(1)[:, self.chosen] - self.mean) * self.scale).clamp(-CLIP, CLIP)


class Autoencoder(nn.Module):
    """Standardisation, encoder and decoder of one modality."""

    def __init__(self, standardised: Standardised, width: int, code: int) -> None:
        super().__init__()
        self.standardised, features = standardised, standardised.size
        self.encoder = nn.Sequential(*_hidden(features, width), *_hidden(width, width // 2))
        self.mean = nn.Linear(width // 2, 2 * code)
        self.log_variance = nn.Linear(width // 2, 2 * code)
        self.decoder = nn.Sequential(
            *_hidden(2 * code, width // 2), *_hidden(width // 2, width), nn.Linear(width, features)
        )

    def encode(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised rows (B, features) -> mean and log-variance (B, 2 code), the common code first."""
        hidden = self.encoder(table)
        return self.mean(hidden), self.log_variance(hidden).clamp(-LOG_VARIANCE, LOG_VARIANCE)

    def decode(self, common: Tensor, distinctive: Tensor) -> Tensor:
        """Two codes (..., code) -> (..., features)."""
        table: Tensor = self.decoder(torch.cat([common, distinctive], -1))
        return table


class MmdVae(FusionStrategy):
    """Autoencoders that split each modality's features into a common and a distinctive code (Cheng et al. 2022)."""

    name = "mmdvae"
    uses_parts = False
    stage_names = ("vae",)

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        parts: Parts,
        *,
        extractor: Annotated[
            str, Field(min_length=1), "what makes a table of an image, from what lies inside the tumour outline"
        ] = EXTRACTOR,
        top: Annotated[
            int, Field(ge=0), "features kept of each modality, those with the highest F in the training part; 0: all"
        ] = 0,
        width: Annotated[int, Field(ge=2), "units of the first hidden layer; the second has half as many"] = 256,
        code: Annotated[int, Field(ge=1), "size of the common code, and of the distinctive one"] = 32,
        reconstruction: Annotated[Weight, "weight of rebuilding a modality from its own codes"] = 0.1,
        cross: Annotated[Weight, "weight of rebuilding it with the common code of another"] = 0.1,
        divergence: Annotated[Weight, "weight of the divergence of the codes from a standard normal"] = 1e-3,
        separation: Annotated[Weight, "weight of the common-distinctive loss"] = 0.1,
    ) -> None:
        super().__init__()
        self.modalities = parts.modalities
        self.weights = Weights(reconstruction, cross, divergence, separation)
        # a list, for a modality may have a name that no module can have, such as gene.expression
        self.autoencoders = nn.ModuleList(
            Autoencoder(Standardised(parts.shapes[name], top), width, code) for name in self.modalities
        )
        self.head = parts.head((1 + len(self.modalities)) * code)

    @classmethod
    def needs(cls, **options: Any) -> Needs:
        """The features inside the tumour outline of each image, of test subjects too."""
        return Needs(outlines="test", features=options.get("extractor", EXTRACTOR))

    def begin(self, context: Context) -> None:
        """Choose the features of each modality and fit their statistics, on the training part alone."""
        batches = list(context.training())
        labels = torch.cat([batch.labels for batch in batches])
        for name, autoencoder in self._each():
            autoencoder.standardised.fit(torch.cat([batch.inputs[name].flatten(1) for batch in batches]), labels)

    def stages(self) -> tuple[Stage, ...]:
        """One, of everything."""
        return (Stage("vae", ("",), mmdvae_loss),)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K) from the means of the codes."""
        mean, _ = self.encode(self.tables(inputs))
        return self.classify(*mean.chunk(2, -1))

    def tables(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Modality -> (B, F, 1, 1, 1) to standardised rows (B, F_m), one table per modality."""
        return [autoencoder.standardised(inputs[name]) for name, autoencoder in self._each()]

    def encode(self, tables: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Means and log-variances (M, B, 2 code) of all modalities, the common code first."""
        pairs = [autoencoder.encode(table) for (_, autoencoder), table in zip(self._each(), tables, strict=True)]
        means, log_variances = zip(*pairs, strict=True)
        return torch.stack(means), torch.stack(log_variances)

    def classify(self, common: Tensor, distinctive: Tensor) -> Tensor:
        """Both codes of all modalities, (M, B, code) each -> logits (B, K)."""
        logits: Tensor = self.head(torch.cat([common.mean(0), *distinctive], 1))
        return logits

    def errors(self, tables: Sequence[Tensor], common: Tensor, distinctive: Tensor) -> Tensor:
        """(M, M): in row m and column n the mean of (x_m - decoder_m(c_n, d_m))^2."""
        rows = []
        for (_, autoencoder), table, own in zip(self._each(), tables, distinctive, strict=True):
            rebuilt = autoencoder.decode(common, own.expand_as(common))  # (M, B, F_m): with everybody's common code
            rows.append((rebuilt - table).square().mean((1, 2)))
        return torch.stack(rows)

    def _each(self) -> Iterator[tuple[str, Autoencoder]]:
        for name, autoencoder in zip(self.modalities, self.autoencoders, strict=True):
            assert isinstance(autoencoder, Autoencoder)
            yield name, autoencoder


def mmdvae_loss(model: MmdVae, batch: Batch, progress: float) -> Tensor:
    """L: cross-entropy, reconstruction, cross-reconstruction, divergence, common-distinctive loss."""
    tables, weights = model.tables(batch.inputs), model.weights
    mean, log_variance = model.encode(tables)
    codes = draw(mean, log_variance) if model.training else mean
    common, distinctive = codes.chunk(2, -1)  # (M, B, code) each
    errors = model.errors(tables, common, distinctive)
    own = errors.diagonal().sum()
    return (
        batch.cross_entropy(model.classify(common, distinctive))
        + weights.reconstruction * own
        + weights.cross * (errors.sum() - own)
        + weights.divergence * divergence(mean, log_variance)
        + weights.separation * separation(common, distinctive)
    )


def draw(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A draw from the normal distribution with this mean and variance, through which gradients flow."""
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) of codes (M, B, 2 code): summed over modalities, the mean over subjects."""
    terms = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    return terms.sum((0, 2)).mean()


def separation(common: Tensor, distinctive: Tensor) -> Tensor:
    """L_cd of codes (M, B, code): common codes agree, all others are orthogonal; the mean over subjects."""
    pairs = list(combinations(range(len(common)), 2))
    agree = [(common[m] - common[n]).square().mean() for m, n in pairs]
    apart = [F.cosine_similarity(distinctive[m], distinctive[n]).square().mean() for m, n in pairs]
    own = F.cosine_similarity(common, distinctive, dim=-1).square().mean(1)  # (M,)
    return torch.stack([*agree, *apart, *own]).sum()


def univariate_scores(rows: Tensor, labels: Tensor) -> Tensor:
    """The F of a one-way analysis of variance for each column of (N, F); a column that says nothing comes last."""
    from sklearn.feature_selection import f_classif

    scores = np.full(rows.shape[1], -1.0)
    varied = (rows.amax(0) > rows.amin(0)).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # a column that is constant within each class has F = infinity
        found, _ = f_classif(rows.cpu().numpy()[:, varied], labels.cpu().numpy())
    scores[varied] = np.nan_to_num(found, nan=-1.0, posinf=np.inf)
    return torch.from_numpy(scores)


def _hidden(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A hidden layer. LayerNorm, for BatchNorm cannot train on a batch of one."""
    return nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU()


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [MmdVae]
