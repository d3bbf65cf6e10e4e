"""Training on Ray Train workers; the only file that imports Ray."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from assay.errors import AssayError, UserError
from assay.project import library_digest
from assay.storage import ObjectStore, is_remote
from assay.training.checkpoints import checkpoint_store
from assay.training.session import Session
from assay.training.threads import available_cores
from assay.training.travel import decode, encode

_FAILED_STARTS = 5  # each waits a minute for its workers, unless RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S says more
_SHUFFLED_BATCHES = 16
_READERS = 2
_BLOCK_BYTES, _STREAM_BYTES = 4 << 20, 128 << 20
# Where the store is, but not who may use it: a node's own credentials say that.
_FORWARDED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION")


def launch_on_ray(
    train: Callable[[Session, dict[str, Any]], None],
    config: dict[str, Any],
    *,
    storage: str,
    name: str,
    workers: tuple[int, int],
    session: dict[str, Any],
    max_failures: int,
    resources: Mapping[str, int] | None = None,
    stream: str = "",
) -> None:
    """Run ``train`` on Ray Train workers, which keep their checkpoints in ``storage`` themselves.

    ``RAY_ADDRESS`` names a cluster to join, of which this machine is a node; without it, Ray starts here and is
    stopped afterwards. On a cluster with checkpoints in an object store, the data goes there too, and each node
    fetches it once; with checkpoints in a folder, every node must see that folder and the data.

    Args:
        train: the loop.
        config: see `launch`.
        storage: folder or ``s3://bucket/prefix`` of all runs' checkpoints.
        name: of the run.
        workers: the fewest and the most; the batch of a step is the same with any number.
        session: what `Session` is made with.
        max_failures: how many times lost workers or nodes are replaced.
        resources: of each worker, as Ray names them; default: the cluster's, shared out.
        stream: see `launch`.

    Raises:
        UserError: the training function refused its input, or the loss diverged.
        AssayError: more workers were lost than ``max_failures``, or the cluster has too few processors.
    """
    started_here = not _is_running()
    if started_here:
        start(cores=max(available_cores(), workers[1]))
    import ray

    try:
        if os.environ.get("RAY_ADDRESS"):
            _refuse_other_versions()
            if is_remote(storage):
                config = encode(config, ObjectStore(storage))
        refusals = _refusals()
        loop = {
            "train": train,
            "config": config,
            "session": session,
            "storage": storage,
            "name": name,
            "refusals": refusals,
        }
        try:
            for attempt in range(max_failures + 1):
                data = _open_stream(config, storage, stream) if stream else {}
                try:
                    _fit(loop, name, workers, resources or _share(workers), max_failures, data)
                    break
                except _LostError:  # the node that was lost had Ray's own actors; the checkpoints are elsewhere
                    if attempt == max_failures:
                        raise
        except AssayError:
            _raise_refusal(refusals)
            raise
        _raise_refusal(refusals)
    finally:
        if started_here:
            ray.shutdown()


def _is_running() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def start(cores: int) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start Ray here, with the workers' chatter off.

    Raises:
        UserError: no cluster answers at ``RAY_ADDRESS``, or it is not that of a node.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # On one machine nobody else has to reach it; this is Ray's switch for listening on loopback alone, which it
        # reads when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    quiet = {"logging_level": "warning", "logging_config": ray.LoggingConfig(log_level="ERROR")}
    if not address:
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        return
    if "://" in address:
        raise UserError(
            f"RAY_ADDRESS={address} is not the address of a cluster's head, such as 10.0.0.1:6379: give that, and "
            "make this machine a node of the cluster with `ray start --address`."
        )
    forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    try:
        ray.init(address=address, runtime_env={"env_vars": forwarded}, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = "set RAY_AUTH_MODE=token" if "InvalidAuthToken" in str(error) else "start it"
        raise UserError(
            f"The Ray cluster at RAY_ADDRESS={address} cannot be joined ({type(error).__name__}): {why}, "
            "make this machine a node of it with `ray start --address`, or unset RAY_ADDRESS."
        ) from error


class _LostError(AssayError):
    """Ray itself went, not the workers alone."""


class RayStream:
    """One worker's share of a split that Ray Data reads from Parquet while it is trained on."""

    def __init__(self, share: Any) -> None:
        self.share = share

    def batches(self, size: int, seed: int) -> Iterator[Any]:
        """Yield the share of an epoch in Arrow tables, shuffled in a buffer."""
        yield from self.share.iter_batches(
            batch_size=size,
            batch_format="pyarrow",
            local_shuffle_buffer_size=_SHUFFLED_BATCHES * size,
            local_shuffle_seed=seed % 2**32,
            drop_last=True,
        )


def _open_stream(config: dict[str, Any], storage: str, stream: str) -> dict[str, Any]:
    """Return Ray Data's view of one split; its reading takes no processor that training has reserved."""
    import ray

    key, split = stream.split("/")
    folder = (decode({key: config[key]}, ObjectStore(storage)) if is_remote(storage) else config)[key].path
    shards = [str(path) for path in sorted(folder.glob(f"{split}-*.parquet"))]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False  # it lists files in tasks that would wait for a processor for ever
    # So much lies in the object store at a time, however large the split is and however fast it is read.
    context.target_max_block_size = _BLOCK_BYTES
    context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
        object_store_memory=_STREAM_BYTES
    )
    data = ray.data.read_parquet(
        shards, columns=["sample_id", "image", "label"], ray_remote_args={"num_cpus": 0}, concurrency=_READERS
    )
    return {split: data}


def _fit(
    loop: dict[str, Any],
    name: str,
    workers: tuple[int, int],
    resources: Mapping[str, int],
    max_failures: int,
    data: dict[str, Any],
) -> None:
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    fewest, most = workers
    with tempfile.TemporaryDirectory() as folder:  # for Ray's own notes: the workers keep the checkpoints
        trainer = TorchTrainer(
            _worker,
            train_loop_config=loop | {"streamed": next(iter(data), ""), "threads": resources["CPU"]},
            datasets=data,
            scaling_config=ScalingConfig(
                num_workers=most if fewest == most else workers,
                use_gpu=bool(resources.get("GPU")),
                resources_per_worker=dict(resources),
            ),
            run_config=RunConfig(
                name=name,
                storage_path=folder,
                failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=_FAILED_STARTS),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            cause = str(error).strip().splitlines()[-1]  # the last line of the first worker's traceback
            raise AssayError(f"The Ray run {name} failed: {cause}") from error
        except (RayError, ConnectionError) as error:
            cause = str(error).strip().splitlines()[0]
            raise _LostError(
                f"The Ray cluster was lost while {name} trained ({cause}): run the same command again to continue."
            ) from error


def _worker(loop: dict[str, Any]) -> None:
    """Train in this worker; a refusal ends the run, because another attempt would meet it again."""
    import ray
    import torch
    from ray import train

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it prints every report of every worker
    # Ray would leave an OMP_NUM_THREADS of the step, which is for the whole machine, to each of its workers.
    torch.set_num_threads(loop["threads"])
    if ray.get(loop["refusals"].first.remote()):
        return
    storage = loop["storage"]
    try:
        config = decode(loop["config"], ObjectStore(storage)) if is_remote(storage) else loop["config"]
        stream = RayStream(train.get_dataset_shard(loop["streamed"])) if loop["streamed"] else None
        loop["train"](Session(checkpoint_store(storage, loop["name"]), stream=stream, **loop["session"]), config)
    except UserError as error:
        ray.get(loop["refusals"].add.remote(str(error)))
        if not _all_refused(loop["refusals"]):
            raise  # or the other workers would wait for this one


def _all_refused(refusals: Any) -> bool:
    """Say whether every worker refuses, as they do when the loss diverges: then no other attempt is needed."""
    import ray
    from ray import train

    for _ in range(20):
        if ray.get(refusals.count.remote()) >= train.get_context().get_world_size():
            return True
        time.sleep(0.1)
    return False


def _refusals() -> Any:
    """Start the actor, on this machine, that remembers why a worker refused to train."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Refusals:
        def __init__(self) -> None:
            self.sentences: list[str] = []

        def add(self, sentence: str) -> None:
            self.sentences.append(sentence)

        def count(self) -> int:
            return len(self.sentences)

        def first(self) -> str | None:
            return self.sentences[0] if self.sentences else None

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Refusals).remote()


def _raise_refusal(refusals: Any) -> None:
    import ray

    try:
        sentence = ray.get(refusals.first.remote(), timeout=30)
    except (ray.exceptions.RayError, ConnectionError):  # the cluster is gone, which is the error that counts
        return
    if sentence:
        raise UserError(sentence)


def _share(workers: tuple[int, int]) -> dict[str, int]:
    """Return what each worker reserves of the cluster; it uses as many threads as it reserves processors.

    Raises:
        AssayError: the cluster has fewer processors than the fewest workers.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    found = {kind: [int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU")}
    cpus = largest_share(found["CPU"], workers[1]) or largest_share(found["CPU"], workers[0])
    if not cpus:
        raise AssayError(
            f"The Ray cluster has {sum(found['CPU'])} processors, too few for {workers[0]} workers: "
            "add nodes, or ask for fewer workers."
        )
    return {"CPU": cpus} | ({"GPU": 1} if sum(found["GPU"]) >= workers[1] else {})


def largest_share(nodes: Sequence[int], workers: int) -> int:
    """Return the most processors that each of ``workers`` can have on ``nodes``, 0 where they do not fit.

    Example:
        >>> largest_share([4, 4], 2), largest_share([3, 1], 2), largest_share([1], 2)
        (4, 1, 0)
    """
    shares = range(max(nodes, default=0), 0, -1)
    return next((share for share in shares if sum(node // share for node in nodes) >= workers), 0)


def _refuse_other_versions() -> None:
    """Ask every node for its version of this package: workers of another one would compute something else.

    Raises:
        AssayError: a node has another version, or none.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ours = library_digest()
    asked = {
        node["NodeManagerAddress"]: ray.remote(num_cpus=0, max_retries=0)(_version)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    for address, answer in asked.items():
        try:
            theirs = ray.get(answer)
        except ray.exceptions.RayError:
            theirs = "none"
        if theirs != ours:
            raise AssayError(
                f"The Ray node {address} has another version of assay ({theirs[:12]}) than this machine "
                f"({ours[:12]}): install the same one, or use its image."
            )


def _version() -> str:
    return library_digest()
