"""From real images alone to a champion that says real, generated or unsure, through the users' commands."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

GENERATORS, METHODS = ["dcgan", "bilinear"], ["rgb", "npr", "fingerprint"]
SETTINGS = [
    "dataset=digits",
    f"generators={json.dumps(GENERATORS)}",
    f"methods={json.dumps(METHODS)}",
    "generator={epochs: 2, width: 8, train: 300, validation: 100, calibration: 100, test: 100, minimum_diversity: 0}",
    "detection_data={train: 300, validation: 100, calibration: 100, test: 100}",
    "detector={epochs: 4, batch_size: 64, options: {fingerprint: {depths: [1], pretraining_epochs: 1}}}",
    "integrity={epochs: 1, levels: 0}",
    # So few images and steps promise no quality: what is tested is that everything comes to its end.
    "evaluation={seen_auc: 0.5}",
    "policy={latency_ms: 100000, metrics: {auc: {limit: 0}}, slices: {generator = real: 0}}",
]


@pytest.fixture(scope="module")
def example(make_example):
    example = make_example("forensics")
    example.assay("data", "import", "photos", "--name", "digits")
    return example


@pytest.fixture(scope="module")
def run(example) -> dict:
    return example.run("forensics", *SETTINGS)


def metrics_of(run: dict, label: str) -> dict:
    (task,) = (t for t in run["tasks"] if f"{t['title']} [{t['turn']}]" == label or t["title"] == label)
    return {k: v for o in task["outputs"].values() if o["type"] == "system.Metrics" for k, v in o["metadata"].items()}


def test_real_images_become_a_champion(example, run):
    assert {task["state"] for task in run["tasks"]} == {"succeeded"}
    assert sorted(t["turn"] for t in run["tasks"] if t["title"] == "Train detector") == sorted(METHODS)
    assert metrics_of(run, "Gate")["passed"] == 1
    page = (run["folder"] / "report.html").read_text()
    assert all(f"Train generator [{name}]" in page for name in GENERATORS)


def test_the_champion_answers_for_files_of_every_kind(example, run):
    folder = example.root / "questions"
    folder.mkdir()
    digit = Image.open(sorted((example.root / "photos" / "digit-7").iterdir())[0])
    digit.save(folder / "grey.png")
    digit.convert("RGB").resize((50, 40)).save(folder / "colour.jpg")
    digit.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.asarray(digit).astype(np.uint16) * 257).save(folder / "deep.png")
    digit.convert("P").save(folder / "palette.gif")
    Image.new("L", (16, 16), 128).save(folder / "flat.png")
    files = sorted(map(str, folder.iterdir()))
    answers = json.loads(example.assay("models", "predict", "generated-image-detector@champion", *files, "--json"))
    assert [answer["file"] for answer in answers] == files
    assert {answer["verdict"] for answer in answers} <= {"real", "generated", "unsure"}
    assert all(0 <= answer["probability"] <= 1 for answer in answers)
    assert {answer["model"] for answer in answers} == {"generated-image-detector/1"}


def test_the_same_run_again_is_all_cached(example, run):
    again = example.run("forensics", *SETTINGS)
    assert {task["state"] for task in again["tasks"]} == {"cached"}


def test_collected_images_of_one_class_are_refused(example, tmp_path):
    shutil.copytree(example.root / "photos" / "digit-1", tmp_path / "dcgan" / "0_real")
    told = example.assay("data", "import", str(tmp_path), "--format", "cnndetection", "--name", "collected", expect=2)
    assert told.startswith("error: ") and len(told.strip().splitlines()) == 1


@pytest.mark.slow
def test_collected_images_become_a_champion(example, tmp_path):
    for number, path in enumerate(sorted((example.root / "photos").rglob("*.png"))):
        image = np.asarray(Image.open(path))
        generated = number % 2 == 1
        if generated:
            image = np.kron(image.reshape(4, 4, 4, 4).mean(axis=(1, 3)), np.ones((4, 4))).astype(np.uint8)
        folder = tmp_path / "blocks" / ("1_fake" if generated else "0_real")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / path.name)
    example.assay("data", "import", str(tmp_path), "--name", "collected")
    settings = ["dataset=collected", "model_name=collected", 'methods=["rgb", "npr"]', *SETTINGS[-4:]]
    run = example.run("detection", *settings)
    assert {task["state"] for task in run["tasks"]} == {"succeeded"}
    assert metrics_of(run, "Gate")["auc"] > 0.95
