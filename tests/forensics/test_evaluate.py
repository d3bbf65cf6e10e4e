"""Detectors are compared, and the best is kept, by the rule that was written down first."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from assay.data import write_dataset
from assay.errors import AssayError, UserError
from assay.forensics import Detector, DetectorConfig, evaluate, fit_detector
from assay.forensics.corpus import load_split, seen_generators
from assay.forensics.decision import Decision
from assay.forensics.evaluate import DetectionEvaluationConfig, compare_detectors, distinct_names, evaluate_detectors

QUICK = {"replicates": 50, "shift_images": 10, "worst": 3}
SETTINGS = DetectionEvaluationConfig(**QUICK)


@pytest.fixture(scope="module")
def detectors(detection_data, tmp_path_factory) -> dict[str, Path]:
    """Two detectors that were fitted, and one that knows nothing."""
    folder = tmp_path_factory.mktemp("detectors")
    seen = seen_generators(detection_data)
    train, validation = (load_split(detection_data, name, generators=seen) for name in ("train", "validation"))
    made = {
        "radial": fit_detector(train, DetectorConfig(method="radial"), calibration=validation),
        "rgb": fit_detector(train, DetectorConfig(method="rgb", epochs=4, batch_size=64), calibration=validation),
        "ignorant": Detector(DetectorConfig(method="rgb"), 1, (16, 16)),
    }
    made["ignorant"].slope.fill_(0)
    made["ignorant"].decision = Decision(0.5, 0.3, 0.7, 0.95)
    for name, detector in made.items():
        detector.save_pretrained(folder / name)
    return {name: folder / name for name in made}


@pytest.fixture
def run(tmp_path):
    def evaluate_all(dataset, folders, config=QUICK):
        names = {"model": "model", "predictions": "predictions.npz", "report": "report.html", "metrics": "metrics.json"}
        paths = {key: tmp_path / name for key, name in names.items()}
        return evaluate_detectors(dataset.path, list(folders), config, **paths)

    return evaluate_all


def test_the_best_is_kept_whole_and_its_predictions_are_those_a_gate_reads(
    run, detection_data, detectors, tmp_path, capsys
):
    from assay.registry.gate import _read_predictions

    summary = run(detection_data, detectors.values())
    assert json.loads((tmp_path / "metrics.json").read_text()) == summary
    found = compare_detectors(detection_data, list(detectors.values()), SETTINGS)
    assert found.best is not None and found.best.folder in (detectors["radial"], detectors["rgb"])
    for file in found.best.folder.iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes()

    test = detection_data.split("test")
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert file["class_names"].tolist() == ["real", "generated"]
        assert np.array_equal(file["labels"], test.labels) and np.array_equal(file["sample_ids"], test.sample_ids)
    probabilities = _read_predictions(tmp_path / "predictions.npz", test)
    scores = Detector.from_pretrained(tmp_path / "model").score(test.images)
    np.testing.assert_allclose(probabilities[:, 1], scores, atol=1e-6)

    best = found.best.name
    assert summary["mean_ap"] == summary[f"mean_ap_{best}"] == found.best.mean_ap.value
    assert summary["ap_coarse_unseen"] == summary["mean_ap"] and 0 <= summary["ap_blocks_seen"] <= 1
    assert summary["mean_ap_low"] <= summary["mean_ap"] <= summary["mean_ap_high"]
    assert summary["drift_png"] < 1e-6 < summary["drift_jpeg_90"] and summary["unseen_generators"] == 1
    printed = capsys.readouterr().out
    assert "coarse (unseen)" in printed and "blocks (seen)" in printed and f"kept: {best}" in printed


def test_the_report_shows_every_detector_and_everything_about_the_best(run, detection_data, detectors, tmp_path):
    run(detection_data, detectors.values())
    page = (tmp_path / "report.html").read_text()
    for told in ("rgb 2", "mean AP over 1 unseen generators", "JPEG 90", "resized x2", "Spectra", "Failures", "ROC"):
        assert told in page, told
    assert page.count("<figure") >= 4
    assert "saturation" not in page, "grey images have no saturation"


def test_an_ignorant_detector_is_chance_everywhere_and_no_shift_moves_it(detection_data, detectors):
    found = compare_detectors(detection_data, [detectors["ignorant"]], SETTINGS)
    (result,) = found.results
    assert found.best is None and result.seen_auc == 0.5 and result.unsure == 1.0
    assert all(one.auc == 0.5 for one in result.generators)
    assert all((one.drift, one.changed) == (0, 0) for one in result.shifts)


def test_without_a_good_detector_the_run_stops_and_the_report_is_there(run, detection_data, detectors, tmp_path):
    with pytest.raises(AssayError, match=r"No detector reaches an AUC of 0\.95 .*\(rgb 0\.500\): train longer, "):
        run(detection_data, [detectors["ignorant"]])
    assert "No detector reaches an AUC of 0.95" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "model").exists() and not (tmp_path / "predictions.npz").exists()
    assert run(detection_data, [detectors["ignorant"]], {**QUICK, "seen_auc": 0.5})["seen_auc"] == 0.5


class ByPixel(Detector):
    """Looks at one pixel, the column that its folder's name says; such detectors need no training."""

    column: ClassVar[int]

    def __init__(self, column: int) -> None:
        super().__init__(DetectorConfig(method="rgb"), 1, (4, 4))
        self.looked_at = column
        self.decision = Decision(0.5, 0.3, 0.7, 0.95)

    @classmethod
    def from_pretrained(cls, folder):
        return cls(int(folder.name))

    def score(self, images, batch_size=512):
        return images[:, 0, 0, self.looked_at].double().numpy() / 255


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A data set whose pixel in column k of the first row holds what detector k makes of the image."""
    monkeypatch.setattr(evaluate, "Detector", ByPixel)

    def write(scores, generators=("seen", "new"), names=None, train=("seen",)):
        """``scores`` [split][kind of image] are the scores of the detectors; 12 images of each kind."""
        rows = [
            (split, kind, scores[split][kind])
            for split in ("train", "validation", "test")
            for kind in ("", *generators)
            if split != "train" or kind in ("", *train)
            for _ in range(12)
        ]
        images = np.random.default_rng(0).integers(0, 256, (len(rows), 4, 4), dtype=np.uint8)
        for image, (_, _, found) in zip(images, rows, strict=True):
            image[0, : len(found)] = np.round(255 * np.array(found))
        return write_dataset(
            tmp_path / "plain",
            images=images,
            labels=[int(bool(kind)) for _, kind, _ in rows],
            splits=[split for split, _, _ in rows],
            class_names=["real", "generated"],
            name="plain",
            extra={"generator": [(names or {}).get(kind, kind) for _, kind, _ in rows]},
        )

    return write


GOOD, BAD = 0.9, 0.05


def test_the_choice_is_by_unseen_generators_on_validation_among_those_good_on_seen(plain):
    """0 knows the seen generator alone; 1 is best on validation; 2 on test; 3 knows only the unseen one."""
    validation = {"": [0.1] * 4, "seen": [GOOD, GOOD, GOOD, BAD], "new": [BAD, GOOD, BAD, GOOD]}
    test = {"": [0.1] * 4, "seen": [GOOD, GOOD, GOOD, BAD], "new": [BAD, BAD, GOOD, GOOD]}
    dataset = plain({"train": validation, "validation": validation, "test": test})
    found = compare_detectors(dataset, [Path(str(k)) for k in range(4)], SETTINGS)
    assert found.seen == ["seen"] and found.primary == ["new"]
    assert found.best is found.results[1] and found.best.mean_ap.value < found.results[2].mean_ap.value
    assert [result.seen_auc for result in found.results] == [1, 1, 1, 0]
    alone = compare_detectors(dataset, [Path("3")], SETTINGS)
    assert alone.best is None
    assert [(one.generator, one.seen) for one in alone.results[0].generators] == [("new", False), ("seen", True)]


def test_without_unseen_generators_all_count(run, plain, capsys):
    scores = {"": [0.1, 0.1], "seen": [0.2, GOOD], "new": [0.2, 0.3]}
    dataset = plain(dict.fromkeys(("train", "validation", "test"), scores), train=("seen", "new"))
    found = compare_detectors(dataset, [Path("0"), Path("1")], SETTINGS)
    assert found.primary == ["new", "seen"] and found.primary_title == "mean AP over 2 generators"
    assert found.best is found.results[0], "both rank all right, so the first stays"


def test_images_that_name_no_generator_are_one(plain):
    scores = {"": [0.1], "seen": [GOOD], "new": [GOOD]}
    names = {"seen": "", "new": ""}
    dataset = plain(dict.fromkeys(("train", "validation", "test"), scores), names=names)
    found = compare_detectors(dataset, [Path("0")], SETTINGS)
    assert found.test.names == found.seen == ["unnamed"]
    assert found.results[0].generators[0].count == 24


def test_a_generator_without_validation_images_is_refused(plain, tmp_path):
    scores = {"": [0.1], "seen": [GOOD], "new": [GOOD]}
    dataset = plain(dict.fromkeys(("train", "validation", "test"), scores))
    table = dataset.table("validation")
    kept = np.array(table["generator"].to_pylist()) != "new"
    images = np.stack([np.full((4, 4), 9, np.uint8)] * int(kept.sum()))
    poorer = write_dataset(
        tmp_path / "poorer",
        images=np.concatenate(
            [images, dataset.split("train").images[:, 0].numpy(), dataset.split("test").images[:, 0]]
        ),
        labels=np.concatenate([table["label"].to_numpy()[kept], *(dataset.split(s).labels for s in ("train", "test"))]),
        splits=["validation"] * int(kept.sum()) + ["train"] * 24 + ["test"] * 36,
        class_names=["real", "generated"],
        name="poorer",
        extra={
            "generator": [
                *np.array(table["generator"].to_pylist())[kept].tolist(),
                *dataset.table("train", ["generator"])["generator"].to_pylist(),
                *dataset.table("test", ["generator"])["generator"].to_pylist(),
            ]
        },
    )
    with pytest.raises(UserError, match="poorer has no validation image of new"):
        compare_detectors(poorer, [Path("0")], SETTINGS)


def test_bad_input_is_one_sentence(run, detection_data, digits, detectors, tmp_path):
    with pytest.raises(UserError, match="There is no detector to evaluate"):
        run(detection_data, [])
    with pytest.raises(UserError, match=r"evaluation\.replicate is not a setting"):
        run(detection_data, detectors.values(), {"replicate": 5})
    with pytest.raises(UserError, match="instead of real, generated"):
        run(digits, detectors.values())
    Detector(DetectorConfig(method="rgb"), 1, (16, 16)).save_pretrained(tmp_path / "raw")
    with pytest.raises(UserError, match=r"The detector .*raw is not calibrated"):
        run(detection_data, [tmp_path / "raw"])
    larger = Detector(DetectorConfig(method="rgb"), 1, (24, 24))
    larger.decision = Decision(0.5, 0.3, 0.7, 0.95)
    larger.save_pretrained(tmp_path / "larger")
    with pytest.raises(UserError, match="takes images"):
        run(detection_data, [tmp_path / "larger"])
    with pytest.raises(UserError, match="is not a detector"):
        run(detection_data, [tmp_path])


def test_a_split_of_one_class_is_refused(detection_data, tmp_path, detectors):
    test = detection_data.split("test")
    real = torch.flatten((test.labels == 0).nonzero())
    only = write_dataset(
        tmp_path / "real",
        images=test.images[real, 0].numpy(),
        labels=[0] * len(real),
        splits=["test"] * len(real),
        class_names=["real", "generated"],
        name="real-only",
        extra={"generator": [""] * len(real)},
    )
    with pytest.raises(UserError, match="The split 'test' of real-only has no generated image"):
        compare_detectors(only, [detectors["radial"]], SETTINGS)


def test_names_are_distinct_and_stay_in_order():
    assert distinct_names(["a", "b", "a", "a"]) == ["a", "b", "a 2", "a 3"]
