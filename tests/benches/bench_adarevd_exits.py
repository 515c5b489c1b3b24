"""AdaRevD's exits: PSNR against multiplications over tau, beside uniform depth, random exits and an oracle.

    python tests/benches/bench_adarevd_exits.py MODEL PHOTOGRAPHS [--names FILE] [--size 480] [--limit 40]

MODEL is what stage `exits` of train/adarevd.py left. The photographs (those that FILE names) must not be among those it
was trained on or its exits derived from; each is blurred by the project's families. Multiplications include the
encoder, the overlap of the tiles and the classifier; FFTs are not counted. Images left sharp are counted apart: they
would outweigh the others in the mean.
"""

import argparse
from itertools import islice

import torch
from tqdm import tqdm

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.exit_costs import Costs, at_equal_macs, every_tile, oracle_depths, outcome, shuffled
from bd_diff.baselines.exits import derive_exit_table
from bd_diff.data.photographs import Photographs
from bd_diff.evaluation.evaluate import family_pairs

TAUS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # dB
RANDOM_DRAWS = 5


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photographs")
    parser.add_argument("--names")
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--limit", type=int, default=40)
    given = parser.parse_args()
    network = AdaRevD.from_pretrained(given.model)
    photographs = list(islice(Photographs(given.photographs, only=given.names), given.limit))
    pairs = family_pairs(photographs, size=given.size)
    sharp = [network.restore(pair.blurry[None]).depths for pair in pairs if pair.family == "sharp"]
    print(f"tiles of sharp images run {torch.cat(sharp, 1).float().mean():.2f} of {network.depth} sub-decoders")
    pairs = [pair for pair in pairs if pair.family != "sharp"]
    cases = [every_tile(network, pair.blurry, pair.sharp) for pair in tqdm(pairs, desc="images")]
    costs, tiles = Costs(network), [len(case.grid) for case in cases]
    uniform = {}
    for depth in range(network.depth + 1):
        uniform[depth] = outcome(cases, [[depth] * number for number in tiles], costs, classified=False)
    full = uniform[network.depth]
    untiled = sum(costs.untiled(case.grid) for case in cases) / len(cases)
    print(f"{len(cases)} images, {sum(tiles)} tiles; GMACs per image; untiled at full depth {untiled / 1e9:.2f}")
    print(f"{'choice':34}{'depth':>7}{'GMACs':>9}{'saved':>8}{'dB':>8}{'loss':>8}{'beyond uniform':>16}")

    def show(name: str, found) -> None:
        saved, loss = 1 - found.macs / full.macs, full.psnr - found.psnr
        beyond = found.psnr - at_equal_macs(uniform, found.macs)
        figures = f"{found.mean_depth:7.2f}{found.macs / 1e9:9.2f}{saved:8.1%}{found.psnr:8.2f}{loss:8.3f}"
        print(f"{name:34}{figures}{beyond:16.3f}")

    for depth, found in uniform.items():
        show(f"uniform depth {depth}", found)
    for tau in TAUS:
        table = derive_exit_table(network.config.exit_psnr, network.config.exit_counts, tau)
        chosen = [[table[name] for name in case.classes] for case in cases]
        show(f"classifier, tau {tau}: {table}", outcome(cases, chosen, costs, classified=True))
        generator = torch.Generator().manual_seed(0)
        draws = [outcome(cases, shuffled(chosen, generator), costs, classified=False) for _ in range(RANDOM_DRAWS)]
        mean = sum(found.psnr for found in draws) / RANDOM_DRAWS
        show("  the same depths at random", type(draws[0])(draws[0].mean_depth, draws[0].macs, mean))
        show("  oracle with this tau", outcome(cases, [oracle_depths(case, tau) for case in cases], costs, False))


if __name__ == "__main__":
    main()
