"""A detector of generated images from real ones alone: generators, detectors, every shift, gate, promotion."""

from kfp import dsl

from assay.registry.policy import load_policy
from components.data_import import data_import as import_data
from components.data_validation import data_validation as validate
from components.detection_data import detection_data as assemble
from components.generator_training import generator_training as train_generator
from pipelines import _detectors
from pipelines._tasks import place

GENERATORS = ["dcgan", "nearest", "bilinear", "pixel-shuffle", "spectral-hinge", "vae", "translator", "anti-artefact"]

CONFIGS = {**_detectors.CONFIGS, "generator": "assay.forensics.zoo:GeneratorConfig"}
"""The model that checks each dictionary parameter before anything runs."""


@dsl.pipeline(name="forensics", description="Train generators, then detectors of their images, and promote the best.")
def forensics(
    dataset: str = "fashion-mnist",
    revision: str = "",
    model_name: str = "generated-image-detector",
    generators: list = GENERATORS,
    methods: list = _detectors.METHODS,
    seed: int = 0,
    workers: int = 0,
    data: dict = {"limit": 16000},
    validation: dict = {},
    generator: dict = {},
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

    with dsl.ParallelFor(generators, name="generators") as name:
        made = train_generator(
            dataset=imported.outputs["dataset"], name=name, config=generator, seed=seed, workers=workers
        )
        place(made.after(validated), "Train generator", size="training", retries=1)

    assembled = assemble(
        dataset=imported.outputs["dataset"], generated=dsl.Collected(made.outputs["images"]), config=detection_data
    )
    place(assembled, "Assemble data", size="large", retries=1)

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
        source=imported.outputs["dataset"],
    )
