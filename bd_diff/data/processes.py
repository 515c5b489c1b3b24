"""Distributed processes: how they are started and how they end."""

import atexit
import gc
from datetime import timedelta

import torch
from accelerate import PartialState

PATIENCE = timedelta(days=30)  # how long a process waits for the others, whose shares may take hours longer


def all_processes() -> PartialState:
    """The processes that share this run's work, started by torchrun or accelerate launch, also without a GPU."""
    leave_at_exit()
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def leave_at_exit() -> None:
    """Leave the process group when this process ends, before the interpreter shuts down.

    A thread of gloo needs the interpreter to free the buffers of the last exchange. Where it finds the interpreter
    shutting down it aborts the process, although all work is done. Leaving the group waits for such threads.
    """
    atexit.unregister(leave)  # once is enough
    atexit.register(leave)


def leave() -> None:
    gc.collect()  # wrapped networks hold the group, too
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
