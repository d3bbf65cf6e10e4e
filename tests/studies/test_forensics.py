"""The forensics study: its arms, its metrics under resampling, its verdicts."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from assay.errors import AssayError, UserError
from assay.evaluation import Replicates
from assay.forensics import DetectorConfig
from assay.studies import forensics_grid
from assay.studies.cells import Cells
from assay.studies.forensics import (
    ARMS,
    CLAIMS,
    METRICS,
    SIMULATED,
    UPSAMPLERS,
    Arm,
    ArmResult,
    Claim,
    choose_arms,
    decide,
)
from assay.studies.forensics_data import Bench, Design, Source, category_sets, encode_and_decode
from assay.studies.forensics_metrics import RANKING_METRICS, Scores, measure, resample
from assay.studies.workers import Workers


def test_arms_are_detectors_that_can_be_trained_and_differ():
    settings = [(arm.method, tuple(sorted(arm.options.items(), key=str))) for arm in ARMS]
    assert len({arm.key for arm in ARMS}) == len({str(one) for one in settings}) == len(ARMS)
    for arm in ARMS:
        DetectorConfig.parse({"method": arm.method, "options": dict(arm.options)}, where=arm.key)


def test_every_claim_compares_two_arms_that_have_its_metric():
    arms = {arm.key: arm for arm in ARMS}
    for claim in CLAIMS:
        pair = arms[claim.arm], arms[claim.against]
        assert claim.metric in METRICS or all(arm.shifted for arm in pair)
    assert set(SIMULATED) <= set(arms)
    for simulated in SIMULATED.values():
        assert set(simulated) <= {kind for kinds in UPSAMPLERS.values() for kind in kinds}


@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
def test_metrics_on_resampled_images_are_those_of_scikit_learn(digits):
    generator = np.random.default_rng(0)
    real = generator.normal(size=120).round(digits)
    generated = {name: generator.normal(shift, size=90).round(digits) for name, shift in (("a", 0.5), ("b", 2))}
    real_weights = resample(120, 4, generator)
    weights = {name: resample(90, 4, generator) for name in generated}
    found = measure(Scores(real, generated, 0.3), real_weights, weights)
    assert found.shape == (len(RANKING_METRICS), 2, 4)
    for column, name in enumerate(generated):
        labels = np.repeat([0, 1], [120, 90])
        scores = np.concatenate([real, generated[name]])
        for replicate in range(4):
            weight = np.concatenate([real_weights[:, replicate], weights[name][:, replicate]])
            ap, auc, at_half, accuracy, on_real, on_generated = found[:, column, replicate]
            assert ap == pytest.approx(average_precision_score(labels, scores, sample_weight=weight), abs=1e-5)
            assert auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight), abs=1e-5)
            drawn = np.repeat(real, real_weights[:, replicate].astype(int))
            assert on_real == pytest.approx((drawn < 0.3).mean())
            drawn = np.repeat(generated[name], weights[name][:, replicate].astype(int))
            assert on_generated == pytest.approx((drawn >= 0.3).mean())
            assert accuracy == pytest.approx((on_real + on_generated) / 2)
            # Scores are logits: a probability of 0.5 is 0.
            assert at_half == pytest.approx(
                (average_of(real < 0, real_weights[:, replicate]) + (drawn >= 0).mean()) / 2, abs=1e-6
            )


def average_of(right: np.ndarray, weights: np.ndarray) -> float:
    return float((right * weights).sum() / weights.sum())


def test_categories_trained_on_are_nested_and_never_tested_on():
    for seed in range(5):
        known, others = category_sets(10, [1, 2, 4], seed)
        assert [len(known[n]) for n in (1, 2, 4)] == [1, 2, 4]
        assert set(known[1]) < set(known[2]) < set(known[4])
        assert sorted(known[4] + others) == list(range(10))
    with pytest.raises(UserError, match="leave none to test on"):
        category_sets(4, [1, 4], seed=0)


@pytest.fixture
def source() -> Source:
    """A source in which every image is another number."""
    pools = ("generators", "train", "validation", "calibration", "test")
    values = torch.arange(5 * 40).reshape(5, 40, 1, 1, 1).expand(-1, -1, 1, 8, 8).to(torch.uint8)
    labels = np.arange(40) % 4
    return Source("numbers", "1", "png", dict(zip(pools, values, strict=True)), dict.fromkeys(pools, labels))


def bench_of(source: Source, folder, **design) -> Bench:
    sizes = {"train": 20, "held_out": 8, "test": 16, "generator_images": 30, "category_train": 10} | design
    return Bench(Cells(folder), (source.name, source.revision), source.codec, Design(**sizes))


def test_real_images_are_drawn_once_for_a_seed_and_from_their_own_pool(source, tmp_path):
    bench = bench_of(source, tmp_path)
    with pytest.raises(AssayError, match="were never drawn"):
        bench.real(0)
    drawn = bench.real(0, source=source)
    assert {pool: len(images) for pool, images in drawn.items()} == {
        "generators": 30, "train": 20, "validation": 8, "calibration": 8, "test": 16,
    }  # fmt: skip
    for index, pool in enumerate(drawn):
        values = drawn[pool][:, 0, 0, 0].int()
        assert len(values.unique()) == len(values)
        assert bool((values // 40 == index).all())
    assert all(torch.equal(images, drawn[pool]) for pool, images in bench.real(0).items())
    assert not torch.equal(bench.real(1, source=source)["test"], drawn["test"])

    few = bench.real(0, [1, 3], source)
    assert set((few["train"][:, 0, 0, 0] % 2).tolist()) == {1}
    with pytest.raises(UserError, match="has 10 images for 'train' and the study needs 20"):
        bench_of(source, tmp_path, category_train=20).real(0, [2], source)


def test_only_a_jpeg_source_is_encoded_again():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert encode_and_decode(images, "png") is images
    again = encode_and_decode(images, "jpeg")
    assert again.shape == images.shape
    assert not torch.equal(again, images)


def fake_score(quality: dict[str, float]):
    """Return a stand-in for `score` whose arms separate the classes as well as ``quality`` says."""

    def score(bench: Bench, arm: Arm, seed: int, detector_seed: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng([seed, detector_seed])
        names = bench.design.generators
        found = {f"generated/{name}": generator.normal(quality[arm.key], size=150) for name in names}
        return {**found, "real": generator.normal(size=200), "threshold": np.array(0.5), "seconds": np.array(1.0)}

    return score


def test_an_arm_is_the_mean_over_seeds_and_unseen_generators_and_is_paired_with_another(source, tmp_path, monkeypatch):
    score = fake_score({"good": 2.0, "poor": 1.0, "same": 1.0})
    monkeypatch.setattr(forensics_grid, "score", score)
    bench = bench_of(source, tmp_path, generator_seeds=3, detector_seeds=2, generators=("dcgan", "nearest", "vae"))
    arms = {key: Arm(key, key, "baseline", "rgb") for key in ("good", "poor", "same")}
    results = {key: forensics_grid.judge_arm(bench, arm, 4, 300) for key, arm in arms.items()}
    expected = []
    for seed in range(3):
        for detector_seed in range(2):
            one = score(bench, arms["good"], seed, detector_seed)
            labels = np.repeat([0, 1], [200, 150])
            for name in ("nearest", "vae"):
                scores = np.concatenate([one["real"], one[f"generated/{name}"]])
                expected.append(average_precision_score(labels, scores))
    assert results["good"].estimate("unseen_ap").value == pytest.approx(np.mean(expected), abs=1e-5)

    told = [Claim("", *pair) for pair in (("good", "poor"), ("poor", "good"), ("poor", "same"), ("good", "absent"))]
    judged = list(decide(list(results.values()), told))
    assert [one.verdict for one in judged] == ["holds", "refuted", "undecided"]
    assert (judged[2].difference.low, judged[2].difference.high) == (0.0, 0.0)


def test_a_claim_about_shifts_needs_arms_that_were_shifted():
    arm, other = choose_arms(["rgb", "radial"])
    numbers = Replicates(np.array([0.5]), np.array([[0.5, 0.5]]))
    results = [ArmResult(arm, {"colour_ap": numbers}, 1.0), ArmResult(other, {"unseen_ap": numbers}, 1.0)]
    assert list(decide(results, [Claim("", "rgb", "radial", "colour_ap")])) == []


def test_an_unknown_arm_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"There is no arm 'magic': the arms are rgb, .*npr"):
        choose_arms(["rgb", "magic"])


def test_several_processes_give_the_results_in_order_and_pass_errors_on():
    with Workers(2) as workers:
        assert workers.map(pow, [(n, 2) for n in range(5)], title="squares") == [0, 1, 4, 9, 16]
        with pytest.raises(ZeroDivisionError):
            workers.map(divmod, [(1, 1), (1, 0)], title="quotients")
