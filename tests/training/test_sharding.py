"""Training cut up among processes: the same weights as whole, a share of the memory, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from bd_diff_toys import ROOT
from bd_diff_toys.adarevd import TOY
from bd_diff_toys.stable_diffusion import SIZES, save_base
from safetensors.torch import load_file
from torch import nn

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.training.checkpoints import RECORD
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig
from bd_diff.training.loop import Turn, fit, sharding, start
from bd_diff.training.sharding import Shares, layers
from train import joint

SMOKE = ROOT / "configs/bd_diff_tiny/smoke.yaml"


def launched() -> dict[str, str]:
    """The settings of FSDP that `accelerate launch` reads in our file and hands to the processes."""
    file = str(ROOT / "configs/accelerate/eight_gpus_fsdp.yaml")
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", file, "x.py"]))
    return {name: value for name, value in prepare_multi_gpu_env(arguments).items() if "FSDP" in name}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which two processes have trained a toy Stable Diffusion three steps, cut up and whole."""
    folder = tmp_path_factory.mktemp("sharding")
    values = yaml.safe_load(SMOKE.read_text())
    values["run"] |= {"steps": 3, "batch_size": 2, "gradient_accumulation": 2, "validate_every": 2, "warmup_steps": 0}
    values["run"] |= {"ema_decay": 0.5, "max_grad_norm": 0.5}
    values["optimizer"]["eps"] = 1e-6  # else the rounding of a gradient that should be zero counts as much as others
    values["weights"] = {"kernel": 0.5, "deblur": 1.0, "transfer": 0.2}
    (folder / "naf.yaml").write_text(yaml.safe_dump(values))
    values |= {"base": [str(save_base(folder / "base"))], "networks": SIZES, "gradient_checkpointing": True}
    (folder / "sd.yaml").write_text(yaml.safe_dump(values))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29539"]
    environment = os.environ | launched()
    command = [*launcher, "-m", "bd_diff_toys.shared_training", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return folder


@pytest.mark.parametrize("name", ["sd", "naf"])
def test_each_of_two_processes_holds_half_of_what_learns(trained, name):
    counts = [load_file(trained / f"{name}-counts-{rank}.safetensors") for rank in range(2)]
    assert counts[0].keys() == {"whole", "parameters", "gradients", "first moments", "second moments", "average"}
    for kind in counts[0].keys() - {"whole"}:
        assert counts[0][kind] + counts[1][kind] == counts[0]["whole"]
        assert max(counts[0][kind], counts[1][kind]) < 0.51 * counts[0]["whole"]


@pytest.mark.parametrize("name", ["sd", "naf"])
def test_the_gradients_of_shares_are_those_of_the_whole(trained, name):
    whole, cut = (load_file(trained / f"{name}-{kind}-0.safetensors") for kind in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.allclose(cut[one], whole[one], rtol=1e-4, atol=1e-7) for one in whole)


@pytest.mark.parametrize("other", ["cut", "mixed"])
def test_stopped_by_a_signal_and_resumed_it_ends_like_the_whole_that_never_stopped(trained, other):
    """Also where the first half was trained cut up and the second half whole, from the same checkpoint."""
    files = [path.relative_to(trained / "whole") for path in (trained / "whole").rglob("*") if path.is_file()]
    assert Path("checkpoint-3/model.safetensors") in files and Path("pipeline/unet/config.json") in files
    for file in files:
        if file.suffix == ".json" and file.name != RECORD:  # which has the hashes of all
            assert (trained / other / file).read_text() == (trained / "whole" / file).read_text()
        if file.suffix == ".safetensors":
            whole, found = (load_file(trained / kind / file) for kind in ("whole", other))
            assert whole.keys() == found.keys()
            assert all(torch.allclose(found[one], whole[one], rtol=0, atol=1e-5) for one in whole), file


def test_the_weights_that_were_compared_had_moved(trained):
    before = load_file(trained / "base/unet/diffusion_pytorch_model.safetensors")
    after = load_file(trained / "cut/pipeline/unet/diffusion_pytorch_model.safetensors")
    assert sum((after[name] - before[name]).abs().max() > 1e-4 for name in before if name != "conv_in.weight") > 100


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "does not run under DeepSpeed; .*eight_gpus_fsdp.yaml"),
        ({"FSDP_VERSION": "1"}, "version 2 of FSDP alone"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "does not know fsdp_offload_params; set it to false"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "does not know fsdp_activation_checkpointing"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "does not know fsdp_cpu_ram_efficient_loading"),
    ],
)
def test_other_ways_to_cut_a_model_up_are_refused_before_anything_is_written(changed, message, tmp_path, monkeypatch):
    for name, value in (launched() | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        joint.main(["--config", str(SMOKE), f"run.folder={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_cut_up_is_named(tmp_path, monkeypatch):
    for name, value in launched().items():
        monkeypatch.setenv(name, value)

    class AdamW8bit(torch.optim.AdamW):
        pass

    network = nn.Sequential(nn.Linear(2, 2))
    turn = Turn(network, torch.optim.AdamW(network.parameters()))
    run = load_config(JointConfig, ["--config", str(SMOKE), f"run.folder={tmp_path / 'run'}"]).run
    with pytest.raises(ValueError, match="adversaries do not train under FSDP"):
        fit(start(run), [turn, turn], [], run, save=lambda folder: None)
    with pytest.raises(ValueError, match="names no layer that learns here; choose among Linear, Sequential"):
        layers(network, ["BasicTransformerBlock"])
    with pytest.raises(ValueError, match="AdamW8bit does not work under FSDP; set optimizer.class=AdamW"):
        Shares(network, AdamW8bit(network.parameters()), sharding(), None)
    chain = AdaRevD(3, **TOY, backend="reversible")
    with pytest.raises(ValueError, match="backend reversible does not work under FSDP; set network.backend=checkpoint"):
        Shares(chain, torch.optim.AdamW(chain.parameters()), sharding(), None)
    network.compile()
    with pytest.raises(ValueError, match="compile does not work under FSDP"):
        Shares(network, turn.optimizer, sharding(), None)
