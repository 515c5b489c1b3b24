"""A Stable Diffusion in the hub's layout becomes an untrained BD-Diff, and one that cannot is named with its fault."""

import json
import shutil

import pytest
import torch
from bd_diff_toys.ldm_layout import ROOT, described, save_single_file, unet_name, vae_name
from bd_diff_toys.stable_diffusion import SIZES, save_base, toy_unet, toy_vae
from bd_diff_toys.towers import TOWERS
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel, UNet2DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel
from typer.testing import CliRunner

from bd_diff import BDDiffPipeline
from bd_diff.cli import app
from bd_diff.models.clip_encoder import ClipImageEncoder
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.stable_diffusion.adapters import add_lora, save_adapter
from bd_diff.stable_diffusion.base_model import fingerprint, load_base
from bd_diff.stable_diffusion.image_encoders import image_encoder_section
from bd_diff.training.config import read_yaml
from bd_diff.training.pipelines import pipeline_from_base


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture
def damaged(base_folder, tmp_path):
    return shutil.copytree(base_folder, tmp_path / "damaged")


def test_the_widened_unet_gives_the_bases_output_to_the_bit_whatever_the_condition(base_folder):
    base = load_base(base_folder)
    pipeline = pipeline_from_base(load_base(base_folder), SIZES)
    noisy, tokens, condition = torch.randn(2, 4, 8, 8), torch.randn(2, 9, 16), torch.randn(2, 16, 8, 8)
    expected = base.unet(noisy, 300, tokens).sample
    found = pipeline.unet(torch.cat([noisy, condition], 1), 300, tokens).sample
    assert pipeline.unet.config.in_channels == 20 and torch.equal(found, expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_prediction_type_and_noise_schedule_are_those_of_the_base(tmp_path, prediction_type):
    scheduler = load_base(save_base(tmp_path, prediction_type)).scheduler
    assert scheduler.config.prediction_type == prediction_type
    assert scheduler.config.timestep_spacing == "trailing" and not scheduler.config.clip_sample
    assert scheduler.alphas_cumprod[-1] == pytest.approx(0.0047, abs=1e-4)


def test_init_makes_a_pipeline_that_loads_and_samples(base_folder, tmp_path):
    out = tmp_path / "pipeline"
    options = ["--structure-tokens", "3", "--hidden-size", "64", "--layers", "1"]
    arguments = ["init", "--base", str(base_folder), "--out", str(out), *options]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "nothing is trained yet" in done.output
    assert not list(out.rglob("*.bin"))
    pipeline = BDDiffPipeline.from_pretrained(out)
    assert pipeline.structure_qformer.config.num_queries == 3
    base = load_base(base_folder)
    assert pipeline.config.base == {"id": str(base_folder), "sha256": fingerprint(base.unet, base.vae)}
    pipeline.set_progress_bar_config(disable=True)
    results = [
        one(torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(1)), num_inference_steps=2,
            generator=torch.Generator().manual_seed(0), output_type="pt").images
        for one in (pipeline, BDDiffPipeline.from_pretrained(out))
    ]  # fmt: skip
    assert results[0].shape == (1, 3, 50, 70) and torch.equal(*results)
    with pytest.raises(ValueError, match="already holds a pipeline; pass --overwrite"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def init(base_folder, out, *options):
    sizes = ["--structure-tokens", "3", "--hidden-size", "64", "--layers", "1"]
    arguments = ["init", "--base", str(base_folder), "--out", str(out), *sizes, *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_init_takes_the_image_encoder_that_is_named(base_folder, tmp_path):
    torch.manual_seed(3)
    clip = CLIPVisionModel(CLIPVisionConfig(**TOWERS["transformers"]))
    clip.save_pretrained(tmp_path / "clip")
    init(base_folder, tmp_path / "out", "--image-encoder", f"clip:{tmp_path / 'clip'}")
    encoder = BDDiffPipeline.from_pretrained(tmp_path / "out").image_encoder
    assert isinstance(encoder, ClipImageEncoder) and fingerprint(encoder.vision) == fingerprint(clip)
    small = tmp_path / "small.yaml"
    small.write_text("networks: {image_encoder: {class: ClipImageEncoder, tower: {}}}")
    init(base_folder, tmp_path / "out", "--overwrite", "--config", str(small), "--image-encoder", "small")
    assert type(BDDiffPipeline.from_pretrained(tmp_path / "out").image_encoder) is ImageEncoder


def test_openclip_is_what_the_configuration_for_large_gpus_says():
    wanted = read_yaml(ROOT / "configs/sd21_80gb.yaml")["networks"]["image_encoder"]
    assert image_encoder_section("openclip") == wanted


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("clap", "there is no image encoder 'clap'; choose from small, clip, openclip, clip:FOLDER_OR_HUB_ID"),
        ("clip:/no/where", "there is no CLIP in /no/where"),
        ("openclip:ViT-H-15:laion2b_s32b_b79k", "there is no model ViT-H-15; did you mean ViT-H-1"),
        ("openclip:ViT-H-14:laion3b", "for ViT-H-14 there are no weights laion3b; give a file or one of laion2b_s32b"),
        ("openclip:ViT-H-14", "for ViT-H-14 there are no weights named"),
        ("openclip:RN50:openai", "RN50 is no plain vision transformer"),
    ],
)
def test_an_image_encoder_that_is_not_there_is_named(base_folder, tmp_path, choice, message):
    with pytest.raises(ValueError, match=message):
        init(base_folder, tmp_path / "out", "--image-encoder", choice)
    assert not (tmp_path / "out").exists()


def test_a_tower_without_weights_is_named(base_folder, tmp_path):
    (tmp_path / "clip").mkdir()
    CLIPVisionConfig(**TOWERS["transformers"]).save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match="the vision tower cannot be loaded from .*clip"):
        init(base_folder, tmp_path / "out", "--image-encoder", f"clip:{tmp_path / 'clip'}")


def test_the_fingerprint_follows_tensors_and_not_files(base_folder):
    base, again = load_base(base_folder), load_base(base_folder)
    assert fingerprint(base.unet) == fingerprint(again.unet) != fingerprint(base.vae)
    with torch.no_grad():
        next(again.unet.parameters()).view(-1)[0] += 1e-6
    assert fingerprint(base.unet) != fingerprint(again.unet)


def test_old_names_of_tensors_and_half_precision_files_load_too(base_folder, damaged):
    expected = load_base(base_folder)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(damaged / "vae/diffusion_pytorch_model.safetensors")
    for new, name in old.items():
        tensors = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): t for key, t in tensors.items()}
    assert any(".query." in key for key in tensors)
    save_file(tensors, damaged / "vae/diffusion_pytorch_model.safetensors", {"format": "pt"})
    assert fingerprint(load_base(damaged).vae) == fingerprint(expected.vae)
    expected.unet.half().save_pretrained(damaged / "unet", variant="fp16")
    (damaged / "unet/diffusion_pytorch_model.safetensors").unlink()
    assert fingerprint(load_base(damaged).unet) == fingerprint(expected.unet)


def test_local_places_come_before_the_hub_and_mirrors_are_tried_in_order(base_folder, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append(name)
        if name == "second/mirror":
            return str(base_folder)
        raise OSError(f"404: {name} is gone\nsee the log")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load_base(["first/mirror", "second/mirror", "third/mirror"]).place == "second/mirror"
    assert asked == ["first/mirror", "second/mirror"]
    assert load_base(["first/mirror", str(base_folder)]).place == str(base_folder)
    assert len(asked) == 2
    with pytest.raises(ValueError) as error:
        load_base(["first/mirror", "no/such/folder", "third/mirror"])
    for words in ("first/mirror (", "404: first/mirror is gone", "no/such/folder (no such", "third/mirror ("):
        assert words in str(error.value)


def test_what_is_fetched_of_a_repository_is_enough_and_not_more(base_folder, tmp_path, monkeypatch):
    from fnmatch import fnmatch

    hub = shutil.copytree(base_folder, tmp_path / "hub")
    for name in ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/model.bin", "v1.safetensors", "text.txt"):
        (hub / name).write_text("large")

    def snapshot_download(name, allow_patterns):
        for path in sorted(hub.rglob("*.*")):
            relative = path.relative_to(hub)
            if any(fnmatch(str(relative), pattern) for pattern in allow_patterns):
                (tmp_path / "cache" / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / "cache" / relative)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load_base("some/base").unet.config.cross_attention_dim == 16
    assert [path for path in tmp_path.glob("cache/**/*") if path.is_file() and path.read_bytes() == b"large"] == []


def test_the_configuration_alone_gives_networks_without_memory(base_folder):
    with torch.device("meta"):
        pipeline = pipeline_from_base(load_base(base_folder, weights=False), SIZES)
    assert all(parameter.is_meta for parameter in pipeline.unet.parameters())
    assert pipeline.config.base["sha256"] is None


def test_a_base_trained_by_flow_matching_is_refused(tmp_path):
    save_base(tmp_path)
    FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match="its scheduler FlowMatchEulerDiscreteScheduler has no schedule of betas"):
        load_base(tmp_path)


@pytest.mark.parametrize(
    ("unet", "vae", "message"),
    [
        ({"unet": "none"}, {}, "its UNet has no cross-attention"),
        (
            {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
            {},
            "has no cross-attention",
        ),
        ({}, {"latent_channels": 16}, "takes 4 channels and gives 4, but the latents of its VAE have 16"),
        ({"in_channels": 9}, {}, "takes 9 channels and gives 4, but the latents of its VAE have 4"),
        ({"class_embed_type": "timestep"}, {}, "needs class_embed_type timestep beside tokens"),
        ({"num_class_embeds": 10}, {}, "needs num_class_embeds 10 beside tokens"),
    ],
)
def test_a_base_of_another_kind_is_refused(tmp_path, unet, vae, message):
    if "unet" in unet:
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        network = UNet2DModel(
            in_channels=4, out_channels=4, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, **blocks
        )
    else:
        network = toy_unet(**unet)
    with pytest.raises(ValueError, match=message):
        load_base(save_base(tmp_path, unet=network, vae=toy_vae(**vae)))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def drop_tensor(path):
    tensors = load_file(path)
    del tensors["conv_out.bias"]
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda base: cut(base / "unet/diffusion_pytorch_model.safetensors"), "model.safetensors is damaged"),
        (lambda base: (base / "vae/diffusion_pytorch_model.safetensors").unlink(), "vae holds no .safetensors file"),
        (lambda base: (base / "vae/config.json").unlink(), "vae/config.json is missing"),
        (lambda base: (base / "scheduler/scheduler_config.json").write_text("{"), "scheduler_config.json is damaged"),
        (lambda base: drop_tensor(base / "unet/diffusion_pytorch_model.safetensors"), "lacks the tensor conv_out.bias"),
    ],
)
def test_a_half_downloaded_base_is_named_by_its_file(damaged, damage, message):
    damage(damaged)
    with pytest.raises(ValueError, match=message):
        load_base(damaged)


def test_a_missing_shard_is_named(base_folder, damaged):
    (damaged / "unet/diffusion_pytorch_model.safetensors").unlink()
    load_base(base_folder).unet.save_pretrained(damaged / "unet", max_shard_size="50KB")
    shards = sorted(damaged.glob("unet/*-of-*.safetensors"))
    assert len(shards) > 1 and load_base(damaged).unet.config.cross_attention_dim == 16
    shards[-1].unlink()
    with pytest.raises(ValueError, match=f"{shards[-1].name} is missing"):
        load_base(damaged)


def test_a_text_model_is_refused_by_what_it_is(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is no base: it holds a bert model; a base is a folder with unet/"):
        load_base(tmp_path)
    with pytest.raises(ValueError, match="it has no unet/config.json"):
        load_base(tmp_path.parent)


@pytest.mark.parametrize("kind", ["SD3Transformer2DModel", "FluxTransformer2DModel", "QwenImageTransformer2DModel"])
def test_a_base_of_a_transformer_is_refused_by_what_it_is(tmp_path, kind):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(ValueError, match=f"its network is the transformer {kind} .*BD-Diff needs a UNet"):
        load_base(tmp_path)


def test_stable_diffusion_xl_is_refused_by_name(base_folder, damaged):
    path = damaged / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"addition_embed_type": "text_time"}))
    with pytest.raises(ValueError, match="is a Stable Diffusion XL: .*added_cond_kwargs.*choose SD 1.x or 2.x"):
        load_base(damaged)


def test_sections_that_belong_to_the_base_and_unknown_keys_are_named(base_folder):
    with pytest.raises(ValueError, match="unet comes from the base"):
        pipeline_from_base(load_base(base_folder), {"unet": {}})
    with pytest.raises(ValueError, match="QFormer has no num_querys; did you mean num_queries"):
        pipeline_from_base(load_base(base_folder), {"structure_qformer": {"num_querys": 3}})


def test_a_single_file_needs_a_description_and_must_fit_it(base_folder, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="does not say its architecture"):
        load_base(path)
    with pytest.raises(ValueError, match="model.safetensors does not hold what"):
        load_base(path, config=base_folder)
    assert load_base(path, config=base_folder, weights=False).vae.config.latent_channels == 4


def test_the_old_names_of_tensors_are_those_of_the_published_files():
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(described("unet")).state_dict()
        vae = AutoencoderKL.from_config(described("vae")).state_dict()
    shapes = {unet_name(name): tuple(tensor.shape) for name, tensor in unet.items()}
    shapes |= {vae_name(name): tuple(tensor.shape) for name, tensor in vae.items()}
    assert len(shapes) == 686 + 248  # as many as Stable Diffusion's files have
    start = "model.diffusion_model"
    assert shapes[f"{start}.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 1024)
    assert shapes[f"{start}.output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)
    assert shapes[f"{start}.output_blocks.5.2.conv.weight"] == (1280, 1280, 3, 3)
    assert shapes[f"{start}.output_blocks.11.0.skip_connection.weight"] == (320, 640, 1, 1)
    assert shapes["first_stage_model.decoder.up.1.block.0.nin_shortcut.weight"] == (256, 512, 1, 1)


@pytest.fixture(scope="module")
def single_file(tmp_path_factory):
    return save_single_file(tmp_path_factory.mktemp("file"), linear=True)


def is_the_base_beside_it(path):
    folder, file = load_base(path.with_suffix("")), load_base(path, config=path.with_suffix(""))
    assert file.sha256 == folder.sha256 and file.unet.dtype == file.vae.dtype == torch.float32
    noisy, tokens, image = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 16), torch.rand(1, 3, 16, 16)
    outputs = [
        (base.unet(noisy, 300, tokens).sample, base.vae.encode(image).latent_dist.mode(), base.vae.decode(noisy).sample)
        for base in (folder, file)
    ]
    assert all(torch.equal(*pair) for pair in zip(*outputs, strict=True))
    assert file.scheduler.config == folder.scheduler.config


def test_the_single_file_of_a_base_is_that_base_to_the_bit(single_file):
    is_the_base_beside_it(single_file)
    with pytest.raises(ValueError, match="does not say its architecture"):
        load_base(single_file)


def test_a_single_file_of_the_first_generation_in_half_precision_too(tmp_path):
    is_the_base_beside_it(save_single_file(tmp_path, linear=False, dtype=torch.float16))


def test_init_takes_a_single_file_and_its_adapter_finds_it_again(single_file, tmp_path):
    config = single_file.with_suffix("")
    init(single_file, tmp_path / "out", "--base-config", str(config))
    pipeline = BDDiffPipeline.from_pretrained(tmp_path / "out")
    base = load_base(config)
    assert pipeline.config.base == {"id": str(single_file), "sha256": base.sha256, "config": str(config)}
    assert fingerprint(pipeline.vae) == fingerprint(base.vae)
    add_lora(pipeline.unet, 2)
    save_adapter(pipeline, tmp_path / "adapter")
    again = BDDiffPipeline.from_pretrained(tmp_path / "adapter")
    assert fingerprint(again.unet) == fingerprint(pipeline.unet)


def test_a_single_file_that_lacks_a_tensor_or_its_end_is_named(single_file, tmp_path):
    tensors = load_file(single_file)
    del tensors["model.diffusion_model.out.2.bias"]
    path = tmp_path / "part.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match="part.safetensors lacks tensors of the unet that"):
        load_base(path, config=single_file.with_suffix(""))
    cut(path)
    with pytest.raises(ValueError, match="part.safetensors does not hold what"):
        load_base(path, config=single_file.with_suffix(""))
