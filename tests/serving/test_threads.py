"""One thread computes with all cores and makes the calls of others; the others have one core each."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from bd_diff.data.images import read_image
from bd_diff.serving.folder_run import Job, run_jobs
from bd_diff.serving.threads import Desk, others_compute_alone


@pytest.fixture
def three_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def cores_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_threads_beside_the_one_that_computes_have_one_core_each(three_cores):
    with others_compute_alone():
        assert (torch.get_num_threads(), cores_of_a_new_thread()) == (3, 1)
    assert (torch.get_num_threads(), cores_of_a_new_thread()) == (3, 3)


def test_photographs_are_read_with_one_core_and_restored_with_all(three_cores, tmp_path):
    cores = {}

    def open_image(path):
        cores["read"] = torch.get_num_threads()
        return read_image(path)

    def restore(images):
        cores["restored"] = torch.get_num_threads()
        return images

    Image.new("RGB", (16, 12)).save(tmp_path / "a.png")
    run_jobs([Job(tmp_path / "a.png", tmp_path / "b.png")], restore, open_image=open_image, silent=True)
    assert cores == {"read": 1, "restored": 3}


def test_calls_are_made_by_the_thread_that_serves_and_their_errors_are_those_of_who_asked():
    desk, told = Desk(), []

    def ask():
        told.append(desk.ask(threading.get_ident))
        with pytest.raises(ValueError, match="no photograph"):
            desk.ask(lambda: int("no photograph"))
        told.append(desk.ask(lambda: "still here"))
        signal.raise_signal(signal.SIGINT)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(KeyboardInterrupt):
        desk.serve()
    asking.join()
    assert told == [threading.get_ident(), "still here"]
