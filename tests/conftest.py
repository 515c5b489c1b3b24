"""Toy-size BD-Diff pipelines on the real classes, shared by the tests."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from bd_diff_toys import ROOT, TINY, warm

from bd_diff.training.pipelines import build_pipeline


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests, and what they start, share the cores."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Ctrl+C reaches tests, and what they start, in a background job, too, for which shells ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def importable():
    """What tests start finds this checkout and the toys, too."""
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "helpers")))


@pytest.fixture(scope="session")
def warm_python(importable, one_thread):
    """A command that is as `sys.executable`, but for what takes long to import: see `bd_diff_toys.warm`."""
    command = [sys.executable, "-I", "-S", warm.__file__]
    with tempfile.TemporaryDirectory(prefix="warm") as folder:
        path = Path(folder, "socket")
        with subprocess.Popen([sys.executable, warm.__file__, path], stdin=subprocess.DEVNULL) as server:
            while not path.exists():
                assert server.poll() is None, "it did not start"
                time.sleep(0.05)
            yield [*command, str(path)]
            server.kill()


@pytest.fixture(scope="session")
def tiny_pipeline():
    """An untrained pipeline whose every layer matters: nothing is left at its zero initialisation."""
    torch.manual_seed(0)
    pipeline = build_pipeline(TINY)
    for name in ("unet", "image_encoder", "blur_decoder"):
        for parameter in getattr(pipeline, name).parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def tiny_pipeline_folder(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    tiny_pipeline.save_pretrained(folder)
    return folder
