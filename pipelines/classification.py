"""A classifier from raw data to a champion: import, validate, pretrain, calibrate, evaluate, gate, promote."""

from kfp import dsl

from assay.registry.policy import load_policy
from components.calibration import calibration as calibrate
from components.data_import import data_import as import_data
from components.data_validation import data_validation as validate
from components.evaluation import evaluation as evaluate
from components.gate import gate as decide
from components.pretraining import pretraining as pretrain
from components.promotion import promotion as promote
from pipelines._tasks import place

CONFIGS = {
    "data": "assay.data:ImportConfig",
    "validation": "assay.data:ValidationConfig",
    "training": "assay.classification:ClassificationConfig",
    "calibration": "assay.calibration:CalibrationConfig",
    "evaluation": "assay.evaluation:EvaluationConfig",
    "policy": "assay.registry:GatePolicy",
}
"""The model that checks each dictionary parameter before anything runs."""


@dsl.pipeline(name="classification", description="Train, calibrate, test and promote an image classifier.")
def classification(
    dataset: str = "fashion-mnist",
    revision: str = "",
    model_name: str = "classifier",
    seed: int = 0,
    workers: int = 0,
    data: dict = {},
    validation: dict = {},
    training: dict = {},
    calibration: dict = {},
    evaluation: dict = {},
    policy: dict = load_policy("classifier"),
):
    """Chain the steps; every dictionary overrides the defaults of the step that it is named after."""
    imported = import_data(name=dataset, revision=revision, config=data)
    place(imported, "Import data", size="medium", retries=2)

    validated = validate(dataset=imported.outputs["dataset"], config=validation)
    place(validated, "Validate data", size="medium")

    trained = pretrain(dataset=imported.outputs["dataset"], config=training, seed=seed, workers=workers)
    place(trained.after(validated), "Pretrain", size="training", retries=2)

    calibrated = calibrate(model=trained.outputs["model"], logits=trained.outputs["logits"], config=calibration)
    place(calibrated, "Calibrate", size="medium", retries=1)

    evaluated = evaluate(dataset=imported.outputs["dataset"], model=calibrated.outputs["calibrated"], config=evaluation)
    place(evaluated, "Evaluate", size="medium", retries=1)

    decided = decide(
        dataset=imported.outputs["dataset"],
        model=calibrated.outputs["calibrated"],
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
