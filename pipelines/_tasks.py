"""One call for what each step needs beside its inputs: its title, its size, its retries, its place on a cluster."""

import json
from functools import cache

from kfp import dsl, kubernetes

from assay.cluster import RAY_JOB_ANNOTATION, ClusterSettings, Size, StepResources, load_cluster_settings
from assay.project import Project

settings = cache(load_cluster_settings)


def place(task: dsl.PipelineTask, title: str, size: Size, retries: int = 0) -> dsl.PipelineTask:
    """Give a step its title and size, and what ``pipelines/cluster.yaml`` says of steps; return it.

    Args:
        task: the step.
        title: what people see in the graph.
        size: a name in ``sizes`` of the cluster's settings.
        retries: how often a cluster tries it again.
    """
    task.set_display_name(title)
    if retries:
        task.set_retry(retries)
    cluster = settings()
    resources: StepResources = getattr(cluster.sizes, size)
    _ask_for(task, resources)
    _give(task, cluster)
    ray = cluster.ray_job(Project.find().image) if size == "training" else None
    if ray is not None:
        # By way of an annotation, for the cluster alone: a variable of the step would hold on this machine as well.
        kubernetes.add_pod_annotation(task, RAY_JOB_ANNOTATION, json.dumps(ray, sort_keys=True))
        kubernetes.use_field_path_as_env(task, "ASSAY_RAY_JOB", f"metadata.annotations['{RAY_JOB_ANNOTATION}']")
    return task


def _ask_for(task: dsl.PipelineTask, resources: StepResources) -> None:
    task.set_cpu_request(resources.cpus).set_cpu_limit(resources.cpus)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.gpus:
        task.set_accelerator_type(resources.gpu_type).set_accelerator_limit(resources.gpus)
    if resources.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", resources.shared_memory)  # noqa: S108
    if resources.timeout_minutes:
        kubernetes.set_timeout(task, 60 * resources.timeout_minutes)
    for label, value in resources.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in resources.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())


def _give(task: dsl.PipelineTask, cluster: ClusterSettings) -> None:
    for name, keys in cluster.config_maps.items():
        kubernetes.use_config_map_as_env(task, name, {key: key for key in keys})
    for name, variables in cluster.secret_environment.items():
        kubernetes.use_secret_as_env(task, name, variables)
    for name, folder in cluster.secret_files.items():
        kubernetes.use_secret_as_volume(task, name, folder)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.image_pull_secrets)
    if cluster.image_pull_policy:
        kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.run_as_user:
        kubernetes.set_security_context(task, run_as_user=cluster.run_as_user, run_as_non_root=True)
