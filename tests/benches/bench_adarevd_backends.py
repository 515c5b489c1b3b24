"""AdaRevD's back-ends side by side: bytes kept for the backward pass, error of the gradients, time of a step.

python tests/benches/bench_adarevd_backends.py [--width 8] [--side 64] [--batch 1] [--device cpu]
"""

import argparse
from collections.abc import Callable

import torch

from bd_diff.baselines.backend_costs import Chain, gradients, saved_bytes, step_seconds, worst_error

NUMBERS = (1, 2, 4, 8)
BACKENDS = [("plain", 4), ("checkpoint", 4), ("reversible", 4), ("reversible", 8)]  # with anchors every so many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 8), ("side", 64), ("batch", 1), ("levels", 4), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()

    def chain(number: int, dtype=torch.float32) -> Chain:
        return Chain(number, given.width, given.levels, given.side, given.batch).to(given.device, dtype)

    print(f"width {given.width}, {given.side} x {given.side}, batch {given.batch}, {given.device}, {torch.__version__}")
    print(f"one state is {chain(1).state_bytes():,} bytes")

    def error(number: int, dtype: torch.dtype) -> list[str]:
        plain = gradients(chain(number, dtype), "plain")
        return [f"{worst_error(gradients(chain(number, dtype), *backend), plain):.1e}" for backend in BACKENDS]

    def times(number: int) -> list[str]:
        timed = chain(number)
        rounds = [[step_seconds(timed, *backend) for backend in BACKENDS] for _ in range(given.rounds + 1)][1:]
        best = [min(seconds) for seconds in zip(*rounds, strict=True)]
        return [f"{seconds:.3f} ({seconds / best[0]:.2f})" for seconds in best]

    table("bytes kept for the backward pass", lambda n: [f"{saved_bytes(chain(n), *b):,}" for b in BACKENDS])
    table("seconds a step (relative to plain)", times)
    table("worst error of a gradient, float32", lambda n: error(n, torch.float32))
    table("worst error of a gradient, float64", lambda n: error(n, torch.float64))


def table(title: str, column: Callable[[int], list[str]]) -> None:
    """Print a row for each back-end and a column for each number of sub-decoders."""
    columns = [column(number) for number in NUMBERS]
    print(f"\n{title:36}" + "".join(f"{f'N={number}':>16}" for number in NUMBERS))
    for (backend, every), figures in zip(BACKENDS, zip(*columns, strict=True), strict=True):
        name = f"{backend}, anchor every {every}" if backend == "reversible" else backend
        print(f"{name:36}" + "".join(f"{figure:>16}" for figure in figures))


if __name__ == "__main__":
    main()
