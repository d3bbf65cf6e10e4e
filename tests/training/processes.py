"""Data-parallel processes without Ray, as a launcher makes them: one function, run by every rank over gloo."""

import os
import socket

import torch
from torch import multiprocessing
from torch.distributed import destroy_process_group, init_process_group


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _run(rank, function, world_size, port, arguments):
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    torch.set_num_threads(1)
    init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        function(*arguments)
    finally:
        destroy_process_group()


def run_in_processes(function, world_size, *arguments):
    """Call a function at the top of a module in ``world_size`` processes that train together."""
    multiprocessing.spawn(_run, (function, world_size, free_port(), arguments), nprocs=world_size)
