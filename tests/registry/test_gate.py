import json

import numpy as np
import pytest
import torch

from assay.errors import AssayError, UserError
from assay.registry import gate, history, promote_decided, start_run

POLICY = {
    "metrics": {"accuracy": {"limit": 0.5}},
    "worst_class_accuracy": 0.1,
    "size_mb": 10,
    "replicates": 500,
}


@pytest.fixture
def run(registry, digits, models, tmp_path):
    """Gate one of the three models, with changes to the arguments."""
    test = digits.split("test")

    def run_gate(index: int, *, evaluated=None, predictions=None, dataset=digits, policy=POLICY, **changes):
        used = models[index if evaluated is None else evaluated]
        order = np.random.default_rng(0).permutation(len(test))
        with torch.no_grad():
            probabilities = used(test.images).numpy()
        np.savez(
            tmp_path / "predictions.npz",
            sample_ids=test.sample_ids[order],
            labels=test.labels.numpy()[order],
            probabilities=probabilities[order],
        )
        return gate(
            dataset.path,
            tmp_path,
            predictions or tmp_path / "predictions.npz",
            policy,
            **{
                "name": "numerals",
                "load": lambda _: models[index],
                "decision": tmp_path / "decision.json",
                "report": tmp_path / "report.html",
                "metrics": tmp_path / "metrics.json",
                **changes,
            },
        )

    return run_gate


def promoted(outcome, tmp_path):
    return promote_decided(
        outcome["name"],
        outcome["version"],
        decision=tmp_path / "decision.json",
        metrics=tmp_path / "promotion.json",
    )


def test_from_no_champion_to_a_better_one(run, registry, tmp_path, capfd):
    first = run(1)
    assert (first["decision"], first["version"], first["champion"]) == ("promote", 1, None)
    promoted(first, tmp_path)

    better = run(2, seed=5)
    assert (better["decision"], better["champion"]) == ("promote", 1)
    assert better["numbers"]["accuracy_change_low"] > 0
    assert promoted(better, tmp_path) == {"champion": 2.0, "previous_champion": 1.0}

    worse = run(0)
    assert (worse["decision"], worse["passed"]) == ("keep", False)
    assert registry.champion("numerals") == 2

    assert json.loads((tmp_path / "decision.json").read_text()) == json.loads(json.dumps(worse))
    page = (tmp_path / "report.html").read_text()
    assert ("Gate: keep numerals/3" in page and "data:image/svg+xml" in page) or "data:image" in page
    assert json.loads((tmp_path / "metrics.json").read_text()) == worse["numbers"]
    tags = registry.resolve("numerals", 3).tags
    assert tags["gate.decision"] == "keep" and tags["gate.champion"] == "2"
    change = [worse["numbers"][f"accuracy_change{end}"] for end in ("", "_low", "_high")]
    assert tags["gate.accuracy_change"] == "{:.4f} [{:.4f}, {:.4f}]".format(*change)
    assert registry.resolve("numerals", 2).tags["parent_version"] == "1"
    told = [(e["kind"], e["version"]) for e in history("numerals")]
    assert told[:4] == [("registration", 1), ("gate", 1), ("promotion", 1), ("registration", 2)]
    assert capfd.readouterr().err == ""


def test_the_gate_measures_the_registered_model(run, registry, digits):
    """Accuracy by hand, from the model that the registry gives back."""
    outcome = run(1)
    test = digits.split("test")
    answers = registry.load("numerals", outcome["version"]).predict(test.images)
    by_hand = float((answers.argmax(1) == test.labels.numpy()).mean())
    assert outcome["numbers"]["accuracy"] == pytest.approx(by_hand)
    assert float(registry.resolve("numerals", 1).tags["metric.accuracy"]) == pytest.approx(by_hand, rel=1e-5)


def test_a_model_that_was_not_the_evaluated_one_is_not_promoted(run, registry):
    with pytest.raises(AssayError, match="numerals/1 does not answer as the evaluated model did"):
        run(1, evaluated=2)
    assert registry.champion("numerals") is None


def test_a_repeated_gate_neither_doubles_nor_replaces(run, registry, tmp_path):
    promoted(run(1), tmp_path)
    again = run(1)
    assert (again["version"], again["decision"]) == (1, "keep")
    assert again["reasons"][0] == "Version 1 is the champion already."
    assert len(registry.versions("numerals")) == 1


def test_a_broken_guard_keeps_even_the_first_model_out(run):
    outcome = run(1, policy={**POLICY, "size_mb": 1e-3})
    assert outcome["decision"] == "keep"
    assert outcome["reasons"][1].startswith("Size in MB is 0.")


def test_a_champion_of_other_classes_is_kept_with_a_sentence(run, registry, models, pixels, digits_arrays, tmp_path):
    from assay.data import write_dataset

    promoted(run(1), tmp_path)
    images, labels, splits = digits_arrays
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    words = write_dataset(
        tmp_path / "words", images=images, labels=labels, splits=splits, class_names=names, name="words"
    )
    outcome = run(2, dataset=words)
    assert outcome["decision"] == "keep"
    assert outcome["reasons"][0].startswith(
        "The champion, version 1, cannot score words, because its classes differ: "
        "0, 1, 2, 3 and 6 more against zero, one, two, three and 6 more."
    )


def test_text_columns_of_the_data_are_slices(run, digits_arrays, tmp_path):
    from assay.data import write_dataset

    images, labels, splits = digits_arrays
    parity = ["even" if label % 2 == 0 else "odd" for label in labels]
    data = write_dataset(
        tmp_path / "parity",
        images=images,
        labels=labels,
        splits=splits,
        class_names=[str(k) for k in range(10)],
        name="parity",
        extra={"category": parity},
    )
    outcome = run(1, dataset=data, policy={**POLICY, "slices": {"*": 0.2, "category = odd": 0.999}})
    assert [(g["name"], g["passed"]) for g in outcome["guards"]][2:4] == [
        ("Accuracy of the slice category = even", True),
        ("Accuracy of the slice category = odd", False),
    ]


class BrightnessDetector(torch.nn.Module):
    """Takes bright images for generated; it brings a decision."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.register_buffer("sharpness", torch.tensor(sharpness))

    @property
    def metadata(self):
        return {"decision": {"threshold": 0.4, "lower": 0.2, "upper": 0.7, "confidence": 0.95}}

    def forward(self, images):
        generated = torch.sigmoid(self.sharpness * (images.float().mean((1, 2, 3)) - 128) / 255)
        return torch.stack([1 - generated, generated], dim=1)


def test_two_detectors_meet_on_slices_by_generator_and_keep_their_decision(registry, tmp_path):
    from assay.data import write_dataset

    rng = np.random.default_rng(0)
    generator = np.repeat(["", "dcgan", "vae"], 20)
    level = np.concatenate([rng.uniform(0, 150, 20), rng.uniform(120, 255, 20), np.full(20, 100)])
    data = write_dataset(
        tmp_path / "fakes",
        images=np.repeat(level, 64).reshape(60, 8, 8).astype(np.uint8),
        labels=(generator != "").astype(int),
        splits=["test"] * 60,
        class_names=["real", "generated"],
        name="fakes",
        extra={"generator": generator.tolist(), "category": [None, "cat"] * 30},
    )
    test = data.split("test")

    def run(module, **policy):
        np.savez(
            tmp_path / "predictions.npz",
            sample_ids=test.sample_ids,
            labels=test.labels.numpy(),
            probabilities=module(test.images).numpy(),
        )
        outputs = {key: tmp_path / f"{key}.json" for key in ("decision", "report", "metrics")}
        paths = (data.path, tmp_path, tmp_path / "predictions.npz")
        return gate(*paths, {"replicates": 200, **policy}, name="detector", load=lambda _: module, **outputs)

    first = run(BrightnessDetector(1.0), slices={"*": 0.0})
    assert {guard["name"].split("slice ")[1] for guard in first["guards"]} >= {
        *(f"generator = {name}" for name in ("real", "dcgan", "vae")),
        "category = none",
        "category = cat",
    }
    assert registry.load("detector", 1).metadata == BrightnessDetector(1.0).metadata
    promoted(first, tmp_path)
    second = run(BrightnessDetector(9.0), primary="nll", slices={"generator = vae": 0.5})
    assert (second["version"], second["champion"], second["decision"]) == (2, 1, "keep")
    assert second["reasons"][-1].startswith("Accuracy of the slice generator = vae is 0.0000, but must be")


def test_predictions_of_other_data_are_refused(run, tmp_path, registry):
    def spoil(**arrays):
        path = tmp_path / "other.npz"
        np.savez(path, **arrays)
        return path

    outcome = run(1)
    with np.load(tmp_path / "predictions.npz") as file:
        good = dict(file)
    for arrays in (
        {**good, "labels": (good["labels"] + 1) % 10},
        {key: value[1:] for key, value in good.items()},
    ):
        with pytest.raises(UserError, match="is not about the test split of this data set"):
            run(1, predictions=spoil(**arrays))
    with pytest.raises(UserError, match="is not a file of predictions"):
        run(1, predictions=spoil(labels=good["labels"]))
    assert outcome["passed"] and registry.champion("numerals") is None


def test_the_numbers_are_in_the_joined_run(run, registry, monkeypatch):
    tracker = start_run("pipeline")
    monkeypatch.setenv("MLFLOW_RUN_ID", tracker.run_id)
    outcome = run(1)
    assert registry.resolve("numerals", outcome["version"]).run_id == tracker.run_id
    recorded = registry.client.get_run(tracker.run_id).data.metrics
    assert recorded["accuracy"] == pytest.approx(outcome["numbers"]["accuracy"])


def test_a_policy_that_does_not_fit_the_classes_is_refused_before_anything_is_registered(run, registry):
    with pytest.raises(UserError, match="The policy names auc, which ranks two classes, and the model has 10"):
        run(1, policy={**POLICY, "primary": "auc"})
    with pytest.raises(UserError):
        registry.resolve("numerals", 1)
