import pytest
import torch
from bd_diff_toys.adarevd import awake, noise, toy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bd_diff.baselines.backend_costs import Chain, gradients, saved_bytes, worst_error
from bd_diff.baselines.reversible import run_chain
from bd_diff.baselines.subdecoder import LEAST_ALPHA, FourierUnit, SubDecoder


def chain(number, dtype=torch.float32):
    return Chain(number).to(dtype)


def parts(number, dtype=torch.float32):
    made = chain(number, dtype)
    bottleneck, *state = made.inputs
    return made.decoders, made.heads, bottleneck, state


def relative(found, wanted):
    return max(((f - w).norm() / w.norm()).item() for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize("dtype, limit", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_inverse_gives_the_state_before(dtype, limit):
    decoders, _, bottleneck, state = parts(1, dtype)
    with torch.no_grad():
        after = decoders[0](bottleneck, state)
        assert relative(decoders[0].inverse(bottleneck, after), state) < limit
        assert relative(after, state) > 0.1  # the sub-decoder does something


@pytest.mark.parametrize("number", [1, 2, 4, 8])
@pytest.mark.parametrize("backend", ["checkpoint", "reversible"])
def test_gradients_in_float64_equal_plain_autograd(backend, number):
    plain, found = (gradients(chain(number, torch.float64), name) for name in ("plain", backend))
    assert worst_error(found, plain) < 1e-8


def test_checkpoint_equals_plain_bit_for_bit():
    plain, found = (gradients(chain(4, torch.float32), name) for name in ("plain", "checkpoint"))
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_anchors_keep_float32_gradients_within_a_thousandth_at_depth_8():
    plain = gradients(chain(8), "plain")
    anchored, alone = (worst_error(gradients(chain(8), "reversible", every), plain) for every in (4, 8))
    assert anchored < 1e-3
    assert alone > 10 * anchored  # why there are anchors


def test_only_one_head_in_the_loss():
    plain = gradients(chain(3, torch.float64), "plain", heads=[1])
    found = gradients(chain(3, torch.float64), "reversible", heads=[1])
    used = {name for name, gradient in plain.items() if gradient is not None}
    assert "decoders.1.levels.1.fuse.up.weight" in used and "heads.0.weight" not in used
    assert worst_error({n: found[n] for n in used}, {n: plain[n] for n in used}) < 1e-8
    assert all(found[name] is None or not found[name].any() for name in plain if name not in used)


def test_saved_bytes_do_not_grow_between_anchors_and_checkpoint_keeps_a_state_per_sub_decoder():
    kept = {
        backend: [saved_bytes(chain(n), backend) for n in (1, 2, 4)]
        for backend in ("plain", "checkpoint", "reversible")
    }
    state = chain(1).state_bytes()
    assert kept["reversible"][0] == kept["reversible"][1] == kept["reversible"][2]
    assert saved_bytes(chain(8), "reversible") == kept["reversible"][0] + state  # one more anchor
    assert kept["checkpoint"][2] - kept["checkpoint"][1] <= 2 * 1.05 * state
    assert kept["plain"][2] > 15 * kept["checkpoint"][2]


def test_parameter_gradients_are_returned_and_never_written():
    decoders, heads, bottleneck, state = parts(2, torch.float32)
    outputs = run_chain(decoders, heads, bottleneck, state, "reversible")
    gradients = torch.autograd.grad(sum(o.sum() for o in outputs), [*decoders.parameters()])
    assert all(gradient is not None for gradient in gradients)
    assert all(parameter.grad is None for parameter in decoders.parameters())


def test_hooks_on_parameters_see_their_gradients_once_as_data_parallel_training_needs():
    decoders, heads, bottleneck, state = parts(2, torch.float32)
    seen = []
    for name, parameter in decoders.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: seen.append(name))
    sum(o.square().mean() for o in run_chain(decoders, heads, bottleneck, state, "reversible")).backward()
    assert sorted(seen) == sorted(name for name, _ in decoders.named_parameters())


def test_frozen_parameters_stay_without_gradient():
    decoders, heads, bottleneck, state = parts(2)
    decoders[0].requires_grad_(False)
    run_chain(decoders, heads, bottleneck, state, "reversible")[-1].sum().backward()
    assert all(parameter.grad is None for parameter in decoders[0].parameters())
    assert all(parameter.grad is not None for parameter in decoders[1].parameters())


def test_a_step_between_forward_and_backward_is_noticed():
    decoders, heads, bottleneck, state = parts(1, torch.float32)
    (output,) = run_chain(decoders, heads, bottleneck, state, "reversible")
    with torch.no_grad():
        heads[0].weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_non_contiguous_state_gives_the_same_gradients():
    def run(backend):
        decoders, heads, bottleneck, state = parts(2, torch.float64)
        leaves = [map_.detach().transpose(-1, -2).requires_grad_() for map_ in state]
        outputs = run_chain(decoders, heads, bottleneck, leaves, backend)
        return torch.autograd.grad(sum(o.sub(0.3).abs().mean() for o in outputs), [*leaves, *decoders.parameters()])

    assert relative(run("reversible"), run("plain")) < 1e-8


@pytest.mark.parametrize("backward_inside", [True, False])
def test_autocast_is_the_same_in_the_recomputation(backward_inside):
    def run(backend):
        decoders, heads, bottleneck, state = parts(2, torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = run_chain(decoders, heads, bottleneck, state, backend)
            loss = sum(o.float().sub(0.3).abs().mean() for o in outputs)
            if backward_inside:
                loss.backward()
        if not backward_inside:
            loss.backward()
        return [parameter.grad for parameter in decoders.parameters()]

    assert relative(run("reversible"), run("plain")) < 0.05


def test_the_fourier_unit_computes_in_float32_under_autocast():
    unit, features = FourierUnit(4), 1e3 * noise(1, 4, 24, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = unit(features)
    assert torch.equal(found, unit(features))


def test_the_fourier_unit_also_runs_in_half_precision_at_any_size():
    assert FourierUnit(4).half()(noise(1, 4, 12, 20).half()).dtype == torch.float16


@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-9])
def test_an_alpha_of_zero_neither_divides_nor_stays_stuck(zero):
    torch.manual_seed(0)
    decoder = awake(SubDecoder([32, 16, 8], [1, 1, 1])).double()
    with torch.no_grad():
        decoder.alphas[0].fill_(zero)
    _, _, bottleneck, state = parts(1, torch.float64)
    after = decoder(bottleneck, state)
    assert decoder.alpha(0).abs().min() >= LEAST_ALPHA
    assert relative(decoder.inverse(bottleneck, after), state) < 1e-6
    after[0].sum().backward()
    assert decoder.alphas[0].grad.abs().min() > 0


def test_a_network_trains_the_same_with_every_backend():
    def gradients(backend):
        network = toy(2, backend=backend).train()
        loss = sum(result.square().mean() for result in network.every_depth(noise(1, 3, 12, 16)))
        loss.backward()
        return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.requires_grad}

    plain = gradients("plain")
    assert worst_error(gradients("checkpoint"), plain) == 0
    assert worst_error(gradients("reversible"), plain) < 1e-3
    assert "scales.0" in plain and not any(name.startswith("encoder.") for name in plain)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="choose from plain, checkpoint, reversible"):
        run_chain(nn.ModuleList(), nn.ModuleList(), noise(1), [], "magic")


def test_distributed_data_parallel_gives_plain_gradients_with_every_backend(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = {}
        for backend in ("plain", "checkpoint", "reversible"):
            network = DistributedDataParallel(Training(toy(2, backend=backend).train()))
            for _ in range(2):  # the second step waits for every gradient of the first
                network.zero_grad()
                network(noise(1, 3, 12, 16)).backward()
            found[backend] = {name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad}
    finally:
        torch.distributed.destroy_process_group()
    assert worst_error(found["checkpoint"], found["plain"]) == 0
    assert worst_error(found["reversible"], found["plain"]) < 1e-3


class Training(nn.Module):
    """A loss on every depth, as its objective has it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return sum(result.square().mean() for result in self.network.every_depth(images))
