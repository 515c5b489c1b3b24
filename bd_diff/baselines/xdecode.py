"""X-DECODE (arXiv 2504.08072): a pix2pix generator and a PatchGAN discriminator, and their objectives.

The state dicts bear the names of the authors' released weights. Each stage owns a batch norm as theirs does, even where
it is not used; the unused ones take no gradient.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.func import functional_call

from bd_diff.baselines.released import check_keys, load_strictly, read_checkpoint, unwrap
from bd_diff.training.losses import Perceptual, hinge_discriminator, hinge_generator, weighted_sum
from bd_diff.training.pairs import BlurConfig, make_pair

Network = TypeVar("Network", bound=nn.Module)

PUBLISHED_WEIGHTS = {"adversarial": 1.0, "l1": 30.0, "perceptual": 1.0}  # of the generator's losses
KERNEL = 4  # every convolution of both networks is 4x4 with padding 1


def stage(name: str, convolution: nn.Conv2d | nn.ConvTranspose2d, normalized: bool) -> nn.ModuleDict:
    """A convolution, called `name`, and the batch norm after it (`bn`)."""
    bn = nn.BatchNorm2d(convolution.out_channels).requires_grad_(normalized)
    return nn.ModuleDict({name: convolution, "bn": bn})


def initialize(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions and, around 1, for batch norms; biases 0: pix2pix's start."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def from_released(path: str | Path, build: Callable[[int], Network]) -> Network:
    """`build(width of the first stage)`, filled with a released `.pkl` state dict.

    Raises ValueError naming a key that is missing, unknown or of another shape.
    """
    state = unwrap(read_checkpoint(path))
    check_keys(state, ["conv1.conv.weight"], "an X-DECODE state dict")
    network = build(state["conv1.conv.weight"].shape[0])
    load_strictly(network, state, str(path))
    return network.eval()


class Generator(ModelMixin, ConfigMixin):
    """Blurry pixels `(B, 3, H, W)` in [-1, 1] -> sharp pixels in [-1, 1]; H and W multiples of `2 ** depth`.

    ngf: channels of the first stage. depth: stages down and up; 8 is the published network (multiples of 256).
    The released code applies LeakyReLU in place, so its skips carry the feature after LeakyReLU; since every stage of
    the decoder begins with ReLU, and ReLU(LeakyReLU(x)) = ReLU(x), the output is that of plain skips.
    """

    tiling = 1024, 256  # larger images are restored in tiles of so many pixels a side, with such an overlap

    @register_to_config
    def __init__(self, ngf: int = 96, depth: int = 8):
        super().__init__()
        if depth < 4:
            raise ValueError(f"depth is {depth}; the generator needs at least 4 stages, the published one has 8")
        widths = [ngf * min(2**level, 8) for level in range(depth)]
        for number, (wide, width) in enumerate(pairwise([3, *widths]), start=1):
            conv = nn.Conv2d(wide, width, KERNEL, stride=2, padding=1)
            self.add_module(f"conv{number}", stage("conv", conv, normalized=1 < number < depth))
        outputs = [*widths[-2::-1], 3]
        inputs = [widths[-1], *(2 * width for width in outputs[:-1])]  # the decoder's own feature and the skip
        for number, (wide, width) in enumerate(zip(inputs, outputs, strict=True), start=1):
            deconv = nn.ConvTranspose2d(wide, width, KERNEL, stride=2, padding=1)
            self.add_module(f"deconv{number}", stage("deconv", deconv, normalized=number < depth))
        self.apply(initialize)

    @classmethod
    def from_released(cls, path: str | Path) -> "Generator":
        """The generator of a released `generator_*.pkl`, in evaluation mode."""
        return from_released(path, cls)

    @property
    def multiple(self) -> int:
        """Both sides of an image must be multiples of this."""
        return 2**self.config.depth

    def forward(self, pixels: Tensor) -> Tensor:
        depth = self.config.depth
        skips = [self.conv1["conv"](pixels)]
        for number in range(2, depth + 1):
            down = self.get_submodule(f"conv{number}")
            hidden = down["conv"](F.leaky_relu(skips[-1], 0.2))
            skips.append(down["bn"](hidden) if number < depth else hidden)
        hidden = skips.pop()  # (B, 8 ngf, H / multiple, W / multiple)
        for number in range(1, depth):
            up = self.get_submodule(f"deconv{number}")
            hidden = up["bn"](up["deconv"](F.relu(hidden)))
            hidden = F.dropout(hidden, 0.5, self.training and number <= 3)
            hidden = torch.cat([hidden, skips.pop()], 1)
        return self.get_submodule(f"deconv{depth}")["deconv"](F.relu(hidden)).tanh()


class Discriminator(ModelMixin, ConfigMixin):
    """Scores `(B, 1, h, w)`, one per patch of 70 pixels, for candidate sharp pixels given the blurry ones.

    sigmoid: squash the scores into (0, 1), as the released code does although its hinge loss wants raw scores. Measured
        at lr 1e-3 on configs/xdecode/study.yaml in batches of 8, mean of steps 101 to 150: the hinge loss is 1.98 with
        the sigmoid and 1.52 without; 2 means that the discriminator does not tell sharp from restored at all.
    """

    @register_to_config
    def __init__(self, ndf: int = 96, sigmoid: bool = False):
        super().__init__()
        for number, (wide, width) in enumerate(pairwise([6, ndf, 2 * ndf, 4 * ndf, 8 * ndf, 1]), start=1):
            conv = nn.Conv2d(wide, width, KERNEL, stride=2 if number < 4 else 1, padding=1)
            self.add_module(f"conv{number}", stage("conv", conv, normalized=1 < number < 5))
        self.apply(initialize)

    @classmethod
    def from_released(cls, path: str | Path, sigmoid: bool = True) -> "Discriminator":
        """The discriminator of a released state dict, which was trained with the sigmoid; in evaluation mode."""
        return from_released(path, lambda ndf: cls(ndf, sigmoid))

    def forward(self, blurry: Tensor, candidate: Tensor) -> Tensor:
        """Both `(B, 3, H, W)` in [-1, 1], sides at least 24."""
        hidden = self.conv1["conv"](torch.cat([blurry, candidate], 1))
        for layer in (self.conv2, self.conv3, self.conv4):
            hidden = layer["bn"](layer["conv"](F.leaky_relu(hidden, 0.2)))
        scores = self.conv5["conv"](F.leaky_relu(hidden, 0.2))
        return scores.sigmoid() if self.config.sigmoid else scores


class DiscriminatorObjective(nn.Module):
    """The discriminator's objective: hinge loss between sharp and restored images, given the blurry ones."""

    def __init__(self, discriminator: Discriminator, generator: Generator, blur: BlurConfig):
        super().__init__()
        self.discriminator, self.blur = discriminator, blur
        self.others = (generator,)  # in a tuple, so that its weights are not part of this module

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        blurry, sharp = (2 * images - 1 for images in make_pair(batch, self.blur, generator))
        with torch.no_grad():
            restored = self.others[0](blurry)
        loss = hinge_discriminator(self.discriminator(blurry, sharp), self.discriminator(blurry, restored))
        return {"loss": loss, "critic": loss}


class GeneratorObjective(nn.Module):
    """The generator's objective: adversarial loss, L1 to the sharp image, and perceptual loss (VGG16).

    weights: of `adversarial`, `l1` and `perceptual`; one that is 0 or not given is off, and VGG16's weights are needed
    only for `perceptual`. Raises ValueError for another name.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        blur: BlurConfig,
        weights: Mapping[str, float] = PUBLISHED_WEIGHTS,
        perceptual: Callable[[], nn.Module] = Perceptual,
    ):
        super().__init__()
        if unknown := sorted(set(weights) - set(PUBLISHED_WEIGHTS)):
            raise ValueError(f"there is no loss {unknown[0]!r}; the losses are {', '.join(PUBLISHED_WEIGHTS)}")
        self.generator, self.blur = generator, blur
        self.others = (discriminator,)
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if "perceptual" in self.weights:
            self.perceptual = perceptual()

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        blurry, sharp = (2 * images - 1 for images in make_pair(batch, self.blur, generator))
        restored = self.generator(blurry)
        losses = {"adversarial": hinge_generator(self.judge(blurry, restored)), "l1": F.l1_loss(restored, sharp)}
        if "perceptual" in self.weights:
            losses["perceptual"] = self.perceptual((restored + 1) / 2, (sharp + 1) / 2)
        return {"loss": weighted_sum(self.weights, losses), **losses}

    def judge(self, blurry: Tensor, restored: Tensor) -> Tensor:
        """The discriminator's scores, with gradients for the images but none for the discriminator."""
        critic = self.others[0]
        fixed = {name: weight.detach() for name, weight in critic.named_parameters()}
        return functional_call(critic, fixed, (blurry, restored))
