"""The disentangled autoencoders compute the loss that their page states, on statistics of the training part alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import comparison
from numpy.typing import NDArray
from sklearn.feature_selection import f_classif
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from fusionbench import (
    Backbone,
    Batch,
    Cohort,
    Context,
    Modality,
    Needs,
    Parts,
    Store,
    Subject,
    load_registry,
    open_study,
    plan,
    run,
)
from fusionbench.metrics import metric
from fusionbench.numerics import seeded
from fusionbench.runs import Run
from fusionbench.testing.plugin import contract_test
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.backbones.mlp import Mlp
from fusionbench_plugins.fusion.mmdvae import (
    CLIP,
    LOG_VARIANCE,
    MmdVae,
    Standardised,
    divergence,
    draw,
    mmdvae_loss,
    separation,
    univariate_scores,
)

SHAPES = {"t1ce": 5, "gene.expression": 3, "flair": 4}
TERMS = ("reconstruction", "cross", "divergence", "separation")
SILENT = dict.fromkeys(TERMS, 0.0)
Array = NDArray[np.float64]

test_contract_of_a_chosen_few = contract_test("mmdvae", top=3, width=12, code=5, divergence=0.1, extractor="other")
test_contract_of_the_smallest = contract_test("mmdvae", width=6, code=2, reconstruction=1.0, cross=2.0)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def parts(shapes: Mapping[str, int] = SHAPES, classes: int = 2) -> Parts:
    def backbone(names: tuple[str, ...], channels: int) -> Backbone:
        return Mlp(channels)

    return Parts(tuple(shapes), tuple("xyz"[:classes]), shapes, backbone, NoAttention)


def draw_batch(subjects: int = 12, shapes: Mapping[str, int] = SHAPES) -> Batch:
    labels = torch.arange(subjects) % 2
    inputs = {name: (torch.randn(subjects, n) + labels[:, None])[..., None, None, None] for name, n in shapes.items()}
    return Batch(tuple(f"s{n}" for n in range(subjects)), inputs, labels, 0.3 + 0.4 * labels.float())


def begun(batch: Batch, **options: object) -> MmdVae:
    shapes = {name: x.shape[1] for name, x in batch.inputs.items()}
    model = MmdVae(parts(shapes), **{"width": 8, "code": 3, **options}).double()
    model.begin(Context({}, lambda: [batch]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def loss(batch: Batch, **weights: float) -> Tensor:
    """The loss of one and the same model with these weights, all others 0."""
    torch.manual_seed(1)
    return mmdvae_loss(begun(batch, **{**SILENT, **weights}), batch, 0.0)


# The loss, by hand


def linear(state: Mapping[str, Tensor], name: str, x: Array) -> Array:
    return x @ state[f"{name}.weight"].numpy().T + state[f"{name}.bias"].numpy()


def hidden(state: Mapping[str, Tensor], name: str, first: int, x: Array) -> Array:
    """Linear, LayerNorm, ReLU."""
    x = linear(state, f"{name}.{first}", x)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    norm = f"{name}.{first + 1}"
    return np.maximum(x * state[f"{norm}.weight"].numpy() + state[f"{norm}.bias"].numpy(), 0)


class ByHand:
    """The equations of the page in numpy, from the tensors of a model and a batch."""

    def __init__(self, model: MmdVae, batch: Batch) -> None:
        self.state, self.batch = model.state_dict(), batch
        self.x = [self.standardise(m, batch.inputs[name]) for m, name in enumerate(batch.inputs)]
        encoded = [self.encode(m, x) for m, x in enumerate(self.x)]
        self.mean, self.log_variance = ([pair[k] for pair in encoded] for k in (0, 1))
        half = self.mean[0].shape[1] // 2
        self.c, self.d = [mean[:, :half] for mean in self.mean], [mean[:, half:] for mean in self.mean]
        self.count = range(len(self.x))

    def standardise(self, m: int, x: Tensor) -> Array:
        name = f"autoencoders.{m}.standardised"
        columns = x.flatten(1).double().numpy()[:, self.state[f"{name}.chosen"].numpy()]
        scaled = (columns - self.state[f"{name}.mean"].numpy()) * self.state[f"{name}.scale"].numpy()
        return np.clip(scaled, -5, 5)

    def encode(self, m: int, x: Array) -> tuple[Array, Array]:
        body = f"autoencoders.{m}.encoder"
        inside = hidden(self.state, body, 3, hidden(self.state, body, 0, x))
        log_variance = linear(self.state, f"autoencoders.{m}.log_variance", inside)
        return linear(self.state, f"autoencoders.{m}.mean", inside), np.clip(log_variance, -10, 10)

    def decode(self, m: int, c: Array, d: Array) -> Array:
        body = f"autoencoders.{m}.decoder"
        inside = hidden(self.state, body, 3, hidden(self.state, body, 0, np.concatenate([c, d], 1)))
        return linear(self.state, f"{body}.6", inside)

    def error(self, m: int, n: int) -> float:
        return float(((self.x[m] - self.decode(m, self.c[n], self.d[m])) ** 2).mean())

    def cross_entropy(self) -> float:
        fused = np.concatenate([np.mean(self.c, 0), *self.d], 1)
        logits = linear(self.state, "head.linear", fused)
        chosen = logits[range(len(logits)), self.batch.labels.numpy()]
        losses = np.log(np.exp(logits).sum(1)) - chosen
        return float((self.batch.weights.double().numpy() * losses).mean())

    def reconstruction(self) -> float:
        return sum(self.error(m, m) for m in self.count)

    def cross(self) -> float:
        return sum(self.error(m, n) for m in self.count for n in self.count if m != n)

    def divergence(self) -> float:
        total = 0.0
        for mean, log_variance in zip(self.mean, self.log_variance, strict=True):
            total += 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1).mean()
        return total

    def separation(self) -> float:
        pairs = [(m, n) for m in self.count for n in self.count if m < n]
        agree = sum(((self.c[m] - self.c[n]) ** 2).mean() for m, n in pairs)
        own = sum((cosine(self.c[m], self.d[m]) ** 2).mean() for m in self.count)
        apart = sum((cosine(self.d[m], self.d[n]) ** 2).mean() for m, n in pairs)
        return float(agree + own + apart)


def cosine(a: Array, b: Array) -> Array:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("term", TERMS)
def test_each_term_is_the_one_of_the_page(term: str, modalities: int) -> None:
    batch = draw_batch(shapes=dict(list(SHAPES.items())[:modalities]))
    torch.manual_seed(1)
    hand = ByHand(begun(batch), batch)
    assert loss(batch).item() == pytest.approx(hand.cross_entropy(), rel=1e-6)
    expected = getattr(hand, term)()
    assert (expected == 0) == (modalities == 1 and term == "cross")
    assert loss(batch, **{term: 0.7}).item() == pytest.approx(hand.cross_entropy() + 0.7 * expected, rel=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    batch = draw_batch()
    plain = loss(batch)
    alone = sum(loss(batch, **{term: weight}) - plain for term, weight in zip(TERMS, (0.5, 0.2, 0.1, 3.0), strict=True))
    together = loss(batch, reconstruction=0.5, cross=0.2, divergence=0.1, separation=3.0)
    torch.testing.assert_close(together, plain + alone)


def test_the_divergence_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.randn(3, 7, 8), torch.randn(3, 7, 8)
    terms = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0, 1))
    torch.testing.assert_close(divergence(mean, log_variance), terms.sum((0, 2)).mean())
    assert divergence(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)) == 0


def test_equal_common_codes_and_orthogonal_others_cost_nothing() -> None:
    one, two, three = torch.eye(3)
    common, distinctive = one.expand(2, 5, 3), torch.stack([two, three])[:, None].expand(2, 5, 3)
    assert separation(common, distinctive) == 0
    apart = torch.stack([one, 3 * one])[:, None].expand(2, 5, 3)
    assert separation(apart, distinctive).item() == pytest.approx(4 / 3)  # |(2, 0, 0)|^2, a mean over entries
    assert separation(common, two.expand(2, 5, 3)).item() == pytest.approx(1)  # the distinctive codes agree
    assert separation(common, -torch.stack([one, two])[:, None].expand(2, 5, 3)).item() == pytest.approx(1)
    assert separation(common, torch.zeros(2, 5, 3)) == 0


@pytest.mark.parametrize(("rebuilt", "helper"), [(0, 1), (0, 2), (2, 0), (1, 1)])
def test_cross_reconstruction_joins_the_common_code_of_one_with_the_distinctive_code_of_another(
    rebuilt: int, helper: int
) -> None:
    batch = draw_batch()
    model = begun(batch)
    tables = model.tables(batch.inputs)
    common, distinctive = model.encode(tables)[0].chunk(2, -1)
    model.errors(tables, common, distinctive)[rebuilt, helper].backward()
    half = common.shape[2]
    moved = [(moves(one.mean.weight, 0, half), moves(one.mean.weight, half, 2 * half)) for _, one in model._each()]
    assert moved == [(m == helper, m == rebuilt) for m in range(3)]  # gradients of (c_m, d_m)
    decoders = [moves(one.decoder[0].weight, 0, 8) for _, one in model._each()]
    assert decoders == [m == rebuilt for m in range(3)]


def moves(weight: Tensor, start: int, end: int) -> bool:
    return weight.grad is not None and bool(weight.grad[start:end].abs().sum() > 0)


def test_the_cross_term_alone_trains_the_encoders_of_the_others() -> None:
    batch = draw_batch()
    with_it, without = (begun(batch, **{**SILENT, "cross": weight}) for weight in (1.0, 0.0))
    without.load_state_dict(with_it.state_dict())
    for model in (with_it, without):
        (mmdvae_loss(model, batch, 0.0) - batch.cross_entropy(model(batch.inputs))).backward()
    assert all(moves(one.mean.weight, 0, 3) and moves(one.mean.weight, 3, 6) for _, one in with_it._each())
    assert not any(p.grad is not None and p.grad.abs().max() > 1e-7 for p in without.parameters())


# Chance


def test_training_draws_from_the_code_and_prediction_does_not() -> None:
    batch = draw_batch()
    model = begun(batch)
    model.head.dropout.p = 0.0
    results = {}
    for training in (True, False):
        model.train(training)
        for seed in (0, 1):
            with seeded(seed):
                results[training, seed] = (mmdvae_loss(model, batch, 0.0).item(), model(batch.inputs))
    assert results[True, 0][0] != results[True, 1][0]
    assert results[False, 0][0] == results[False, 1][0]
    assert all(torch.equal(logits, results[False, 0][1]) for _, logits in results.values())


def test_a_draw_has_the_mean_and_the_variance_of_the_code() -> None:
    mean, log_variance = torch.tensor([[[-1.0, 3.0]]]), torch.tensor([[[0.5, -2.0]]])
    drawn = draw(mean.expand(1, 40_000, 2), log_variance.expand(1, 40_000, 2))
    torch.testing.assert_close(drawn.mean(1), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(1), log_variance[0].exp(), rtol=0.05, atol=0)


def test_the_variance_stays_finite() -> None:
    batch = draw_batch()
    model = begun(batch)
    with torch.no_grad():
        for _, one in model._each():
            one.log_variance.weight.mul_(1e6)
    log_variance = model.encode(model.tables(batch.inputs))[1]
    assert log_variance.abs().max() == LOG_VARIANCE
    assert torch.isfinite(mmdvae_loss(model.train(), batch, 0.0))
    assert torch.isfinite(log_variance.exp().half()).all()


# Statistics and selection


def test_features_are_standardised_by_the_training_part_and_clipped() -> None:
    rows, labels = torch.randn(50, 4).double() * 7 + 1000, torch.arange(50) % 2
    standardised = Standardised(4, 0).double()
    standardised.fit(rows, labels)
    new = torch.randn(9, 4).double() * 7 + 1000
    new[0, 0], new[1, 1] = 1e9, -1e9
    expected = ((new - rows.mean(0)) / rows.std(0, correction=0)).clamp(-CLIP, CLIP)
    torch.testing.assert_close(standardised(new[..., None, None, None]), expected)
    assert standardised(new)[0, 0] == 5
    assert standardised(new)[1, 1] == -5


def test_a_constant_feature_says_nothing_whatever_a_test_subject_has() -> None:
    batch = draw_batch()
    batch.inputs["t1ce"][:, 2] = 0.1
    model = begun(batch)
    others = {name: x.clone() for name, x in batch.inputs.items()}
    others["t1ce"][:, 2] = 77.0
    assert torch.equal(model(others), model(batch.inputs))
    assert torch.isfinite(mmdvae_loss(model, batch, 0.0))


def test_selection_finds_the_informative_columns() -> None:
    labels = torch.arange(60) % 3
    rows = torch.randn(60, 30)
    for column, strength in {4: 2.0, 17: -3.0, 29: 2.5}.items():
        rows[:, column] += strength * (labels == 1)
    rows[:, 8] = 1.0
    few = Standardised(30, 3)
    few.fit(rows * torch.logspace(-6, 6, 30), labels)
    assert few.chosen.tolist() == [4, 17, 29]
    assert few(rows[..., None, None, None]).shape == (60, 3)
    all_of_them = Standardised(30, 99)
    all_of_them.fit(rows, labels)
    assert all_of_them.chosen.tolist() == list(range(30))


def test_the_score_is_the_f_of_an_analysis_of_variance() -> None:
    rows, labels = torch.randn(40, 6).double(), torch.arange(40) % 3
    expected = f_classif(rows.numpy(), labels.numpy())[0]
    rows[:, 2] = 5.0
    rows[:, 4] = labels.double()
    scores = univariate_scores(rows, labels)
    np.testing.assert_allclose(scores[[0, 1, 3, 5]], expected[[0, 1, 3, 5]])
    assert scores[2] == -1
    assert scores[4] == scores.max() > 1e6
    assert univariate_scores(rows, torch.zeros(40)).tolist() == [-1.0] * 6  # one class: no order, and no crash


def test_all_is_learned_from_the_training_part(cohort: Cohort, store: Store) -> None:
    study = open_study(quick("mmdvae", options={"mmdvae": {"top": 2, "width": 8}}), cohort=cohort)
    run(study, store)
    for job in plan(study).jobs:
        training = [cohort.subject(id) for id in job.fit.split.training]
        state = store.weights(job.key)
        for m, name in enumerate(modality.name for modality in job.fit.modalities):
            rows = np.array([subject.features[name] for subject in training], dtype=np.float32)
            scores = f_classif(rows, [subject.label for subject in training])[0]
            chosen = np.sort(np.argsort(-scores)[:2])
            own = {kind: state[f"autoencoders.{m}.standardised.{kind}"].numpy() for kind in ("chosen", "mean", "scale")}
            assert own["chosen"].tolist() == chosen.tolist()
            np.testing.assert_allclose(own["mean"], rows[:, chosen].mean(0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(own["scale"], 1 / rows[:, chosen].std(0), rtol=1e-5)


def test_the_size_and_order_of_the_batches_does_not_matter() -> None:
    batch = draw_batch(10)

    def some(rows: list[int]) -> Batch:
        inputs = {name: x[rows] for name, x in batch.inputs.items()}
        return Batch(tuple(batch.ids[n] for n in rows), inputs, batch.labels[rows], batch.weights[rows])

    def begin(cuts: list[list[int]]) -> dict[str, Tensor]:
        model = MmdVae(parts(), top=2)
        model.begin(Context({}, lambda: iter(map(some, cuts))))
        return {name: x for name, x in model.state_dict().items() if "standardised" in name}

    one, two = begin([list(range(10))]), begin([[7, 3, 9], [0, 1, 2, 4], [5, 6, 8]])
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected)


# What it learns


def quick(fusion: str, **changes: object) -> object:
    recipe = {"epochs": 20, "learning_rate": 2e-3, "weight_decay": 1e-3, "batch_size": 16}
    options = {"mmdvae": {"width": 32, "code": 8}}
    return comparison(**{"fusion": [fusion], "baselines": [], "recipe": recipe, "options": options, **changes})


def table_cohort(draw: Callable[[np.random.Generator, Array], Iterator[Array]], subjects: int = 120) -> Cohort:
    """A cohort of the tables that `draw` makes of labels of -1 and 1."""
    random = np.random.default_rng(5)
    signs = np.where(np.arange(subjects) % 3 == 0, 1.0, -1.0)
    tables = dict(zip("abc", draw(random, signs), strict=True))
    return Cohort(
        name="drawn",
        classes=("HGG", "LGG"),
        positive_class="LGG",
        modalities=tuple(Modality(name, "table", table.shape[1]) for name, table in tables.items()),
        subjects=tuple(
            Subject(
                f"s{n:03d}",
                "LGG" if signs[n] > 0 else "HGG",
                features={name: tuple(map(float, table[n])) for name, table in tables.items()},
            )
            for n in range(subjects)
        ),
    )


def score(cohort: Cohort, store: Store, **changes: object) -> float:
    """The mean ROC-AUC over the folds."""
    results = Run.of(run(open_study(quick("mmdvae", **changes), cohort=cohort), store)).results
    auc = metric("roc_auc")
    return float(np.mean([auc(result.predictions, cohort.positive_class) for result in results]))


def common_factor(random: np.random.Generator, signs: Array) -> Iterator[Array]:
    """All modalities see the label through one factor, each in its own noise."""
    for features in (12, 8, 10):
        factor = signs + 1.5 * random.normal(size=len(signs))
        yield factor[:, None] * random.normal(size=features) + 0.5 * random.normal(size=(len(signs), features))


def distinctive_factor(random: np.random.Generator, signs: Array) -> Iterator[Array]:
    """Modality b alone sees the label; a factor that all share says nothing of it."""
    shared = random.normal(size=len(signs))
    for name, features in (("a", 12), ("b", 8), ("c", 10)):
        table = shared[:, None] * random.normal(size=features) + 0.5 * random.normal(size=(len(signs), features))
        yield table + (1.0 * signs[:, None] * random.normal(size=features) if name == "b" else 0.0)


def test_it_pools_a_factor_that_all_modalities_see(store: Store) -> None:
    cohort = table_cohort(common_factor)
    together = score(cohort, store)
    assert together > 0.85
    assert all(together > score(cohort, store, modalities=[name]) for name in "abc")


def test_it_finds_a_factor_that_one_modality_sees(store: Store) -> None:
    assert score(table_cohort(distinctive_factor), store) > 0.9


# What it asks for


def test_it_asks_for_the_features_of_an_extractor_inside_the_outline() -> None:
    assert MmdVae.needs() == Needs(outlines="test", features="radiomics")
    assert MmdVae.needs(extractor="mirp", top=3) == Needs(outlines="test", features="mirp")


def test_the_table_of_options_in_the_page_is_that_of_describe() -> None:
    page = (Path(__file__).parent.parent / "docs" / "mmdvae.md").read_text(encoding="utf-8")
    table = page.partition("| option |")[2].partition("\n\n")[0].splitlines()[2:]
    documented = [[cell.strip() for cell in line.split("|")[1:3]] for line in table]
    assert documented == [[f"`{o.name}`", f"`{o.default}`"] for o in load_registry().get("fusion", "mmdvae").options]
