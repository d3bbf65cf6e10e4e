"""Calibrators: they find what is known to be there, they converge, and edge cases have an outcome."""

import numpy as np
import pytest
import torch
from netcal.scaling import TemperatureScaling as NetcalTemperatureScaling
from scipy.optimize import minimize_scalar
from torch.nn import functional

from assay.calibration import (
    LOSSES,
    Calibrator,
    ClassTemperatureScaling,
    ClassWiseLossScaling,
    EnsembleLogitScaling,
    EnsembleTemperatureScaling,
    ParameterizedTemperatureScaling,
    TemperatureScaling,
    VectorScaling,
)
from assay.calibration.table import softmax
from assay.errors import UserError
from assay.evaluation import METRICS

SMOOTH = [name for name in Calibrator.registry if name != "pts"]
KEEP_CLASS = ["ts", "ets", "ets_logits", "pts"]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 8.0])
def test_the_temperature_of_a_known_model_is_found(sample, temperature: float):
    logits, labels = sample(8000, temperature=temperature)
    for loss in ("cross_entropy", "class_balanced", "sctl_nd"):
        assert TemperatureScaling().fit(logits, labels, loss).temperature.item() == pytest.approx(temperature, rel=0.05)


def test_temperature_equals_netcal_and_a_scalar_search_of_the_plain_parameterisation(sample):
    logits, labels = sample(1500)
    found = TemperatureScaling().fit(logits, labels).temperature.item()
    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    plain = minimize_scalar(
        lambda t: functional.cross_entropy(z / t, y).item(), bounds=(0.1, 10), options={"xatol": 1e-9}
    )
    assert found == pytest.approx(plain.x, rel=1e-5)
    netcal = NetcalTemperatureScaling()
    netcal.fit(softmax(z), labels)
    assert found == pytest.approx(1 / netcal.temperature.item(), rel=1e-3)


@pytest.mark.parametrize("normalisation", ["nd", "mm", "cm"])
@pytest.mark.parametrize("calibrator", [TemperatureScaling, ClassTemperatureScaling])
def test_full_steps_find_what_the_authors_small_steps_find(sample, calibrator, normalisation: str):
    prior = np.array([1, 0.5, 0.25, 0.1, 0.05])
    logits, labels = sample(1000, prior=prior)
    fitted = calibrator().fit(logits, labels, ClassWiseLossScaling(normalisation))
    assert fitted.fit_report.converged
    loss = fitted.fit_report.loss
    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    temperature = torch.ones(fitted.free.shape, dtype=torch.float64, requires_grad=True)
    slow = torch.optim.LBFGS([temperature], lr=0.02, max_iter=1000, tolerance_change=1e-12)

    def closure():
        slow.zero_grad()
        value = loss(z / temperature, y)
        value.backward()
        return value

    slow.step(closure)
    assert fitted.temperature.detach().numpy() == pytest.approx(temperature.detach().numpy(), rel=2e-3)


@pytest.mark.parametrize(
    ("name", "loss"),
    [(n, k) for n in SMOOTH for k in LOSSES if not (n in ("vs", "ms") and k.startswith("sctl"))],
)
def test_every_smooth_fit_converges_and_is_deterministic(sample, name: str, loss: str):
    logits, labels = sample(600, classes=4)
    first, second = (Calibrator.registry[name]().fit(logits, labels, loss) for _ in range(2))
    assert first.fit_report.converged, first.fit_report
    assert np.array_equal(first.transform(logits), second.transform(logits))


def test_sctl_has_no_fixed_point_once_biases_can_make_all_class_losses_equal(sample):
    """Normalised losses jump where the losses meet; the fit says so, and its result is still usable."""
    logits, labels = sample(600, classes=4)
    fitted = VectorScaling().fit(logits, labels, "sctl_nd")
    assert not fitted.fit_report.converged
    losses, _ = fitted.fit_report.loss.class_losses(fitted(torch.from_numpy(logits)), torch.from_numpy(labels))
    assert losses.max() - losses.min() < 0.05 * losses.mean()


@pytest.mark.parametrize("name", Calibrator.registry)
def test_calibration_lowers_nll_and_ece_of_an_overconfident_model(sample, name: str):
    (logits, labels), (held_out, truth) = sample(2000), sample(2000, seed=1)
    fitted = Calibrator.registry[name]().fit(logits, labels)
    before, after = softmax(torch.from_numpy(held_out)), softmax(torch.from_numpy(fitted.transform(held_out)))
    for metric in ("nll", "ece", "brier"):
        assert METRICS[metric](after, truth) < METRICS[metric](before, truth)
    if name in KEEP_CLASS:
        assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def test_more_parameters_fit_the_fitting_sample_no_worse(sample):
    logits, labels = sample(500)
    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    losses = [
        functional.cross_entropy(Calibrator.registry[name]().fit(z, y).transform(z), y).item()
        for name in ("ts", "cts", "vs", "ms")
    ]
    assert losses[0] + 1e-9 >= losses[1]
    assert losses[1] + 1e-9 >= losses[2]
    assert losses[2] + 1e-6 >= losses[3]


def test_the_ensemble_of_logits_is_temperature_scaling(sample):
    logits, labels = sample(500)
    for loss in ("cross_entropy", "sctl_nd"):
        ts, ensemble = (cls().fit(logits, labels, loss) for cls in (TemperatureScaling, EnsembleLogitScaling))
        theirs, ours = (softmax(torch.from_numpy(each.transform(logits))) for each in (ts, ensemble))
        assert np.abs(theirs - ours).max() < 1e-3


def test_the_ensemble_mixes_probabilities_on_the_simplex(sample):
    logits, labels = sample(500)
    fitted = EnsembleTemperatureScaling().fit(logits, labels)
    z, (w1, w2, w3) = torch.from_numpy(logits), fitted.weights.tolist()
    mixed = w1 * softmax(z / fitted.temperature.detach()) + w2 * softmax(z) + w3 / logits.shape[1]
    assert softmax(torch.from_numpy(fitted.transform(logits))) == pytest.approx(mixed)
    assert min(w1, w2, w3) >= 0


def test_a_vanishing_gradient_far_away_is_not_taken_for_a_minimum(sample):
    """Full steps can throw a mixture to w3 = 1, where nothing changes any more."""
    for seed in range(10):
        logits, labels = sample(60, classes=10, temperature=0.5, seed=seed)
        for loss in ("label_smoothing", "cross_entropy"):
            fitted = EnsembleTemperatureScaling().fit(logits, labels, loss)
            z, y = torch.from_numpy(logits), torch.from_numpy(labels)
            objective = fitted.fit_report.loss
            assert objective(fitted(z), y) <= objective(z, y) + 1e-4
            assert (fitted(z).argmax(dim=1) == z.argmax(dim=1)).all()


def test_pts_has_a_positive_temperature_of_its_own_for_every_row(sample):
    generator = np.random.default_rng(0)
    logits, labels = sample(2000, classes=12)
    noisy = generator.random(2000) < 0.5  # the sure rows are wrong at random: they need another temperature
    logits[noisy] *= 3
    fitted = ParameterizedTemperatureScaling().fit(logits, labels)
    temperature = fitted.temperature(torch.from_numpy(logits)).detach()
    assert (temperature > 0).all()
    assert temperature[noisy].mean() > 1.3 * temperature[~noisy].mean()


def test_vector_scaling_repairs_a_shifted_prior(sample):
    prior = np.array([5.0, 1, 1, 1, 0.2])
    logits, labels = sample(8000, temperature=1.0, prior=prior)
    shift = VectorScaling().fit(logits, labels).shift.detach().numpy()
    assert shift - shift.mean() == pytest.approx(np.log(prior) - np.log(prior).mean(), abs=0.2)


@pytest.mark.parametrize("name", Calibrator.registry)
@pytest.mark.parametrize("loss", LOSSES)
def test_edge_cases_have_a_finite_outcome(sample, name: str, loss: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("assay.calibration.optimise.ITERATIONS", 60)
    two, of_two = sample(40, classes=2)
    absent, of_some = sample(60, classes=4)
    cases = {
        "one class": (np.ones((5, 1)), np.zeros(5, int)),
        "two classes": (two, of_two),
        "an absent class": (absent[of_some != 3], of_some[of_some != 3]),
        "labels of one class": (absent, np.ones(60, int)),
        "separable": (np.eye(3)[np.arange(30) % 3] * 9, np.arange(30) % 3),
        "one row": (np.array([[1.0, 2.0]]), np.array([0])),
        "equal logits": (np.zeros((6, 3)), np.arange(6) % 3),
    }
    for case, (logits, labels) in cases.items():
        fitted = Calibrator.registry[name]().fit(logits, labels, loss)
        assert np.isfinite(fitted.transform(logits)).all(), case


def test_separable_data_and_random_labels_bound_the_temperature():
    logits, labels = np.eye(3)[np.arange(30) % 3] * 9, np.arange(30) % 3
    certain = TemperatureScaling().fit(logits, labels)
    assert 1e-3 <= certain.temperature.item() < 1
    assert certain.fit_report.converged
    wrong = TemperatureScaling().fit(logits, (labels + 1) % 3)
    assert 20 < wrong.temperature.item() <= 1000


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), [0, 1], "Row 1 of the logits holds nan"),
        (np.array([[0.0, -np.inf], [1.0, 0.0]]), [0, 1], "Row 0 of the logits holds -inf"),
        (np.empty((0, 3)), [], "shape"),
        (np.zeros((2, 2)), [0, 2], "Label 2 in row 1"),
        (np.zeros((2, 2)), [0], "labels have shape"),
        (np.zeros(4), [0], "shape"),
    ],
)
def test_bad_logits_end_in_a_sentence(logits, labels, sentence: str):
    with pytest.raises(UserError, match=sentence):
        TemperatureScaling().fit(logits, np.array(labels, dtype=int))


@pytest.mark.parametrize("name", Calibrator.registry)
def test_a_saved_calibrator_answers_the_same_and_exports_with_any_batch(sample, tmp_path, name: str):
    logits, labels = sample(200, classes=12)
    fitted = Calibrator.registry[name]().fit(logits, labels)
    fitted.save(tmp_path / "calibrator")
    loaded = Calibrator.load(tmp_path / "calibrator")
    assert type(loaded) is type(fitted)
    assert np.array_equal(loaded.transform(logits), fitted.transform(logits))
    z = torch.from_numpy(logits).float()
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(loaded.eval(), (z[:4],), dynamic_shapes=({0: batch},)).module()
    assert torch.allclose(exported(z[:7]), loaded(z[:7]))
    assert loaded(z).dtype == torch.float32


def test_what_is_not_a_calibrator_is_refused(tmp_path, sample):
    with pytest.raises(UserError, match="does not hold a calibrator"):
        Calibrator.load(tmp_path)
    with pytest.raises(UserError, match="has not been fitted"):
        TemperatureScaling().transform(np.zeros((1, 2)))
    with pytest.raises(UserError, match="nothing to save"):
        TemperatureScaling().save(tmp_path / "x")
    with pytest.raises(UserError, match="fitted on K = 5"):
        TemperatureScaling().fit(*sample(50)).transform(np.zeros((1, 2)))
