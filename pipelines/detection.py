"""A detector of generated images from images that somebody collected: real ones and generated ones."""

from kfp import dsl

from assay.registry.policy import load_policy
from components.data_import import data_import as import_data
from components.data_validation import data_validation as validate
from components.detection_data import detection_data as assemble
from pipelines import _detectors
from pipelines._tasks import place

CONFIGS = _detectors.CONFIGS
"""The model that checks each dictionary parameter before anything runs."""


@dsl.pipeline(name="detection", description="Train detectors on real and generated images, and promote the best.")
def detection(
    dataset: str,
    revision: str = "",
    model_name: str = "generated-image-detector",
    methods: list = _detectors.METHODS,
    seed: int = 0,
    workers: int = 0,
    data: dict = {},
    validation: dict = {},
    detection_data: dict = {},
    integrity: dict = {},
    detector: dict = {},
    evaluation: dict = {},
    policy: dict = load_policy("generated-image-detector"),
):
    """Chain the steps; every dictionary overrides the defaults of the step that it is named after."""
    imported = import_data(name=dataset, revision=revision, config=data)
    place(imported, "Import data", size="medium", retries=2)

    validated = validate(dataset=imported.outputs["dataset"], config=validation)
    place(validated, "Validate data", size="medium")

    assembled = assemble(dataset=imported.outputs["dataset"], config=detection_data)
    place(assembled.after(validated), "Assemble data", size="large", retries=1)

    _detectors.train_and_promote(
        assembled.outputs["corpus"],
        model_name=model_name,
        methods=methods,
        revision=revision,
        seed=seed,
        workers=workers,
        integrity=integrity,
        detector=detector,
        evaluation=evaluation,
        policy=policy,
    )
