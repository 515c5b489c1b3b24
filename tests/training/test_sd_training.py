"""Training over a Stable Diffusion: what learns, memory savings, what is saved, and configurations for real GPUs."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from bd_diff_toys import ROOT
from bd_diff_toys.stable_diffusion import SIZES, save_base
from bd_diff_toys.two_processes import loss_of, objective_of
from diffusers.models.attention_processor import AttnProcessor2_0
from safetensors.torch import load_file, save_file
from torch import nn

from bd_diff import BDDiffPipeline
from bd_diff.data.crops import SharpCrops, seeded
from bd_diff.data.procedural import procedural_image
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig, joint_objective, starting_pipeline
from bd_diff.training.memory_savings import make_optimizer, use_attention, use_checkpointing
from bd_diff.training.samples import JointSamples, collate_joint
from train import joint

WEIGHTS = {"kernel": 0.5, "deblur": 1.0, "transfer": 0.2, "cross_crop": 0.1, "reconstruction": 0.1}
FAMILIES = {"gaussian": 0.5, "line": 0.5}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def smoke(base_folder, tmp_path_factory):
    """A configuration of three steps over the toy base."""
    values = {
        "run": {
            "folder": "x",
            "steps": 3,
            "batch_size": 2,
            "validate_every": 0,
            "log_every": 1,
            "trackers": [],
            "cpu": True,
        },
        "base": [str(base_folder)],
        "lora_rank": 2,
        "networks": SIZES,
        "optimizer": {"lr": 1e-3},
        "weights": WEIGHTS,
        "families": FAMILIES,
        "data": {"window": 64, "crop": 64},
        "error": "squared",
        "snr_gamma": 5.0,
        "sampling_steps": 2,
    }
    path = tmp_path_factory.mktemp("config") / "smoke.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """One process has one precision, so that the next training in it could not have another."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def config_of(path, *overrides):
    return load_config(JointConfig, ["--config", str(path), *overrides])


def batch(size=2):
    photographs = [(procedural_image(140, seeded(index)) * 255).byte() for index in range(2)]
    samples = JointSamples(SharpCrops(photographs, 96, 0), 64, photographs)
    return collate_joint([samples[index] for index in range(size)])


def gradients(objective, precision=None):
    objective.zero_grad()
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        losses = objective(batch(), seeded(1))
    losses["loss"].backward()
    return losses, {name: p.grad for name, p in objective.named_parameters() if p.requires_grad}


def test_with_lora_the_adapters_learn_and_the_base_does_not(smoke):
    objective = joint_objective(config_of(smoke), starting_pipeline(config_of(smoke)))
    losses, found = gradients(objective)
    assert {"kernel", "deblur", "transfer", "cross_crop", "reconstruction"} < set(losses)
    assert [name for name, gradient in found.items() if gradient is None] == []
    kinds = {name.split(".")[1] for name in found}
    assert kinds == {"image_encoder", "structure_qformer", "blur_qformer", "blur_decoder", "unet"}
    unet = [name for name in found if ".unet." in name]
    assert all(".lora_" in name or ".attn2." in name or "conv_in." in name for name in unet)
    assert any(".lora_" in name for name in unet) and any("conv_in." in name for name in unet)


def test_without_lora_the_whole_unet_learns(smoke):
    config = config_of(smoke, "lora_rank=0")
    objective = joint_objective(config, starting_pipeline(config))
    assert all(parameter.requires_grad for parameter in objective.networks["unet"].parameters())


def test_without_a_blur_decoder_tokens_and_the_photograph_alone_learn_every_task(smoke, tmp_path):
    config = config_of(smoke, "networks.blur_decoder=null", "weights.kernel=0", "weights.back_translation=0.1")
    pipeline = starting_pipeline(config)
    assert pipeline.blur_decoder is None and pipeline.unet.config.in_channels == 4 + 4
    losses, found = gradients(joint_objective(config, pipeline))
    assert losses.keys() - {"loss"} == {"deblur", "transfer", "cross_crop", "reconstruction", "back_translation"}
    assert [name for name, gradient in found.items() if gradient is None] == []
    given = [f"run.folder={tmp_path / 'run'}", "networks.blur_decoder=null", "weights.kernel=0", "run.steps=1"]
    joint.main(["--config", str(smoke), *given])
    trained = BDDiffPipeline.from_pretrained(tmp_path / "run/pipeline")
    trained.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 40, 48)
    assert trained.blur_decoder is None and trained(image, num_inference_steps=1, output_type="pt").images.any()
    with pytest.raises(ValueError, match="without a blur_decoder no kernel is learned; kernel and carry must be 0"):
        joint_objective(config_of(smoke, "networks.blur_decoder=null"), pipeline)


def test_checkpointing_changes_no_gradient(smoke):
    config, found = config_of(smoke), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        objective = joint_objective(replace(config, gradient_checkpointing=checkpointing), starting_pipeline(config))
        assert objective.networks["unet"].is_gradient_checkpointing == checkpointing
        found.append(gradients(objective)[1])
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


@pytest.mark.parametrize("precision, error", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_gives_nearly_the_same_losses(smoke, precision, error):
    torch.manual_seed(0)
    objective = joint_objective(config_of(smoke), starting_pipeline(config_of(smoke)))
    (plain, _), (half, gradient) = gradients(objective), gradients(objective, precision)
    assert all(torch.allclose(half[task].float(), plain[task], rtol=error) for task in plain)
    assert all(value is not None and value.isfinite().all() for value in gradient.values())


def test_a_task_without_weight_costs_nothing(smoke, monkeypatch):
    config = config_of(smoke)
    objective = joint_objective(replace(config, weights={"kernel": 0.5, "deblur": 1.0}), starting_pipeline(config))
    calls = []
    objective.networks["unet"].register_forward_hook(lambda *_: calls.append(1))
    alone = batch()
    del alone["target"]
    assert "transfer" not in objective(alone, seeded(1)) and len(calls) == 1


def test_attention_that_does_not_work_here_and_optimizers_that_are_not_there_are_named(smoke):
    unet = starting_pipeline(config_of(smoke)).unet
    use_attention(unet, "sdpa")
    assert all(isinstance(processor, AttnProcessor2_0) for processor in unet.attn_processors.values())
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"xformers does not work here \(.*\); use sdpa"):
            use_attention(unet, "xformers")
    with pytest.raises(ValueError, match="attention_backend is 'flash'; it must be sdpa or xformers"):
        use_attention(unet, "flash")
    with pytest.raises(ValueError, match="optimizer.class is 'Lion'; it must be AdamW or AdamW8bit"):
        make_optimizer([nn.Parameter(torch.zeros(1))], {"class": "Lion"})


def test_a_missing_8_bit_adam_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match="needs bitsandbytes; pip install .bd-diff.adam8bit.. or set optimizer"):
        make_optimizer([nn.Parameter(torch.zeros(1))], {"class": "AdamW8bit", "lr": 1e-3})


def test_a_network_that_cannot_checkpoint_is_named(tiny_pipeline):
    networks = nn.ModuleDict({"unet": tiny_pipeline.unet})
    with pytest.raises(ValueError, match="gradient_checkpointing: NAFUNet does not support it"):
        use_checkpointing(networks)


def test_a_step_in_bfloat16_gives_an_adapter_that_loads_and_trains_on(smoke, tmp_path):
    given = ["--config", str(smoke), "run.mixed_precision=bf16", "run.steps=1"]
    joint.main([*given, f"run.folder={tmp_path / 'run'}"])
    adapter = tmp_path / "run/pipeline"
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter.json", "adapter.safetensors"]
    tensors = load_file(adapter / "adapter.safetensors")
    moved = [name for name, tensor in tensors.items() if "lora_B" in name and tensor.any()]
    assert moved and tensors["unet.conv_in.weight"][:, 4:].any()
    loaded = [BDDiffPipeline.from_pretrained(adapter) for _ in range(2)]
    for one in loaded:
        one.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 40, 48)
    results = [
        one(image, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="pt").images
        for one in loaded
    ]
    assert torch.equal(*results)
    joint.main([*given, f"run.folder={tmp_path / 'more'}", f"start_from={adapter}", "base=[]"])
    more = load_file(tmp_path / "more/pipeline/adapter.safetensors")
    assert more.keys() == tensors.keys() and not torch.equal(more[moved[0]], tensors[moved[0]])


def test_resumed_it_ends_as_if_it_had_never_stopped(smoke, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    joint.main(["--config", str(smoke), f"run.folder={whole}"])
    stopping = config_of(smoke, f"run.folder={parts}", "run.validate_every=2")
    joint.train_joint(stopping, watch=lambda *_: lambda step: {}, stop=lambda: True)
    (parts / "pipeline").rename(parts / "early")
    joint.main(["--config", str(smoke), f"run.folder={parts}", "--resume"])
    first, again = (load_file(folder / "pipeline/adapter.safetensors") for folder in (whole, parts))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[n], t) for n, t in load_file(parts / "early/adapter.safetensors").items())


def test_a_checkpoint_holds_what_trains_and_goes_on_only_over_the_same_base(smoke, base_folder, tmp_path):
    base = shutil.copytree(base_folder, tmp_path / "base")
    given = ["--config", str(smoke), f"run.folder={tmp_path / 'run'}", f"base=[{base}]", "weights.transfer=0"]
    joint.main([*given, "run.steps=1"])
    tensors = load_file(tmp_path / "run/checkpoint-1/model.safetensors")
    objective = joint_objective(config_of(smoke), starting_pipeline(config_of(smoke)))
    assert set(tensors) == {name for name, p in objective.named_parameters() if p.requires_grad} | {"steps"}
    assert not any("vae." in name or "base_layer" in name for name in tensors)
    joint.main([*given, "run.steps=2", "--resume"])
    changed = load_file(base / "vae/diffusion_pytorch_model.safetensors")
    changed["decoder.conv_out.bias"] += 1
    save_file(changed, base / "vae/diffusion_pytorch_model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"checkpoint-2/model.safetensors was trained over other frozen weights \(sha"):
        joint.main([*given, "run.steps=3", "--resume"])
    with pytest.raises(ValueError, match="checkpoint-2/model.safetensors cannot be loaded .*size mismatch"):
        joint.main([*given, "run.steps=3", "lora_rank=3", "--resume"])
    with pytest.raises(ValueError, match="lacks networks.unet.*continue with the configuration"):
        joint.main([*given, "run.steps=3", "lora_rank=0", "--resume"])


def test_the_gradients_of_two_processes_are_those_of_one_with_both_halves(smoke, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29537"]
    command = [*launcher, "-m", "bd_diff_toys.two_processes", str(smoke), str(tmp_path / "gradients.safetensors")]
    subprocess.run(command, check=True, cwd=ROOT)
    objective = objective_of(str(smoke))
    for half in range(2):
        (loss_of(objective, half) / 2).backward()
    found = load_file(tmp_path / "gradients.safetensors")
    expected = {name: p.grad for name, p in objective.named_parameters() if p.requires_grad}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-6) for name in expected)


def test_two_processes_train_on_where_no_task_teaches_the_decoder(smoke, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29538"]
    given = ["--config", str(smoke), f"run.folder={tmp_path}", "weights.kernel=0"]
    subprocess.run([*launcher, "train/joint.py", *given], check=True, cwd=ROOT)
    torch.manual_seed(config_of(smoke).run.seed)
    untrained = starting_pipeline(config_of(smoke)).blur_decoder.state_dict()
    trained = BDDiffPipeline.from_pretrained(tmp_path / "pipeline")
    assert all(torch.equal(untrained[name], value) for name, value in trained.blur_decoder.state_dict().items())
    assert (tmp_path / "checkpoint-3").is_dir()


def test_lora_without_a_base_is_an_error(smoke):
    with pytest.raises(ValueError, match="lora_rank: LoRA needs a base"):
        starting_pipeline(config_of(ROOT / "configs/bd_diff_tiny/smoke.yaml", "lora_rank=4"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora_rnak=3", "there is no lora_rnak; did you mean lora_rank?"),
        ("networks.structure_qformer.num_querys=3", "has no num_querys; did you mean num_queries?"),
        ("error=cubic", "error is 'cubic'; it must be one of absolute, squared, log"),
        ("trained=[unett]", "there is no network unett"),
        ("networks.image_encoder.class=ClipEncoder", "there is no class ClipEncoder"),
    ],
)
def test_a_wrong_key_is_one_line(smoke, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        joint.main(["--config", str(smoke), "run.folder=nowhere", override])


SIZES_OF_CONFIGS = {  # trained, frozen
    "sd21_24gb": {
        "image_encoder": (1_410_006, 0),
        "structure_qformer": (15_867_904, 0),
        "blur_qformer": (17_967_680, 0),
        "blur_decoder": (245_674, 0),
        "unet": (63_988_480, 815_546_564),
        "vae": (0, 83_653_863),
    },
    "sd21_80gb": {
        "image_encoder": (1_271_510, 632_404_480),
        "structure_qformer": (62_332_928, 0),
        "blur_qformer": (58_830_224, 0),
        "blur_decoder": (245_674, 0),
        "unet": (104_723_200, 815_546_564),
        "vae": (0, 83_653_863),
    },
}
SIZES_OF_CONFIGS["sd21_8x"] = SIZES_OF_CONFIGS["sd21_80gb"] | {"unet": (865_910_724 + 16 * 320 * 9, 0)}


@pytest.mark.parametrize("name", ["sd21_24gb", "sd21_80gb", "sd21_8x"])
def test_the_configurations_build_without_memory_and_say_their_sizes(name, capsys):
    joint.main(["--config", str(ROOT / f"configs/{name}.yaml"), f"base=[{ROOT / 'configs/sd21_base'}]", "--dry-run"])
    printed = capsys.readouterr().out
    with capsys.disabled():
        print(f"\n{name}\n" + printed.split("run:")[0])
    counts = {
        line.split()[0]: tuple(int(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= trained| frozen)", line))
        for line in printed.splitlines()
        if "frozen" in line
    }
    assert counts == SIZES_OF_CONFIGS[name]
    assert "memory: " in printed and "GiB" in printed


@pytest.mark.parametrize(("name", "kind"), [("eight_gpus", "MULTI_GPU"), ("eight_gpus_fsdp", "FSDP")])
def test_the_launcher_reads_the_configurations_for_many_gpus(name, kind):
    config = load_config_from_file(str(ROOT / f"configs/accelerate/{name}.yaml"))
    assert config.num_processes == 8 and config.mixed_precision == "bf16" and config.distributed_type == kind
