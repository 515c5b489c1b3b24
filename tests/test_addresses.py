"""The addresses of components are part of the file format: saved pipelines name them in `model_index.json`."""

import importlib
import json

import pytest
from bd_diff_toys import ROOT

# Every address that a released version has written. Never take one away: old pipelines would no longer load.
ADDRESSES = [
    ("bd_diff.models.blur_decoder", "BlurDecoder"),
    ("bd_diff.models.clip_encoder", "ClipImageEncoder"),
    ("bd_diff.models.image_encoder", "ImageEncoder"),
    ("bd_diff.models.patch_qformer", "PatchQFormer"),
    ("bd_diff.models.pixel_vae", "PixelVAE"),
    ("bd_diff.models.qformer", "QFormer"),
    ("bd_diff.models.refined_vae", "RefinedVAE"),
    ("bd_diff.models.unet", "NAFUNet"),
]


@pytest.mark.parametrize("module, name", ADDRESSES)
def test_a_component_is_found_where_saved_pipelines_say_and_says_the_same(module, name):
    assert getattr(importlib.import_module(module), name).__module__ == module


def test_the_shipped_pipeline_names_no_other_address():
    index = json.loads((ROOT / "assets" / "bd-diff-tiny" / "model_index.json").read_text())
    ours = {tuple(entry) for entry in index.values() if isinstance(entry, list) and entry[0].startswith("bd_diff")}
    assert ours and ours <= set(ADDRESSES)
