"""What is imported when: of our own, hardly more than the class of diffusers that the pipeline is."""

import subprocess
import sys

IMPORTS = """
import sys, time
import torch

before = time.process_time()
import diffusers.pipelines.pipeline_utils
between = time.process_time()
import bd_diff.pipeline, bd_diff.restore
print((time.process_time() - between) / (between - before))
print(*[module for module in sys.argv[1:] if module in sys.modules])
"""
LATER = "datasets pandas pyarrow open_clip timm torchmetrics matplotlib gradio onnx cv2 sklearn tensorboard".split()


def test_ours_takes_hardly_longer_to_import_than_diffusers_and_brings_nothing_that_single_features_need():
    done = subprocess.run([sys.executable, "-c", IMPORTS, *LATER], capture_output=True, text=True)
    share, brought = done.stdout.splitlines()
    assert float(share) < 0.2 and not brought  # 0.03 measured
