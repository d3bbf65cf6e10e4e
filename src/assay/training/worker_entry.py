"""What a RayJob runs: ``python -m assay.training.worker_entry s3://bucket/prefix RUN``."""

import sys

from assay.errors import AssayError, UserError
from assay.project import library_digest
from assay.storage import ObjectStore
from assay.training.ray import launch_on_ray
from assay.training.travel import Outcome, TrainingJob, get_document, job_key, look_up, outcome_key, put_document


def run(storage: str, name: str) -> None:
    """Read the `TrainingJob` of a run and train on the Ray cluster that ``RAY_ADDRESS`` names.

    Raises:
        UserError: the training function refused its input.
        AssayError: the job was written by another version of this package, or the training failed.
    """
    job = get_document(ObjectStore(storage), job_key(name), TrainingJob)
    if job.version != (here := library_digest()):
        raise AssayError(
            f"The image of the Ray cluster has another version of assay ({here[:12]}) than the step that started it "
            f"({job.version[:12]}): use one image for both."
        )
    launch_on_ray(
        look_up(job.function),
        job.config,
        storage=storage,
        name=job.name,
        workers=job.workers,
        session={"seed": job.seed, "precision": job.precision},
        max_failures=job.max_failures,
        resources=job.resources,
        stream=job.stream,
    )


def main() -> int:
    """Run; leave the sentence of a failure beside the checkpoints, where the step looks for it."""
    storage, name = sys.argv[1:]
    try:
        run(storage, name)
    except AssayError as error:
        put_document(
            ObjectStore(storage), outcome_key(name), Outcome(sentence=str(error), by_user=isinstance(error, UserError))
        )
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
