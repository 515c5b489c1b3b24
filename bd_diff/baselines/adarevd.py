"""AdaRevD (Mao et al., CVPR 2024): a frozen encoder, N reversible sub-decoders, and tiles that leave them early.

    image -> encoder (frozen) -> features * learned scales -> bottleneck x, state s_0
    s_k = sub-decoder_k(x, s_{k-1})        result_k = image + head_k(finest map of s_k),   k = 1..N

The encoder is NAFNet's. UFPNet's, with which the paper's best figures were reached, is not implemented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from bd_diff.baselines.exits import THRESHOLDS, Classifier, derive_exit_table, run_to_depths
from bd_diff.baselines.nafnet import NAFEncoder, NAFNet
from bd_diff.baselines.released import check_keys, count, load_strictly, rename, unwrap
from bd_diff.baselines.reversible import BACKENDS, run_chain
from bd_diff.baselines.subdecoder import SubDecoder
from bd_diff.data.images import crop_to, pad_to_multiple
from bd_diff.data.tiles import Grid

VARIANTS = {"S": 2, "B": 4, "L": 8}


@dataclass(frozen=True)
class Restored:
    """Restored images `(B, 3, H, W)`, not clamped, and how many sub-decoders each tile ran: `(B, tiles)`."""

    images: Tensor
    depths: Tensor

    def report(self) -> list[dict]:
        """Per image: tiles, mean depth, and how many tiles left after each number of sub-decoders."""
        return [
            {
                "tiles": len(depths),
                "mean_depth": depths.float().mean().item(),
                "exits": {int(depth): int((depths == depth).sum()) for depth in depths.unique()},
            }
            for depths in self.depths
        ]


class AdaRevD(ModelMixin, ConfigMixin):
    """Blurry images `(B, 3, H, W)` in [0, 1] to sharp ones of the same size, not clamped; any size.

    In training mode `forward` runs every sub-decoder on the whole image and keeps for the backward pass what `backend`
    says (see `bd_diff.baselines.reversible`). In eval mode it is `restore`.

    variant: "S", "B" or "L" for 2, 4 or 8 sub-decoders, or their number.
    block: "fourier" (the paper's) or "naf" (cheaper), or one of them per sub-decoder.
    pool_window, tile, overlap: pixels of the image. The encoder sees each image once, with means over `pool_window`
        (None: over all of it); sub-decoders and classifier see tiles. The released settings, 384 / 384 / 32, are for a
        network trained on crops of 256: 1.5 times the crop is the rule.
    classifier_features: what the classifier reads, "e3" (last level) or "e4" (bottleneck); None: there is none.
    thresholds: dB between the classes; there is one class more.
    exit_psnr, exit_counts: what `measure_exits` found per class; exit_table: sub-decoders per class (`set_exits`).
    """

    @register_to_config
    def __init__(
        self,
        variant: str | int = "B",
        width: int = 64,
        backend: str = "checkpoint",
        anchor_every: int = 4,
        enc_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        layers: Sequence[int] = (1, 1, 1, 1),
        block: str | Sequence[str] = "fourier",
        pool_window: int | None = 384,
        tile: int = 384,
        overlap: int = 32,
        classifier_features: str | None = None,
        thresholds: Sequence[float] = THRESHOLDS,
        exit_psnr: Sequence[Sequence[float]] | None = None,
        exit_counts: Sequence[int] | None = None,
        exit_table: Sequence[int] | None = None,
    ):
        super().__init__()
        number = VARIANTS.get(variant, variant) if isinstance(variant, str) else variant
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"there is no variant {variant!r}; choose from {', '.join(VARIANTS)} or a number from 1")
        if backend not in BACKENDS:
            raise ValueError(f"there is no backend '{backend}'; choose from {', '.join(BACKENDS)}")
        if len(layers) != len(enc_blocks):
            raise ValueError(f"layers has {len(layers)} levels and enc_blocks {len(enc_blocks)}; give both as many")
        self.multiple = 2 ** len(enc_blocks)
        if tile % self.multiple or overlap % self.multiple:
            raise ValueError(f"tile is {tile} and overlap {overlap}; both must be multiples of {self.multiple}")
        blocks = [block] * number if isinstance(block, str) else block
        if len(blocks) != number:
            raise ValueError(f"block names {len(blocks)} sub-decoders and variant {variant!r} has {number}")
        channels = [width * 2**level for level in range(len(enc_blocks) + 1)]  # fine to coarse, as the encoder's
        self.encoder = NAFEncoder(width, enc_blocks, middle_blocks, pool_window).requires_grad_(False)
        self.scales = nn.ParameterList(torch.ones(1, c, 1, 1) for c in channels)
        self.decoders = nn.ModuleList(SubDecoder(channels[-2::-1], layers, kind) for kind in blocks)
        self.heads = nn.ModuleList(nn.Conv2d(width, 3, 3, padding=1) for _ in blocks)
        self.classifier = None
        if classifier_features is not None:
            self.classifier = self.new_classifier(classifier_features, thresholds)
        self.check_exit_table(exit_table)

    @property
    def depth(self) -> int:
        """How many sub-decoders there are."""
        return len(self.decoders)

    def new_classifier(self, features: str, thresholds: Sequence[float]) -> Classifier:
        if features not in ("e3", "e4"):
            raise ValueError(f"classifier_features is '{features}'; choose 'e3' (last level) or 'e4' (bottleneck)")
        if [*thresholds] != sorted(set(thresholds)):
            raise ValueError(f"thresholds are {[*thresholds]}; they must rise")
        return Classifier(self.scales[-1].shape[1], len(thresholds) + 1, halve=features == "e3")

    def add_classifier(self, features: str = "e3", thresholds: Sequence[float] = THRESHOLDS) -> None:
        """Put a new, untrained classifier in place of any old one, whose exits are dropped from the config."""
        self.classifier = self.new_classifier(features, thresholds).to(self.scales[-1])
        self.register_to_config(classifier_features=features, thresholds=[*thresholds])
        self.register_to_config(exit_psnr=None, exit_counts=None, exit_table=None)

    def load_encoder(self, network: NAFNet) -> None:
        """Take over the encoder of a trained NAFNet, whose width and blocks must be this one's."""
        load_strictly(self.encoder, network.encoder.state_dict(), "the NAFNet's encoder")

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Bottleneck and coarse-to-fine state of images whose sides are multiples of `self.multiple`."""
        with torch.no_grad():
            features = self.encoder(images)
        *state, bottleneck = (scale * feature for scale, feature in zip(self.scales, features, strict=True))
        return bottleneck, state[::-1]

    def every_depth(self, images: Tensor) -> list[Tensor]:
        """The results after 1, ..., N sub-decoders, untiled; what training compares with the sharp images."""
        height, width = images.shape[-2:]
        bottleneck, state = self.encode(pad_to_multiple(images, self.multiple))
        decoders, heads = cast("Sequence[SubDecoder]", self.decoders), [*self.heads]
        residuals = run_chain(decoders, heads, bottleneck, state, self.config.backend, self.config.anchor_every)
        return [images + crop_to(residual, height, width) for residual in residuals]

    def classify(self, bottleneck: Tensor, state: Sequence[Tensor]) -> Tensor:
        """Logits `(B, classes)` of how degraded each image or tile is."""
        if self.classifier is None:
            raise ValueError("this AdaRevD has no classifier; train one, or call add_classifier")
        return self.classifier(state[0] if self.config.classifier_features == "e3" else bottleneck)

    def choose_depths(self, bottleneck: Tensor, state: Sequence[Tensor]) -> Tensor:
        """Sub-decoders for each tile `(B,)`: by its class and the exit table, or all where there is no table."""
        if self.config.exit_table is None:
            return torch.full((len(bottleneck),), self.depth, device=bottleneck.device)
        table = torch.tensor(self.config.exit_table, device=bottleneck.device)
        return table[self.classify(bottleneck, state).argmax(1)]

    def restore(self, images: Tensor, depth: int | None = None, tiles_at_once: int = 8) -> Restored:
        """Restore images of any size, encoding each once and running each tile as deep as it needs.

        `depth` runs every tile for that many sub-decoders (0 gives the images back) instead of the exit table.
        """
        if depth is not None and not 0 <= depth <= self.depth:
            raise ValueError(f"depth is {depth}; it must be from 0 to {self.depth}")
        padded = pad_to_multiple(images, self.multiple)
        height, width = padded.shape[-2:]
        grid = Grid(height, width, self.config.tile, self.config.overlap)
        results = [self.restore_tiles(image, grid, depth, tiles_at_once) for image in padded]
        residuals, depths = (torch.stack(parts) for parts in zip(*results, strict=True))
        return Restored(images + crop_to(residuals, *images.shape[-2:]), depths)

    def restore_tiles(self, image: Tensor, grid: Grid, depth: int | None, tiles_at_once: int) -> tuple[Tensor, Tensor]:
        """Residual `(3, H, W)` of one image `(3, H, W)`, and the depth of each tile of its grid."""
        bottleneck, state = self.encode(image[None])
        residual, depths = torch.zeros_like(image), []
        for first in range(0, len(grid), tiles_at_once):
            tiles = range(first, min(first + tiles_at_once, len(grid)))
            x, *parts = (grid.cut(features[0], tiles) for features in (bottleneck, *state))
            deep = self.choose_depths(x, parts) if depth is None else torch.full((len(tiles),), depth, device=x.device)
            grid.paste(residual, run_to_depths(self.decoders, self.heads, x, parts, deep), tiles)
            depths.append(deep)
        return residual, torch.cat(depths)

    def forward(self, images: Tensor) -> Tensor:
        return self.every_depth(images)[-1] if self.training else self.restore(images).images

    def check_exit_table(self, table: Sequence[int] | None) -> None:
        """Raise if `table` does not name a depth of this network for each of its classes."""
        if table is None:
            return
        classes = len(self.config.thresholds) + 1
        if self.classifier is None:
            raise ValueError("exit_table needs a classifier; give classifier_features='e3' or 'e4'")
        if len(table) != classes or not all(0 <= depth <= self.depth for depth in table):
            raise ValueError(
                f"exit_table is {[*table]}; it must give {classes} classes a depth from 0 to {self.depth} each"
            )

    def set_exits(self, tau: float) -> list[int]:
        """Derive the exit table for a threshold of `tau` dB from the measured gains, and keep it in the config."""
        if self.config.exit_psnr is None:
            raise ValueError("this AdaRevD's exits have not been measured; run the exits stage of train/adarevd.py")
        table = derive_exit_table(self.config.exit_psnr, self.config.exit_counts, tau)
        self.register_to_config(exit_table=table)
        return table


NAMES = {  # released name -> ours; the rest of the key stays
    r"^encoder\.encoders\.": "encoder.levels.",
    r"^encoder\.middle_blks\.": "encoder.middle.",
    r"\bsca\.[01]\.": "attention.",
    r"^conv_features\.": "scales.",
    r"^subdenets\.": "decoders.",
    r"\.alpha(\d)$": r".alphas.\1",
    r"\.level(\d)\.": r".levels.\1.",
    r"\.fusion\.down\.0\.": ".fuse.down.",
    r"\.fusion\.down\.1\.body\.": ".fuse.norm.",
    r"\.fusion\.up\.0\.": ".fuse.up.",
    r"\.fft_block(\d)\.complex_conv1\.": r".fourier\1.expand.",
    r"\.fft_block(\d)\.complex_conv2\.": r".fourier\1.reduce.",
    r"^outputs\.(\d+)\.0\.": r"heads.\1.",
}
CLASSIFIER_NAMES = {
    r"^\d\.alpha$": "alpha",
    r"^\d\.classifier\.0\.": "norm.",
    r"^\d\.classifier\.1\.": "hidden.",
    r"^\d\.classifier\.3\.": "to_classes.",
    r"^0\.(weight|bias)$": r"down.\1",
    r"^\d\.((conv|norm)\d\.|sca\.|beta|gamma)": r"block.\1",
    r"\bsca\.[01]\.": "attention.",
}
RELEASED_THRESHOLDS = {6: THRESHOLDS, 8: (20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0)}  # classes: GoPro, RealBlur-R


def convert_released(
    state_dict: Mapping,
    classifier: Mapping | None = None,
    thresholds: Sequence[float] | None = None,
    exit_table: Sequence[int] | None = None,
) -> AdaRevD:
    """The network of a released AdaRevD checkpoint (`{"params": {...}}`) with a NAFNet encoder, loaded strictly.

    Width, variant, layers, blocks and classifier are read from keys and shapes. `classifier` is the separate
    classifier checkpoint, where there is one; `thresholds` and `exit_table` are not in any file: the thresholds default
    to the published ones for 6 and 8 classes, and without a table every tile runs in full. Read the files with
    `torch.load(path, weights_only=True)`.
    """
    state = unwrap(state_dict)
    check_keys(state, ["encoder.intro.weight", "subdenets.0.alpha0", "outputs.0.0.weight"], "an AdaRevD checkpoint")
    if any(key.startswith(("encoder.flow.", "encoder.kernel_extra.")) for key in state):
        raise ValueError(
            "this AdaRevD has a UFPNet encoder, which is not implemented; use one with a NAFNet encoder (none was "
            "released: train one from NAFNet-GoPro-width64.pth, see configs/adarevd/README.md)"
        )
    parts = {key.removeprefix("ape."): tensor for key, tensor in state.items() if key.startswith("ape.")}
    state = {key: tensor for key, tensor in state.items() if not key.startswith("ape.")}
    if classifier is not None:
        parts = {key.removeprefix("ape."): tensor for key, tensor in unwrap(classifier).items()}
    encoder_levels, number = count(state, r"encoder\.encoders\.(\d+)\."), count(state, r"subdenets\.(\d+)\.")
    network = AdaRevD(
        variant=next((name for name, n in VARIANTS.items() if n == number), number),
        width=state["encoder.intro.weight"].shape[0],
        enc_blocks=[count(state, rf"encoder\.encoders\.{level}\.(\d+)\.") for level in range(encoder_levels)],
        middle_blocks=count(state, r"encoder\.middle_blks\.(\d+)\."),
        layers=[count(state, rf"subdenets\.0\.level{level}\.blocks\.(\d+)\.") for level in range(encoder_levels)],
        block=[
            "fourier" if f"subdenets.{k}.level0.blocks.0.fft_block1.complex_conv1.weight" in state else "naf"
            for k in range(number)
        ],
    )
    state = rename(state, NAMES)
    if parts:
        add_released_classifier(network, parts, thresholds)
        state |= {f"classifier.{key}": tensor for key, tensor in rename(parts, CLASSIFIER_NAMES).items()}
    load_strictly(network, state)
    network.check_exit_table(exit_table)
    network.register_to_config(exit_table=exit_table and [*exit_table])
    return network.eval()


def add_released_classifier(network: AdaRevD, parts: dict[str, Tensor], thresholds: Sequence[float] | None) -> None:
    """Add the classifier that `parts` are the weights of, recognised by its keys and shapes."""
    head = "2" if "0.weight" in parts else "1"
    check_keys(parts, [f"{head}.alpha", f"{head}.classifier.3.weight"], "an AdaRevD classifier of degradation")
    classes = parts[f"{head}.alpha"].shape[1]
    thresholds = RELEASED_THRESHOLDS.get(classes) if thresholds is None else thresholds
    if thresholds is None:
        raise ValueError(f"the classifier has {classes} classes, which no published thresholds make; give thresholds")
    if len(thresholds) != classes - 1:
        raise ValueError(f"the classifier has {classes} classes; give {classes - 1} thresholds, not {len(thresholds)}")
    network.add_classifier("e3" if head == "2" else "e4", thresholds)
