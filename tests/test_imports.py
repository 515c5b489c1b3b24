"""What is imported when: of our own, hardly more than the class of diffusers that the pipeline is."""

import subprocess
import sys

SPENT = """
import time
import torch

before = time.process_time()
{}
print(time.process_time() - before)
"""
LATER = "datasets pandas pyarrow open_clip timm torchmetrics matplotlib gradio onnx cv2 sklearn tensorboard".split()


def seconds(statement: str) -> float:
    """Processor seconds of a statement in a fresh Python that has torch; the least of two."""
    command = [sys.executable, "-c", SPENT.format(statement)]
    return min(float(subprocess.run(command, capture_output=True, text=True).stdout) for _ in range(2))


def test_what_single_features_need_is_imported_by_them_alone():
    program = f"import sys, bd_diff.pipeline, bd_diff.restore; print([m for m in {LATER} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_pipeline_takes_hardly_longer_to_import_than_the_class_of_diffusers_that_it_is():
    base = seconds("from diffusers import DiffusionPipeline")
    assert seconds("import bd_diff.pipeline") < 1.4 * base  # 1.05 measured
