"""What the two pipelines of generated-image detection share: from a detection data set to a champion."""

from typing import Any

from kfp import dsl

from components.detection_evaluation import detection_evaluation as evaluate
from components.detection_integrity import detection_integrity as check
from components.detector_training import detector_training as train_detector
from components.gate import gate as decide
from components.promotion import promotion as promote
from pipelines._tasks import place

METHODS = ["rgb", "rgb-augmented", "log-fft", "radial", "npr", "bihpf", "frepgan", "fingerprint"]

CONFIGS = {
    "data": "assay.data:ImportConfig",
    "validation": "assay.data:ValidationConfig",
    "detection_data": "assay.forensics:DetectionDataConfig",
    "integrity": "assay.forensics:IntegrityConfig",
    "detector": "assay.forensics:DetectorTrainingConfig",
    "evaluation": "assay.forensics:DetectionEvaluationConfig",
    "policy": "assay.registry:GatePolicy",
}
"""The models of the dictionary parameters that both have."""


def train_and_promote(
    corpus: Any,
    *,
    model_name: Any,
    methods: Any,
    revision: Any,
    seed: Any,
    workers: Any,
    integrity: Any,
    detector: Any,
    evaluation: Any,
    policy: Any,
    source: Any = None,
) -> None:
    """Check the images, train a detector by every method, and promote the best if the gate lets it pass.

    All arguments are KFP's channels: outputs of steps and parameters of the pipeline that is being built. With the
    data set that generators learned from as ``source``, none of its images may be among those to be judged.
    """
    checked = check(dataset=corpus, config=integrity, seed=seed, **({} if source is None else {"source": source}))
    place(checked, "Check integrity", size="large")

    with dsl.ParallelFor(methods, name="detectors") as method:
        trained = train_detector(dataset=corpus, method=method, config=detector, seed=seed, workers=workers)
        place(trained.after(checked), "Train detector", size="training", retries=1)

    evaluated = evaluate(dataset=corpus, detectors=dsl.Collected(trained.outputs["model"]), config=evaluation)
    place(evaluated, "Evaluate", size="large", retries=1)

    decided = decide(
        dataset=corpus,
        model=evaluated.outputs["model"],
        predictions=evaluated.outputs["predictions"],
        name=model_name,
        policy=policy,
        revision=revision,
        seed=seed,
    )
    place(decided, "Gate", size="medium", retries=1)

    with dsl.If(decided.outputs["passed"] == True, name="passed"):  # noqa: E712  KFP builds the condition
        promoted = promote(name=model_name, version=decided.outputs["version"], decision=decided.outputs["decision"])
        place(promoted, "Promote", size="small", retries=1)
