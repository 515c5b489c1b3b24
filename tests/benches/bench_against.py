"""What restoring photographs costs here beside another checkout of this project, on the same files, in turns.

python tests/benches/bench_against.py OTHER PHOTO... [--side 256] [--fast] [--rounds 3] [--operators]

prints CPU seconds, peak memory and, if asked, the operators that torch launched and the values that Python read from
tensors, each for both checkouts and as a ratio. Every checkout runs in a process of its own; the smallest figure of all
rounds counts, since what else runs on the machine only adds. Wall times mean something on a quiet machine alone.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parents[2]
MODELS = "bd_diff/assets/bd-diff-tiny", "assets/bd-diff-tiny"  # where checkouts have it


def read(path: Path, side: int):
    """A photograph, or its middle of `side` pixels, as a tensor `(1, 3, H, W)` in [0, 1]."""
    import numpy as np
    import PIL.Image
    import torch

    values = torch.from_numpy(np.array(PIL.Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    top, left = (max(0, (length - side) // 2) if side else 0 for length in values.shape[-2:])
    return values[..., top : top + side, left : left + side] if side else values


def count_operators(call) -> dict[str, float]:
    """How many operators torch launches in a call, and how often values are read from tensors."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    counts = {"operators": 0.0, "reads": 0.0}

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, arguments=(), settings=None):
            counts["operators"] += 1
            counts["reads"] += operator is torch.ops.aten._local_scalar_dense.default
            return operator(*arguments, **(settings or {}))

    def counted(method):
        def read(*arguments, **settings):
            counts["reads"] += 1
            return method(*arguments, **settings)

        return read

    whole = {name: getattr(torch.Tensor, name) for name in ("tolist", "numpy")}
    for name, method in whole.items():
        setattr(torch.Tensor, name, counted(method))
    with Counter():
        call()
    for name, method in whole.items():
        setattr(torch.Tensor, name, method)
    return counts


def measure(given: argparse.Namespace) -> dict[str, float]:
    """The costs of one checkout, that of the process, for all photographs together."""
    import torch

    from bd_diff import BDDiffPipeline

    root = Path(sys.modules["bd_diff"].__file__).parents[1]
    pipe = BDDiffPipeline.from_pretrained(next(root / one for one in MODELS if (root / one).is_dir()))
    pipe.set_progress_bar_config(disable=True)
    settings = {"fast": given.fast, "output_type": "pt"}
    pipe(torch.rand(1, 3, 64, 64), **settings)
    costs = {"CPU s": 0.0, "wall s": 0.0}
    for path in given.photographs:
        image, generator = read(path, given.side), torch.Generator().manual_seed(0)
        began = time.process_time(), time.perf_counter()
        pipe(image, generator=generator, **settings)
        costs["CPU s"] += time.process_time() - began[0]
        costs["wall s"] += time.perf_counter() - began[1]
    costs["peak GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if given.operators:
        image = read(given.photographs[0], given.side)
        costs |= count_operators(lambda: pipe(image, generator=torch.Generator().manual_seed(0), **settings))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=0, help="middles of so many pixels; 0 is all of a photograph")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--operators", action="store_true", help="count operators and reads, on the first photograph")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return print(json.dumps(measure(given)))
    costs: dict[Path, list[dict[str, float]]] = {given.other: [], HERE: []}
    for _ in range(given.rounds):
        for root, measured in costs.items():
            output = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--one"],
                env=os.environ | {"PYTHONPATH": str(root.resolve())},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            measured.append(json.loads(output.splitlines()[-1]))
    for name in costs[HERE][0]:
        other, here = (min(one[name] for one in measured) for measured in costs.values())
        print(f"{name:>10}: {other:.2f} there, {here:.2f} here, ratio {here / other:.3f}", flush=True)


if __name__ == "__main__":
    main()
