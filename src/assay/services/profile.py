"""``ASSAY_PROFILE=services``: one setting that makes every command use the local services."""

import os

from assay.errors import UserError
from assay.project import Project
from assay.services import object_store, tracking
from assay.services.stack import Stack, bypass_proxies

_OF_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def activate(project: Project) -> None:
    """Set what ``ASSAY_PROFILE`` stands for in this process's environment; what the user set stays.

    Nothing secret is set: the credentials are named by their file. Keys for AWS that the user has in the
    environment are taken out of it when the object store is ours, since they would be tried there.

    Raises:
        UserError: there is no such profile.
        AssayError: one of the services is down.
    """
    profile = os.environ.get("ASSAY_PROFILE", "")
    if profile in ("", "local"):
        return
    if profile != "services":
        raise UserError(f"ASSAY_PROFILE={profile} is not a profile: set it to services, or to local, or unset it.")
    bypass_proxies()
    stack = Stack(project)
    ports = stack.ports
    bucket = f"s3://{object_store.BUCKET}"
    settings = {
        "MLFLOW_TRACKING_URI": tracking.address(ports),
        "ASSAY_CHECKPOINTS": f"{bucket}/training",
        "ASSAY_ARTIFACTS": f"{bucket}/artifacts",
        "ASSAY_DATA_REMOTE": f"{bucket}/dvc",
    }
    if not (os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3")):
        for name in _OF_AWS:
            os.environ.pop(name, None)
        os.environ["AWS_ENDPOINT_URL"] = object_store.endpoint(ports)
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(object_store.credentials_file(stack.root))
        os.environ["AWS_PROFILE"] = object_store.PROFILE
        os.environ["AWS_DEFAULT_REGION"] = object_store.REGION
    for name, value in settings.items():
        os.environ.setdefault(name, value)
