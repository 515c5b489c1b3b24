"""What training adds to a base: LoRA and our networks, saved small, loaded onto the base, or merged."""

import json
import shutil

import pytest
import torch
from bd_diff_toys.stable_diffusion import SIZES, save_base
from diffusers import AutoencoderTiny, EulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bd_diff import BDDiffPipeline
from bd_diff.cli import app
from bd_diff.data.images import save_image, to_image
from bd_diff.evaluation.methods import holds_results
from bd_diff.restore import load
from bd_diff.stable_diffusion.adapters import add_lora, has_lora, merge_lora, save_adapter
from bd_diff.stable_diffusion.base_model import load_base
from bd_diff.stable_diffusion.vaes import put_vae
from bd_diff.training.pipelines import load_pipeline, pipeline_from_base, save_pipeline


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def trained(base_folder):
    """As after training: everything that learns has moved."""
    torch.manual_seed(0)
    pipeline = pipeline_from_base(load_base(base_folder), SIZES)
    add_lora(pipeline.unet, 2)
    for name, parameter in pipeline.unet.named_parameters():
        if "lora_" in name or "conv_in" in name or ".attn2." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return pipeline


@pytest.fixture(scope="module")
def adapter(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    save_adapter(trained, folder)
    return folder


def restored(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    seed = torch.Generator().manual_seed(0)
    return pipeline(image, num_inference_steps=2, generator=seed, output_type="pt").images


def test_new_lora_changes_nothing(base_folder):
    pipeline = pipeline_from_base(load_base(base_folder), SIZES)
    before = restored(pipeline)
    add_lora(pipeline.unet, 2)
    assert torch.equal(restored(pipeline), before)


def test_lora_is_on_all_but_the_cross_attention(trained):
    touched = {name.split(".lora_")[0] for name, _ in trained.unet.named_parameters() if ".lora_" in name}
    assert any(".attn1.to_q" in name for name in touched) and any(".conv1" in name for name in touched)
    assert any(".ff.net.0.proj" in name for name in touched) and not any(".attn2." in name for name in touched)


def test_an_adapter_finds_its_base_and_gives_the_same_image_to_the_bit(trained, adapter):
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter.json", "adapter.safetensors"]
    expected = restored(trained)
    for load_again in (BDDiffPipeline.from_pretrained, load_pipeline, lambda folder: load(folder).pipeline):
        assert torch.equal(restored(load_again(adapter)), expected)


def test_saved_and_loaded_twice_the_tensors_are_the_same(adapter, tmp_path):
    save_pipeline(BDDiffPipeline.from_pretrained(adapter), tmp_path / "again")
    first, again = (load_file(folder / "adapter.safetensors") for folder in (adapter, tmp_path / "again"))
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    assert (adapter / "adapter.json").read_text() == (tmp_path / "again/adapter.json").read_text()


def test_a_merged_pipeline_gives_nearly_the_same_image_and_saves_whole_to_the_bit(trained, adapter, tmp_path):
    expected = restored(trained)
    merged = merge_lora(trained)
    assert not has_lora(merged.unet) and has_lora(trained.unet) and torch.equal(restored(trained), expected)
    assert (restored(merged) - expected).abs().max() < 1e-4
    CliRunner().invoke(app, ["merge", str(adapter), "--out", str(tmp_path / "whole")], catch_exceptions=False)
    assert torch.equal(restored(BDDiffPipeline.from_pretrained(tmp_path / "whole")), restored(merged))


def test_lora_is_never_saved_in_pieces(trained, tmp_path):
    with pytest.raises(ValueError, match="save it by stable_diffusion.adapters.save_adapter, or merge_lora first"):
        trained.save_pretrained(tmp_path)


def test_a_pipeline_without_lora_or_base_is_no_adapter(tiny_pipeline, trained, tmp_path):
    for pipeline in (tiny_pipeline, merge_lora(trained)):
        with pytest.raises(ValueError, match="has no LoRA or does not know its base"):
            save_adapter(pipeline, tmp_path / "adapter")


def test_the_base_may_move_but_another_one_is_refused(trained, adapter, base_folder, tmp_path):
    lonely = shutil.copytree(adapter, tmp_path / "adapter")
    text = (lonely / "adapter.json").read_text().replace(str(base_folder), "/nowhere/sd")
    (lonely / "adapter.json").write_text(text)
    with pytest.raises(ValueError, match=r"no base was found; tried /nowhere/sd \(no such"):
        BDDiffPipeline.from_pretrained(lonely)
    assert torch.equal(restored(BDDiffPipeline.from_pretrained(lonely, base=str(base_folder))), restored(trained))
    other = shutil.copytree(base_folder, tmp_path / "other")
    tensors = load_file(other / "unet/diffusion_pytorch_model.safetensors")
    tensors["conv_out.bias"] += 1
    save_file(tensors, other / "unet/diffusion_pytorch_model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="was trained on another base than"):
        BDDiffPipeline.from_pretrained(lonely, base=str(other))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "adapter.safetensors is missing or damaged"),
        (lambda path: path.unlink(), "adapter.safetensors is missing or damaged"),
        (lambda path: change(path, "unet.conv_in.bias", None), "lacks the tensor unet.conv_in.bias"),
        (lambda path: change(path, "unet.more", torch.ones(1)), "holds, too much, the tensor unet.more"),
        (lambda path: change(path, "unet.conv_in.bias", torch.ones(3)), r"conv_in.bias is of shape \(3,\)"),
    ],
)
def test_a_damaged_adapter_is_named(adapter, tmp_path, damage, message):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    damage(folder / "adapter.safetensors")
    with pytest.raises(ValueError, match=message):
        BDDiffPipeline.from_pretrained(folder)


def test_it_takes_what_diffusers_takes(trained, adapter, tmp_path):
    files = {"variant": "fp16", "revision": "main", "token": None, "cache_dir": str(tmp_path), "local_files_only": True}
    loaded = BDDiffPipeline.from_pretrained(adapter, torch_dtype=torch.float32, device_map="cpu", **files)
    assert torch.equal(restored(loaded), restored(trained))
    half = BDDiffPipeline.from_pretrained(adapter, torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.vae.dtype == torch.bfloat16
    euler = EulerDiscreteScheduler.from_config(trained.scheduler.config)
    loaded = BDDiffPipeline.from_pretrained(adapter, scheduler=euler, default_steps=3)
    assert loaded.scheduler is euler and loaded.config.default_steps == 3
    for wrong in ({"device_map": "balanced"}, {"torch_dtype": "auto"}, {"blur_decoder": None}):
        with pytest.raises(ValueError, match="goes to one device|takes one torch.dtype|trained with a blur_decoder"):
            BDDiffPipeline.from_pretrained(adapter, **wrong)
    with pytest.raises(TypeError, match="has no setting default_stpes"):
        BDDiffPipeline.from_pretrained(adapter, default_stpes=3)


def test_the_hubs_settings_reach_the_base_but_not_the_adapters_revision(adapter, monkeypatch, tmp_path):
    asked = {}

    def load_base(places, config, **hub):
        asked.update(hub)
        raise ValueError("far enough")

    monkeypatch.setattr("bd_diff.stable_diffusion.adapters.load_base", load_base)
    with pytest.raises(ValueError, match="far enough"):
        BDDiffPipeline.from_pretrained(adapter, cache_dir="here", local_files_only=True, token="t", revision="v2")
    assert asked == {"cache_dir": "here", "local_files_only": True, "token": "t"}


def test_an_adapter_is_scored_as_a_model(adapter, tmp_path):
    assert not holds_results(adapter)
    for side in ("blurry", "sharp"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        save_image(to_image(torch.rand(3, 48, 48)), tmp_path / "pairs" / side / "1.png")
    where = ["--data", str(tmp_path / "pairs"), "--out", str(tmp_path / "card")]
    CliRunner().invoke(app, ["eval", str(adapter), *where, "--steps", "1"], catch_exceptions=False)
    entry = json.loads((tmp_path / "card/card.json").read_text())["entry"]
    assert entry["weights_sha256"] and entry["settings"]["num_inference_steps"] == 1


def test_taesd_goes_through_an_adapter(trained, base_folder, tmp_path):
    torch.manual_seed(1)
    widths = (8, 8, 8, 8)
    tiny = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)
    tiny.save_pretrained(tmp_path / "taesd")
    pipeline = put_vae(pipeline_from_base(load_base(base_folder), SIZES), tmp_path / "taesd")
    add_lora(pipeline.unet, 2)
    save_adapter(pipeline, tmp_path / "adapter")
    again = BDDiffPipeline.from_pretrained(tmp_path / "adapter")
    assert isinstance(again.vae, AutoencoderTiny) and torch.equal(restored(again), restored(pipeline))
    merge = ["merge", str(tmp_path / "adapter"), "--out", str(tmp_path / "whole")]
    CliRunner().invoke(app, merge, catch_exceptions=False)
    assert isinstance(BDDiffPipeline.from_pretrained(tmp_path / "whole").vae, AutoencoderTiny)


def change(path, name, tensor):
    tensors = load_file(path)
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), path, {"format": "pt"})
