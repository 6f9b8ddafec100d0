"""The logistic regression is scikit-learn's, fitted on the training part alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fusionbench import Backbone, Batch, Context, Parts
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.backbones.mlp import Mlp
from fusionbench_plugins.fusion.logistic import Logistic

SHAPES = {"rna": 4, "clinical": 3}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def parts(classes: int) -> Parts:
    def backbone(names: tuple[str, ...], channels: int) -> Backbone:
        return Mlp(channels)

    return Parts(tuple(SHAPES), tuple("xyz"[:classes]), SHAPES, backbone, NoAttention)


def draw(subjects: int, classes: int) -> tuple[dict[str, Tensor], Tensor]:
    """Features of very different scales, that say something of the class."""
    labels = torch.arange(subjects) % classes
    scales = {"rna": torch.logspace(-2, 2, 4), "clinical": torch.logspace(1, 3, 3)}
    inputs = {
        name: ((torch.randn(subjects, n) + 0.5 * labels[:, None]) * scales[name] + 3 * scales[name])[
            ..., None, None, None
        ]
        for name, n in SHAPES.items()
    }
    return inputs, labels


def fitted(inputs: dict[str, Tensor], labels: Tensor, classes: int, size: int = 7, c: float = 1.0) -> Logistic:
    def training() -> Iterator[Batch]:
        for some in torch.arange(len(labels)).split(size):
            ids = tuple(f"s{n}" for n in some.tolist())
            some_inputs = {name: x[some] for name, x in inputs.items()}
            yield Batch(ids, some_inputs, labels[some], torch.ones(len(some)))

    model = Logistic(parts(classes), c=c).eval()
    model.begin(Context({}, training))
    return model


def table(inputs: dict[str, Tensor]) -> np.ndarray:
    return torch.cat([inputs[name].flatten(1) for name in SHAPES], 1).double().numpy()


def probabilities(model: Logistic, inputs: dict[str, Tensor]) -> np.ndarray:
    return model(inputs).double().softmax(1).numpy()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [0.1, 1.0])
def test_it_predicts_what_scikit_learn_predicts(classes: int, c: float) -> None:
    training, labels = draw(60, classes)
    test, _ = draw(25, classes)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
    reference.fit(table(training), labels.numpy())
    found = probabilities(fitted(training, labels, classes, c=c), test)
    np.testing.assert_allclose(found, reference.predict_proba(table(test)), atol=2e-6)


def test_the_size_of_the_batches_does_not_matter() -> None:
    training, labels = draw(30, 2)
    one, two = fitted(training, labels, 2, size=1), fitted(training, labels, 2, size=30)
    assert all(torch.equal(ours, two.state_dict()[name]) for name, ours in one.state_dict().items())


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_feature_says_nothing(value: float) -> None:
    training, labels = draw(40, 2)
    training["rna"][:, 1] = value
    test, _ = draw(10, 2)
    test["rna"][:, 1] = value
    without = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    without.fit(np.delete(table(training), 1, 1), labels.numpy())
    found = probabilities(fitted(training, labels, 2), test)
    np.testing.assert_allclose(found, without.predict_proba(np.delete(table(test), 1, 1)), atol=1e-5)


def test_its_statistics_are_those_of_the_training_part_and_prediction_moves_nothing() -> None:
    training, labels = draw(40, 2)
    model = fitted(training, labels, 2)
    np.testing.assert_allclose(model.mean.numpy(), table(training).mean(0), rtol=1e-6)
    np.testing.assert_allclose(model.std.numpy(), table(training).std(0), rtol=1e-6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model({name: 1000 * x for name, x in draw(9, 2)[0].items()})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_saved_state_predicts_the_same() -> None:
    training, labels = draw(40, 3)
    model, again = fitted(training, labels, 3), Logistic(parts(3)).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(training), model(training))


def test_a_subject_is_predicted_alike_alone_and_in_company() -> None:
    training, labels = draw(40, 2)
    model = fitted(training, labels, 2)
    alone = torch.cat([model({name: x[[n]] for name, x in training.items()}) for n in range(40)])
    torch.testing.assert_close(alone, model(training))


def test_it_has_nothing_to_train_and_takes_tables_only() -> None:
    assert Logistic(parts(2)).stages() == ()
    assert list(Logistic(parts(2)).parameters()) == []
    assert Logistic.accepts == {"table"}


@pytest.mark.parametrize("present", [(0, 1), (0, 2), (1, 2)])
def test_a_class_that_the_training_part_lacks_is_never_taken_for_another(present: tuple[int, int]) -> None:
    training, binary = draw(60, 2)
    labels = torch.tensor(present)[binary]
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    reference.fit(table(training), labels.numpy())
    found = probabilities(fitted(training, labels, 3), training)[:, list(present)]
    np.testing.assert_allclose(found, reference.predict_proba(table(training)), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_its_parameters_are_the_coefficients_and_intercepts_of_scikit_learn(classes: int) -> None:
    inputs, labels = draw(60, classes)
    theirs = LogisticRegression(max_iter=5000).fit(StandardScaler().fit_transform(table(inputs)), labels.numpy())
    assert fitted(inputs, labels, classes).parameter_count == theirs.coef_.size + theirs.intercept_.size
