"""One thread computes with all cores, the others with one each.

GNU OpenMP keeps threads for every thread that has computed in parallel. Where these are more than there are cores, a
thread that waits sleeps at once instead of spinning for a while, and each small operation has to wake it up: a
photograph then takes 1.2 to 1.7 times as long (measured on two cores), however idle the others are.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NoReturn

import torch

PATIENCE = 0.5  # seconds after which a thread that waits for calls looks for signals, where waiting alone would not


@contextmanager
def others_compute_alone() -> Iterator[None]:
    """The calling thread goes on with the cores it has; threads that are started inside compute with one each."""
    cores = torch.get_num_threads()
    set_for_new_threads(1)
    try:
        yield
    finally:
        set_for_new_threads(cores)


def set_for_new_threads(cores: int) -> None:
    """torch sets this for the thread that asks and for all that compute later for the first time; one that ends at once
    asks here.
    """
    asking = Thread(target=torch.set_num_threads, args=(cores,))
    asking.start()
    asking.join()


class Desk:
    """Calls that any thread asks for and one makes, one after another."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[tuple[Future, Callable[[], Any]]] = SimpleQueue()

    def ask(self, call: Callable[[], Any]) -> Any:
        """What `call()` returns or raises in the thread that serves; waits for it."""
        future: Future = Future()
        self.asked.put((future, call))
        return future.result()

    def serve(self) -> NoReturn:
        """Make calls, until a signal raises something in this thread."""
        while True:
            try:
                future, call = self.asked.get(timeout=PATIENCE)
            except Empty:
                continue
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
