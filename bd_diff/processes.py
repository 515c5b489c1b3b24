"""How the processes of one run end."""

import atexit
import gc

import torch


def leave_at_exit() -> None:
    """Leave the group of processes when this one ends, while the interpreter is still whole.

    A thread of gloo frees what the last exchange held, which takes the interpreter; a thread that finds the interpreter
    being taken down aborts the process, after all its work. Leaving the group waits for these threads.
    """
    atexit.register(leave)


def leave() -> None:
    gc.collect()  # wrapped networks hold the group, too
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
