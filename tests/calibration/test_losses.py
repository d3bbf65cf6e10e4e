"""SCTL and its controls, against closed forms and PyTorch's own losses."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from assay.calibration.losses import (
    LOSSES,
    ClassBalancedCrossEntropy,
    ClassWiseLossScaling,
    FocalLoss,
    LabelSmoothing,
    Loss,
    as_loss,
)
from assay.errors import UserError


def batch(seed: int = 0, n: int = 60, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64) * 3
    return logits, torch.randint(classes, (n,), generator=generator)


def test_cross_entropy_and_label_smoothing_equal_pytorch():
    logits, labels = batch()
    assert torch.isclose(Loss()(logits, labels), functional.cross_entropy(logits, labels))
    theirs = functional.cross_entropy(logits, labels, label_smoothing=0.05)
    assert torch.isclose(LabelSmoothing()(logits, labels), theirs)


def test_class_balanced_cross_entropy_is_the_sum_of_the_means_per_class():
    logits, labels = batch()
    means = [functional.cross_entropy(logits[labels == k], labels[labels == k]) for k in range(4)]
    assert torch.isclose(ClassBalancedCrossEntropy()(logits, labels), torch.stack(means).sum())


def test_focal_loss_without_focus_is_cross_entropy_and_its_gradient_is_right():
    logits, labels = batch(n=8)
    assert torch.isclose(FocalLoss(gamma=0.0)(logits, labels), Loss()(logits, labels))
    assert torch.autograd.gradcheck(lambda z: FocalLoss()(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("normalisation", ["nd", "mm", "cm"])
def test_sctl_equals_its_formula_and_no_gradient_passes_through_the_weights(normalisation: str):
    logits, labels = batch()
    logits.requires_grad_()
    means = torch.stack([functional.cross_entropy(logits[labels == k], labels[labels == k]) for k in range(4)])
    values = means.detach().numpy()
    location = values.min() if normalisation == "mm" else values.mean()
    scale = values.std(ddof=1) if normalisation == "nd" else np.ptp(values)
    weights = 1 + 1.5 / (1 + np.exp(-(values - location) / scale / 0.7)) - 0.75
    expected = (torch.from_numpy(weights) * means).sum()
    loss = ClassWiseLossScaling(normalisation, alpha=0.7)(logits, labels)
    assert torch.isclose(loss, expected)
    assert torch.allclose(*(torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (loss, expected)))


@given(st.lists(st.floats(0.01, 20), min_size=1, max_size=20), st.floats(0.1, 3), st.floats(0, 2))
@settings(deadline=None)
def test_a_higher_class_loss_never_gets_less_weight_and_weights_stay_in_range(losses, alpha, beta):
    losses = torch.tensor(sorted(losses), dtype=torch.float64)
    for normalisation in ("nd", "mm", "cm"):
        weights = ClassWiseLossScaling(normalisation, alpha, beta).weights(losses, torch.ones(len(losses)))
        assert (weights.diff() >= -1e-12).all()
        assert (weights >= 1 - beta / 2 - 1e-12).all()
        assert (weights <= 1 + beta / 2 + 1e-12).all()


@pytest.mark.parametrize("name", LOSSES)
def test_an_absent_class_is_left_out_and_a_lone_class_gets_weight_one(name: str):
    logits, labels = batch()
    present = labels != 2
    losses, counts = as_loss(name).class_losses(logits[present], labels[present])
    assert len(losses) == len(counts) == 3
    assert torch.isfinite(as_loss(name)(logits[present], labels[present]))
    lone = as_loss(name)(logits[labels == 1], labels[labels == 1])
    assert torch.isclose(lone, as_loss(name).sample_losses(logits[labels == 1], labels[labels == 1]).mean())


def test_the_strength_minimises_the_authors_residual_within_its_bounds():
    first, labels = batch(1)
    second = first / 1.02
    fitted = ClassWiseLossScaling().adapted(first, second, labels)
    before = Loss().class_losses(first, labels)[0].numpy()
    after = Loss().class_losses(second, labels)[0].numpy()
    normal = (after - after.mean()) / after.std(ddof=1)

    def residual(alpha: float, beta: float) -> float:
        scale = beta / (1 + np.exp(-normal / alpha)) - beta / 2
        return float(np.linalg.norm(before - scale * (after - before) - after.mean()))

    grid = [(a, b) for a in np.linspace(0.1, math.log(4) / 2, 40) for b in np.linspace(1.5, 2, 11)]
    assert residual(fitted.alpha, fitted.beta) <= min(residual(a, b) for a, b in grid) + 1e-9
    assert 0.1 <= fitted.alpha <= math.log(4) / 2
    assert 1.5 <= fitted.beta <= 2
    assert not fitted.adapts


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="alpha must be > 0"):
        ClassWiseLossScaling(alpha=0)
    with pytest.raises(UserError, match="There is no loss 'hinge'"):
        as_loss("hinge")
