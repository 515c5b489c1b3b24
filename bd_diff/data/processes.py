"""How the processes of one run find each other, and how they end."""

import atexit
import gc
from datetime import timedelta

import torch
from accelerate import PartialState

PATIENCE = timedelta(days=30)  # that a process waits for the others: shares may differ by hours


def all_processes() -> PartialState:
    """The processes that share this run's work, started by torchrun or accelerate launch, without a GPU too."""
    leave_at_exit()
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def leave_at_exit() -> None:
    """Leave the group of processes when this one ends, while the interpreter is still whole.

    A thread of gloo frees what the last exchange held, which takes the interpreter; a thread that finds the interpreter
    being taken down aborts the process, after all its work. Leaving the group waits for these threads.
    """
    atexit.unregister(leave)  # once is enough
    atexit.register(leave)


def leave() -> None:
    gc.collect()  # wrapped networks hold the group, too
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
