"""The joint objective of BD-Diff: its task table (arXiv 2502.01522) as losses, every network used in every step."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.kernels import SIZE, normalize
from bd_diff.blur.operator import reblur
from bd_diff.blur.synthesis import draw_fields, draw_kernels
from bd_diff.data.pixels import luminance
from bd_diff.models.conditioning import (
    condition,
    deblur_guesses,
    exact,
    explain,
    guess_count,
    min_snr_weights,
    prediction_target,
    to_latents,
    to_pixels,
    transfer_guesses,
)
from bd_diff.models.lag_maps import lag_maps
from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.models.samplers import take_step
from bd_diff.training.encode_once import EncodeOnce
from bd_diff.training.losses import kernel_loss, weighted_sum
from bd_diff.training.tasks import Denoising, Sampling

READER_TASKS = ("kernel", "carry")
TARGET_TASKS = ("cross_crop", "reconstruction", "back_translation")
ERRORS = ("absolute", "squared", "log")
LOG_FLOOR = 1e-3  # added to squared errors of latents; of the small model it is 54 dB
CARRIED_SIZES, LARGER = (49, 65, 97, 129), 0.25  # pixels a side of a kernel, and how often it has one of these


class JointObjective(nn.Module):
    """`forward(batch, generator) -> {"loss": ..., <one entry per task>}`.

    | task            | structure from | blur from        | must produce                              |
    |-----------------|----------------|------------------|-------------------------------------------|
    | kernel          |                | k * x, or banked | k, through its tokens (ours)              |
    | carry           |                | k, given         | k, through its tokens (ours)              |
    | deblur          | k * x          | none             | x                                         |
    | identity        | x              | none             | x (the share of k that is no blur)        |
    | transfer        | x1             | k * x2           | k * x1                                    |
    | cross_crop      | y, crop 1      | y, crop 2        | y, crop 1                                 |
    | reconstruction  | y              | y                | y, from its deblurred estimate            |
    | back_translation| y'             | none             | x, where y' = x with the blur of y, noisy |

    x sharp, k a synthetic blur, y an unpaired blurry photograph of the target domain. Tasks on y are there when the
    batch has `target`. `weights` gives each task's share of the loss; a task of weight 0 is left out, with the first
    two alone the UNet does not run, and with `carry` alone no photograph is looked at. `carried` kernels are carried in
    a step; `transfer_rows` and `target_rows` of a batch take part in transfer and in the tasks on y. The synthetic blur
    averages display values, or with a `curve` (see `bd_diff.blur.camera`) the light; with a `variation` (see
    `bd_diff.blur.synthesis`) it differs over the image, and k is the one in the middle. Without a blur decoder among
    the networks there are no kernels: the UNet sees the image alone, beside the tokens, as in the paper.
    """

    networks: Any  # nn.ModuleDict of diffusers' models, which have more methods than its type says
    steps: Tensor

    def __init__(
        self,
        networks: nn.ModuleDict,
        scheduler,
        weights: dict[str, float],
        families: dict[str, float],
        variation: float = 0.0,
        noise: float = 2 / 255,
        curve: float | str = 1.0,
        curve_share: float = 1.0,
        jpeg: int = 0,
        jpeg_share: float = 0.5,
        noise_skew: float = 1.0,
        transfer_rows: int = 2,
        target_rows: int = 1,
        crop: int = 128,
        last_step_share: float = 0.75,
        back_translation_from: int = 0,
        residual: bool = True,
        error: str = "absolute",
        snr_gamma: float = 0.0,
        sampling_steps: int = 1,
        linear_light: bool = False,
        consistency: float = 0.0,
        carried: int = 4,
    ):
        super().__init__()
        if error not in ERRORS:
            raise ValueError(f"error is {error!r}; it must be one of {', '.join(ERRORS)}")
        unknown = set(weights) - {*READER_TASKS, "deblur", "transfer", *TARGET_TASKS}
        if unknown:
            raise ValueError(f"there is no task {', '.join(sorted(unknown))} to weigh")
        self.networks, self.scheduler, self.weights, self.families = networks, scheduler, weights, families
        self.variation, self.noise = variation, noise
        self.camera = RandomCamera(noise, curve, curve_share, jpeg, jpeg_share, noise_skew)
        self.transfer_rows, self.target_rows = transfer_rows, target_rows
        self.linear_light, self.consistency, self.carried = linear_light, consistency, carried
        self.crop, self.last_step_share, self.back_translation_from = crop, last_step_share, back_translation_from
        self.residual, self.error, self.snr_gamma, self.sampling_steps = residual, error, snr_gamma, sampling_steps
        self.restores = any(weight for task, weight in weights.items() if task not in READER_TASKS)
        if "blur_decoder" not in networks and (not self.restores or any(weights.get(task) for task in READER_TASKS)):
            raise ValueError("weights: without a blur_decoder no kernel is learned; kernel and carry must be 0")
        self.carries_alone = [task for task, weight in weights.items() if weight] == ["carry"]
        self.remembering: EncodeOnce | None = None
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        if not any(parameter.requires_grad for parameter in self.networks["vae"].parameters()):
            self.remembering = EncodeOnce(self.networks["vae"])
        losses = self.tasks(batch, generator)
        self.remembering = None
        # Processes stay in step only where every parameter has a gradient: the kernel counts with a weight of 0, too.
        counted = {task: self.weights.get(task) or 0.0 for task in losses}
        counted = {task: weight for task, weight in counted.items() if weight or task == "kernel"}
        losses["loss"] = weighted_sum(counted, losses)
        self.steps += int(self.training)
        return losses

    @property
    def vae(self) -> nn.Module | EncodeOnce:
        """The VAE, which within a step encodes every image once where it is frozen."""
        return self.remembering or self.networks["vae"]

    def tasks(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """The loss of every task."""
        carried = {"carry": self.carry(generator)} if self.weights.get("carry") else {}
        if self.carries_alone:
            return carried
        with torch.autocast(batch["sharp"].device.type, enabled=False):
            sharp, blurry, kernels, seen = self.synthesize(batch, generator)
        read = len(seen["maps"])
        features, tokens, estimated = self.read_blur(blurry[:read], **seen)
        structure, guess = features.structure, detached(estimated)
        rows = slice(0, self.transfer_rows)
        other = torch.arange(read, device=sharp.device).roll(1)[rows]  # whose blur is transferred
        if "estimates_estimate" in batch:
            structure = torch.cat([structure, self.structure_of(blurry[read:])])
            guess = None if guess is None else torch.cat([guess, batch["estimates_estimate"]])
        losses = carried if estimated is None else carried | {"kernel": kernel_loss(estimated, kernels[:read])}
        if not self.restores:  # processes stay in step only where every parameter has a gradient
            losses["kernel"] = losses["kernel"] + 0 * (structure.sum() + self.tokens(structure, tokens, 0.0).sum())
        tasks: dict[str, Denoising] = {}
        if self.restores:
            guesses = self.deblur_guesses(blurry, guess)
            task = self.prepare(sharp, guesses, structure, tokens[:1], 0.0, self.draw(sharp, generator))
            tasks["deblur"] = replace(task, solve=self.solver(task.start, blurry, guess))
        if self.weights.get("transfer"):
            tasks["transfer"] = self.prepare(
                exact(reblur)(sharp[rows], kernels[other]),
                transfer_guesses(sharp[rows], detached(guess, other)),
                self.structure_of(sharp[rows]),
                tokens[other],
                strength=1.0,
                drawn=self.draw(sharp[rows], generator),
            )
        if "target" in batch and any(self.weights.get(task) for task in TARGET_TASKS):
            tasks |= self.target_tasks(batch["target"][: self.target_rows] * 2 - 1, sharp, generator)
            if self.weights.get("back_translation"):
                losses["back_translation"] = sharp.new_zeros(())  # before its step
        return losses | self.denoise(tasks)

    def carry(self, generator: Generator) -> Tensor:
        """How differently given kernels blur once they have been through their tokens, and half their L1 distance.

        Of four kernels one is a mixture of two, as doubtful readings are. At every fourth step all are larger than
        `SIZE`, every second one of these because it is made larger.
        """
        kernels, _ = draw_kernels(self.carried, generator, self.families)
        shares = torch.rand(len(kernels[::4]), 1, 1, generator=generator)
        kernels[::4] = kernels[::4].lerp(kernels.roll(-1, 0)[::4], shares)
        kernels = kernels.to(self.steps.device)
        size = SIZE
        if torch.rand((), generator=generator) < LARGER:
            size = CARRIED_SIZES[int(torch.randint(len(CARRIED_SIZES), (), generator=generator))]
            kernels = kernels[: max(2, self.carried * SIZE**2 // size**2)]
            enlarged = F.interpolate(kernels[::2, None], (size, size), mode="bilinear", align_corners=True)[:, 0]
            kernels = torch.cat([normalize(enlarged), F.pad(kernels[1::2], ((size - SIZE) // 2,) * 4)])
        tokens = self.networks["blur_qformer"](self.networks["image_encoder"].encode_kernel(kernels))
        carried = self.networks["blur_decoder"](tokens, size)
        return kernel_loss(carried, kernels) + 0.5 * (carried - kernels).abs().sum((1, 2)).mean()

    def target_tasks(self, target: Tensor, sharp: Tensor, generator: Generator) -> dict[str, Denoising]:
        """Tasks on unpaired photographs: two crops of each, `(B, 2, 3, H, W)` in [-1, 1]."""
        first, second = target.unbind(1)
        count = len(first)
        features, tokens, kernels = self.read_blur(torch.cat([first, second]))
        structure, own, other = features.structure[:count], detached(kernels, slice(count)), slice(count, None)
        blurs = {  # cross_crop's blur comes from elsewhere: tokens can carry blur but never this crop's content
            "cross_crop": (detached(kernels, other), tokens[other]),
            "reconstruction": (own, tokens[:count]),
        }
        blurs = {task: blur for task, blur in blurs.items() if self.weights.get(task)}
        translates = bool(self.weights.get("back_translation")) and self.steps >= self.back_translation_from
        # Both estimates are sampled in one loop, from numbers that are drawn in the order of the tasks.
        estimates, drawn = [], {}
        if blurs:
            with torch.no_grad():
                faded = self.tokens(structure, tokens[:count], 0.0)
                noise = torch.randn(self.latent_shape(first), generator=generator)
                estimates.append(Sampling(self.deblur_guesses(first, own), faded, noise, deblurs=True))
            drawn = {task: self.draw(first, generator) for task in blurs}
        if translates:
            sharp = sharp[:count]
            with torch.no_grad():
                blurring = self.tokens(self.structure_of(sharp), tokens[: len(sharp)], 1.0)
                noise = torch.randn(self.latent_shape(sharp), generator=generator)
                guesses = transfer_guesses(sharp, detached(own, slice(len(sharp))))
                estimates.append(Sampling(guesses, blurring, noise, deblurs=False))
                sigma = 2 * self.noise * torch.rand(len(sharp), 1, 1, 1, generator=generator)
                grain = sigma * torch.randn(sharp.shape, generator=generator)
            drawn["back_translation"] = self.draw(sharp, generator)
        sampled = self.sample(estimates)
        tasks = {
            task: self.prepare(first, transfer_guesses(sampled[0], kernel), structure, blur, 1.0, drawn[task])
            for task, (kernel, blur) in blurs.items()
        }
        if translates:
            pseudo = (sampled[-1] + grain.to(sharp.device)).clamp(-1, 1)
            pseudo_features, pseudo_tokens, pseudo_kernels = self.read_blur(pseudo)
            guesses = self.deblur_guesses(pseudo, detached(pseudo_kernels))
            tasks["back_translation"] = self.prepare(
                sharp, guesses, pseudo_features.structure, pseudo_tokens, 0.0, drawn["back_translation"]
            )
        return tasks

    def synthesize(self, batch: dict[str, Tensor], generator: Generator):
        """Sharp and blurry pixels `(B, 3, H, W)` in [-1, 1], true kernels, and what the encoder sees of the blur.

        The first rows take a kernel from the bank, with the lag maps and the search's findings of the photograph it was
        banked with; the next ones a new kernel; the last ones a kernel with a known estimate, so that their blur need
        not be read. Blur is read from the whole window, as it will be at inference; the restorer works on a crop of it.
        """
        wide = batch["sharp"]
        fields = draw_fields(len(wide), generator, self.families, self.variation, device=wide.device)
        banked = len(batch["bank_kernel"]) if "bank_kernel" in batch else 0
        read = len(wide) - (len(batch["estimates_kernel"]) if "estimates_kernel" in batch else 0)
        if banked:
            fields[:banked] = batch["bank_kernel"][:, None, None]
        if read < len(wide):
            fields[read:] = batch["estimates_kernel"][:, None, None]
        kernels = fields[:, fields.shape[1] // 2, fields.shape[2] // 2]
        blurry = self.camera.capture(wide, fields, generator)
        maps, spectrum = lag_maps(blurry[banked:read])
        seen = {"maps": maps, "spectrum": spectrum}
        if banked:
            nothing = kernels.new_zeros(read - banked, SIZE, SIZE)
            bank_maps, bank_spectrum = lag_maps(batch["bank_blurry"] / 255)
            seen = {
                "maps": torch.cat([bank_maps, maps]),
                "spectrum": torch.cat([bank_spectrum, spectrum]),
                "hypothesis": torch.cat([batch["bank_hypothesis"], nothing]),
                "evidence": torch.cat([batch["bank_evidence"], nothing[:, None].expand(-1, 2, -1, -1)]),
            }
        span = blurry.shape[-1] - self.crop + 1
        top, left = (int(torch.randint(span, (), generator=generator)) for _ in range(2))
        blurry = blurry[..., top : top + self.crop, left : left + self.crop]
        top, left = top + SIZE // 2, left + SIZE // 2
        sharp = wide[..., top : top + self.crop, left : left + self.crop]
        return sharp * 2 - 1, blurry * 2 - 1, kernels, seen

    def read_blur(self, pixels: Tensor, maps=None, spectrum=None, hypothesis=None, evidence=None):
        """Features, blur tokens `(B, T, D)` and kernels `(B, k, k)` of blurry pixels; None without a blur decoder."""
        if maps is None:
            maps, spectrum = exact(lag_maps)((luminance(pixels.float()) + 1) / 2)
        features = self.networks["image_encoder"].encode_blur(maps, spectrum, hypothesis, evidence)
        features.structure = self.structure_of(pixels)
        tokens = self.networks["blur_qformer"](features.blur)
        if "blur_decoder" not in self.networks:
            return features, tokens, None
        return features, tokens, self.networks["blur_decoder"](tokens)

    def structure_of(self, pixels: Tensor) -> Tensor:
        return self.networks["image_encoder"].encode_structure(pixels)

    def tokens(self, structure: Tensor, blur_tokens: Tensor, strength: float) -> Tensor:
        """`(B, S + T, D)`: structure tokens, then blur tokens faded towards "no blur", of each image or of one."""
        faded = self.networks["blur_qformer"].fade(blur_tokens, strength)
        return torch.cat([self.networks["structure_qformer"](structure), faded.expand(len(structure), -1, -1)], 1)

    def latent_shape(self, pixels: Tensor) -> tuple[int, int, int, int]:
        """The shape `(B, c, h, w)` of the latents of pixels `(B, 3, H, W)`."""
        config, (height, width) = self.networks["vae"].config, pixels.shape[-2:]
        scale = 2 ** (len(config.block_out_channels) - 1)
        return len(pixels), config.latent_channels, height // scale, width // scale

    def draw(self, pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Random timesteps `(B,)`, a share of them the last one, and noise `(B, c, h, w)` for pixels `(B, 3, H, W)`."""
        last = self.scheduler.config.num_train_timesteps - 1
        timesteps = torch.randint(last + 1, (len(pixels),), generator=generator)
        timesteps[torch.rand(len(pixels), generator=generator) < self.last_step_share] = last
        noise = torch.randn(self.latent_shape(pixels), generator=generator)
        return timesteps.to(pixels.device), noise.to(pixels.device)

    def prepare(
        self, wanted, guesses, structure, blur_tokens, strength: float, drawn: tuple[Tensor, Tensor]
    ) -> Denoising:
        """A task whose result should be the pixels `wanted` `(B, 3, H, W)`, with what `draw` drew for it."""
        timesteps, noise = drawn
        start, seen = self.start(guesses)
        clean = to_latents(self.vae, wanted) - start
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        target = prediction_target(self.scheduler, clean, noise, timesteps)
        tokens = self.tokens(structure, blur_tokens, strength)
        return Denoising(torch.cat([noisy, seen], 1), timesteps, tokens, target, start)

    def solver(self, start: Tensor, pixels: Tensor, kernels: Tensor | None) -> Callable[[Tensor], Tensor] | None:
        """What moves a prediction `(B, c, h, w)` to where it explains blurry pixels under the kernels, as the sampler
        does (unrolled once); None without `consistency`. start: what predictions count from.
        """
        if kernels is None or not self.consistency:
            return None
        vae = self.networks["vae"]

        def solve(predicted: Tensor) -> Tensor:
            estimates = to_pixels(vae, start + predicted)
            return to_latents(vae, explain(estimates, pixels, kernels, self.consistency, self.linear_light)) - start

        return solve

    def denoise(self, tasks: dict[str, Denoising]) -> dict[str, Tensor]:
        """Denoising loss of every task: the mean error of the prediction.

        The UNet runs once for the images of all tasks, which is faster than once for each task, and the same.
        """
        if not tasks:
            return {}
        rows = [len(task.timesteps) for task in tasks.values()]
        noisy = torch.cat([task.noisy for task in tasks.values()])
        timesteps = torch.cat([task.timesteps for task in tasks.values()])
        tokens = torch.cat([task.tokens for task in tasks.values()])
        predicted = self.networks["unet"](noisy, timesteps, tokens).sample.float().split(rows)
        return {name: self.error_of(part, task) for (name, task), part in zip(tasks.items(), predicted, strict=True)}

    def error_of(self, predicted: Tensor, task: Denoising) -> Tensor:
        """The mean error of a prediction `(B, c, h, w)`, its timesteps weighted where `snr_gamma` says so."""
        error = (predicted if task.solve is None else task.solve(predicted)) - task.target
        error = error.abs() if self.error == "absolute" else error.square()
        if self.error == "log":
            error = (error.mean((1, 2, 3), keepdim=True) + LOG_FLOOR).log()
        if self.snr_gamma:
            error = error * min_snr_weights(self.scheduler, task.timesteps, self.snr_gamma)[:, None, None, None]
        return error.mean()

    def deblur_guesses(self, pixels: Tensor, kernels: Tensor | None) -> Tensor:
        return deblur_guesses(pixels, kernels, self.linear_light)

    @torch.no_grad()
    def sample(self, wanted: list[Sampling]) -> list[Tensor]:
        """Pixels `(B, 3, H, W)` in [-1, 1] of each, in `sampling_steps` steps, in which the UNet runs for all."""
        if not wanted:
            return []
        starts, seen = zip(*(self.start(one.guesses) for one in wanted), strict=True)
        condition, tokens = torch.cat(seen), torch.cat([one.tokens for one in wanted])
        latents = torch.cat([one.noise for one in wanted]).to(condition.device)
        self.scheduler.set_timesteps(self.sampling_steps, device=condition.device)
        for i, t in enumerate(self.scheduler.timesteps, 1):
            output = self.networks["unet"](torch.cat([latents, condition], 1), t, tokens).sample
            latents = take_step(self.scheduler, output, t, latents, last=i == len(self.scheduler.timesteps))
        vae, found = self.networks["vae"], latents.split([len(start) for start in starts])
        detailed = isinstance(vae, RefinedVAE)
        return [
            to_pixels(vae, start + part, one.guesses[:, 0] if one.deblurs and detailed else None)
            for one, start, part in zip(wanted, starts, found, strict=True)
        ]

    def start(self, guesses: Tensor) -> tuple[Tensor, Tensor]:
        """Where the diffused latents count from (the first guess, or zero), and the UNet's condition."""
        first, seen = condition(self.vae, guesses, guess_count(self.linear_light))
        return (first if self.residual else torch.zeros_like(first)), seen


def detached(kernels: Tensor | None, rows: slice | Tensor = slice(None)) -> Tensor | None:
    """Rows of kernels `(B, k, k)` as data, through which nothing learns; None where there are none."""
    return None if kernels is None else kernels[rows].detach()
