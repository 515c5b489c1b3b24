"""The joint objective of BD-Diff: its task table (arXiv 2502.01522) as losses, every network used in every step."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.disturbance import disturb_kernels, thicken
from bd_diff.blur.kernels import SIZE, transfer_function
from bd_diff.blur.synthesis import draw_fields
from bd_diff.conditioning import (
    LIGHT_ODDS,
    condition,
    deblur_guesses,
    exact,
    explain,
    guess_count,
    look_back,
    min_snr_weights,
    prediction_target,
    structure_views,
    to_latents,
    to_pixels,
    transfer_guesses,
)
from bd_diff.metrics import luminance
from bd_diff.models.blur_operator import natural_power, reblur
from bd_diff.models.lag_maps import lag_maps

TARGET_TASKS = ("cross_crop", "reconstruction", "back_translation")


class JointObjective(nn.Module):
    """`forward(batch, generator) -> {"loss": ..., <one entry per task>}`.

    | task            | structure from | blur from        | must produce                              |
    |-----------------|----------------|------------------|-------------------------------------------|
    | kernel          |                | k * x, or banked | k (ours: supervises the blur decoder)     |
    | deblur          | k * x          | none             | x                                         |
    | identity        | x              | none             | x (the share of k that is no blur)        |
    | transfer        | x1             | k * x2           | k * x1                                    |
    | cross_crop      | y, crop 1      | y, crop 2        | y, crop 1                                 |
    | reconstruction  | y              | y                | y, from its deblurred estimate            |
    | back_translation| y'             | none             | x, where y' = x with the blur of y, noisy |

    x sharp, k a synthetic blur, y an unpaired blurry photograph of the target domain. Tasks on y are there when the
    batch has `target`. `weights` gives each task's share of the loss; a task of weight 0 is left out, and with the
    kernel alone the UNet does not run. `transfer_rows` and `target_rows` of a batch take part in transfer and in the
    tasks on y. The synthetic blur averages display values, or with a `curve` (see `bd_diff.blur.camera`) the light;
    with a `variation` (see `bd_diff.blur.synthesis`) it differs over the image, and k is the one in the middle.
    Without a blur decoder among the networks there are no kernels: the UNet sees the image alone, beside the tokens, as
    in the paper.

    given_kernels: blur is not read, and only deblurring is trained: by the true kernels as estimates would have them
        (`bd_diff.blur.disturbance`), and by the known estimates of a batch that has some.
    thick_share: of the synthetic kernels are thickened, see there.
    consistency: what deblurring is judged by is the prediction moved to where it explains the photograph
        (`bd_diff.conditioning.explain`) with this weight times the UNet's trust, and `unsolved_share` of the prediction
        itself; 0 is the prediction alone.
    looks_back: deblurring is trained in two steps, the second from the first's solved estimate, of which the UNet is
        told (`bd_diff.conditioning.look_back`), at half the timestep. The first counts half.
    """

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
        given_kernels: bool = False,
        thick_share: float = 0.0,
        consistency: float = 0.0,
        unsolved_share: float = 0.1,
        looks_back: bool = False,
    ):
        super().__init__()
        if error not in ("absolute", "squared"):
            raise ValueError(f"error is {error!r}; it must be absolute or squared")
        unknown = set(weights) - {"kernel", "deblur", "transfer", *TARGET_TASKS}
        if unknown:
            raise ValueError(f"there is no task {', '.join(sorted(unknown))} to weigh")
        self.networks, self.scheduler, self.weights, self.families = networks, scheduler, weights, families
        self.variation, self.noise = variation, noise
        self.camera = RandomCamera(noise, curve, curve_share, jpeg, jpeg_share, noise_skew)
        self.transfer_rows, self.target_rows = transfer_rows, target_rows
        self.linear_light = linear_light
        self.crop, self.last_step_share, self.back_translation_from = crop, last_step_share, back_translation_from
        self.residual, self.error, self.snr_gamma, self.sampling_steps = residual, error, snr_gamma, sampling_steps
        self.restores = any(weight for task, weight in weights.items() if task != "kernel")
        if "blur_decoder" not in networks and (weights.get("kernel") or not self.restores):
            raise ValueError("weights: without a blur_decoder no kernel is learned; set kernel to 0, others not")
        if given_kernels and any(weight for task, weight in weights.items() if task != "deblur"):
            raise ValueError("weights: with given kernels only deblur is trained; set the others to 0")
        if consistency and scheduler.config.prediction_type != "sample":
            raise ValueError(
                f"consistency: the scheduler predicts {scheduler.config.prediction_type!r}; only a predicted sample "
                "can be moved to where it explains the photograph"
            )
        self.given_kernels, self.thick_share, self.looks_back = given_kernels, thick_share, looks_back
        self.consistency, self.unsolved_share = consistency, unsolved_share
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        with torch.autocast(batch["sharp"].device.type, enabled=False):
            sharp, blurry, kernels, seen = self.synthesize(batch, generator)
        if self.given_kernels:
            return self.deblur_given(batch, sharp, blurry, kernels, generator)
        read = len(seen["maps"])
        features, tokens, estimated = self.read_blur(blurry[:read], **seen)
        guess = known(estimated)
        rows = slice(0, self.transfer_rows)
        other = torch.arange(read, device=sharp.device).roll(1)[rows]  # whose blur is transferred
        if "known_estimate" in batch:
            guess = None if guess is None else torch.cat([guess, batch["known_estimate"]])
        guesses = self.deblur_guesses(blurry, guess)
        structure = self.structure_of(guesses, guess)
        losses = {} if estimated is None else {"kernel": kernel_loss(estimated, kernels[:read])}
        if not self.restores:  # processes stay in step only where every parameter has a gradient
            losses["kernel"] = losses["kernel"] + 0 * (structure.sum() + self.tokens(structure, tokens, 0.0).sum())
        if self.restores:
            losses["deblur"] = self.produce(
                sharp,
                guesses,
                structure,
                tokens[:1],
                strength=0.0,
                generator=generator,
                kernels=guess,
            )
        if self.weights.get("transfer"):
            losses["transfer"] = self.produce(
                exact(reblur)(sharp[rows], kernels[other]),
                transfer_guesses(sharp[rows], known(guess, other)),
                self.structure_of(sharp[rows, None]),
                tokens[other],
                strength=1.0,
                generator=generator,
            )
        if "target" in batch and any(self.weights.get(task) for task in TARGET_TASKS):
            losses |= self.target_tasks(batch["target"][: self.target_rows] * 2 - 1, sharp, generator)
        losses["loss"] = sum(self.weights[task] * loss for task, loss in losses.items() if self.weights.get(task))
        self.steps += self.training
        return losses

    def deblur_given(self, batch, sharp, blurry, kernels, generator: Generator) -> dict[str, Tensor]:
        """The loss of deblurring where kernels are given."""
        known_rows = len(batch["known_kernel"]) if "known_kernel" in batch else 0
        guess = disturb_kernels(kernels, generator)
        if known_rows:
            guess = torch.cat([guess[: len(guess) - known_rows], batch["known_estimate"]])
        guesses = self.deblur_guesses(blurry, guess)
        loss = self.produce(
            sharp,
            guesses,
            self.structure_of(guesses, guess),
            self.networks["blur_qformer"].null_tokens,
            strength=0.0,
            generator=generator,
            kernels=guess,
        )
        idle = [p for name, p in self.networks["image_encoder"].named_parameters() if not name.startswith("structure")]
        idle += [p for name in ("blur_qformer", "blur_decoder") for p in self.networks[name].parameters()]
        # Processes stay in step only where every parameter that trains has a gradient.
        nothing = 0 * sum(p.sum() for p in idle if p.requires_grad)
        return {"deblur": loss, "loss": self.weights["deblur"] * loss + nothing}

    def target_tasks(self, target: Tensor, sharp: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Losses on unpaired photographs: two crops of each, `(B, 2, 3, H, W)` in [-1, 1]."""
        first, second = target.unbind(1)
        features, tokens, kernels = self.read_blur(torch.cat([first, second]))
        other_tokens = tokens[len(first) :]
        own, other = known(kernels, slice(len(first))), known(kernels, slice(len(first), None))
        guesses = self.deblur_guesses(first, own)
        structure = self.structure_of(guesses, own)
        with torch.no_grad():
            deblurred = self.sample(guesses, structure, tokens[: len(first)], 0.0, generator)
        losses = {
            # The blur comes from elsewhere in the photograph: tokens can carry blur but never this crop's content.
            "cross_crop": self.produce(
                first, transfer_guesses(deblurred, other), structure, other_tokens, strength=1.0, generator=generator
            ),
            "reconstruction": self.produce(
                first,
                transfer_guesses(deblurred, own),
                structure,
                tokens[: len(first)],
                strength=1.0,
                generator=generator,
            ),
        }
        if self.weights.get("back_translation"):
            sharp = sharp[: len(first)]
            with torch.no_grad():
                guesses = transfer_guesses(sharp, known(own, slice(len(sharp))))
                pseudo = self.sample(guesses, self.structure_of(sharp[:, None]), tokens[: len(sharp)], 1.0, generator)
                sigma = 2 * self.noise * torch.rand(len(pseudo), 1, 1, 1, generator=generator)
                grain = sigma * torch.randn(pseudo.shape, generator=generator)
                pseudo = (pseudo + grain.to(pseudo.device)).clamp(-1, 1)
            _, pseudo_tokens, pseudo_kernels = self.read_blur(pseudo)
            guesses = self.deblur_guesses(pseudo, known(pseudo_kernels))
            loss = self.produce(
                sharp,
                guesses,
                self.structure_of(guesses, known(pseudo_kernels)),
                pseudo_tokens,
                strength=0.0,
                generator=generator,
            )
            losses["back_translation"] = loss * (self.steps >= self.back_translation_from)
        return losses

    def synthesize(self, batch: dict[str, Tensor], generator: Generator):
        """Sharp and blurry pixels `(B, 3, H, W)` in [-1, 1], true kernels, and what the encoder sees of the blur.

        The first rows take a kernel from the bank, with the lag maps and the search's findings of the photograph it was
        banked with; the next ones a new kernel; the last ones a kernel with a known estimate, so that their blur need
        not be read. Blur is read from the whole window, as it will be at inference; the restorer works on a crop of it.
        """
        wide = batch["sharp"]
        fields = draw_fields(len(wide), generator, self.families, self.variation, device=wide.device)
        banked = len(batch["bank_kernel"]) if "bank_kernel" in batch else 0
        read = len(wide) - (len(batch["known_kernel"]) if "known_kernel" in batch else 0)
        if banked:
            fields[:banked] = batch["bank_kernel"][:, None, None]
        if read < len(wide):
            fields[read:] = batch["known_kernel"][:, None, None]
        if self.thick_share:
            fields[banked:read] = thicken(fields[banked:read], generator, self.thick_share)
        kernels = fields[:, fields.shape[1] // 2, fields.shape[2] // 2]
        blurry = self.camera.shoot(wide, fields, generator)
        seen = {}
        if not self.given_kernels:
            seen["maps"], seen["spectrum"] = maps, spectrum = lag_maps(blurry[banked:read])
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
        tokens = self.networks["blur_qformer"](features.blur)
        if "blur_decoder" not in self.networks:  # processes stay in step only where every parameter has a gradient
            return features, tokens + 0 * features.maps.mean(), None
        return features, tokens, self.networks["blur_decoder"](tokens, features.maps, hypothesis)

    def structure_of(self, guesses: Tensor, kernels: Tensor | None = None) -> Tensor:
        """Structure features of the photograph that the guesses `(B, G, 3, H, W)` begin with."""
        encoder = self.networks["image_encoder"]
        several = encoder.config.get("structure_views", 1) > 1
        return encoder.encode_structure(structure_views(guesses, kernels) if several else guesses[:, 0])

    def tokens(self, structure: Tensor, blur_tokens: Tensor, strength: float) -> Tensor:
        """`(B, S + T, D)`: structure tokens, then blur tokens faded towards "no blur", of each image or of one."""
        faded = self.networks["blur_qformer"].fade(blur_tokens, strength)
        return torch.cat([self.networks["structure_qformer"](structure), faded.expand(len(structure), -1, -1)], 1)

    def produce(
        self, wanted, guesses, structure, blur_tokens, strength: float, generator: Generator, kernels=None
    ) -> Tensor:
        """Denoising loss: mean error of the prediction at random timesteps, a share of them the last one; with kernels,
        of the prediction moved to where it explains the first guess.
        """
        start, seen = self.start(guesses)
        clean = to_latents(self.networks["vae"], wanted) - start
        last = self.scheduler.config.num_train_timesteps - 1
        timesteps = torch.randint(last + 1, (len(clean),), generator=generator)
        timesteps[torch.rand(len(clean), generator=generator) < self.last_step_share] = last
        timesteps = timesteps.to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        tokens = self.tokens(structure, blur_tokens, strength)
        vae = self.networks["vae"]

        def step(noisy: Tensor, timesteps: Tensor, *told: Tensor) -> tuple[Tensor, Tensor | None]:
            """The loss and the solved estimate `(B, 3, H, W)`."""
            output = self.networks["unet"](torch.cat([noisy, seen, *told], 1), timesteps, tokens)
            target = prediction_target(self.scheduler, clean, noise, timesteps)
            if kernels is None or not self.consistency:
                return self.mean_error(output.sample, target, timesteps), None
            trust = getattr(output, "trust", None)
            weights = self.consistency if trust is None else self.consistency * trust
            estimates = to_pixels(vae, start + output.sample.float())
            odds = getattr(output, "light", LIGHT_ODDS)
            solved = explain(estimates, guesses[:, 0], kernels, weights, self.linear_light, odds)
            unsolved = self.mean_error(output.sample, target, timesteps) if self.unsolved_share else 0.0
            loss = self.mean_error(to_latents(vae, solved) - start, target, timesteps) + self.unsolved_share * unsolved
            return loss, solved

        if not self.looks_back:
            return step(noisy, timesteps)[0]
        loss, solved = step(noisy, timesteps, clean.new_zeros(len(clean), 2 * clean.shape[1], *clean.shape[2:]))
        if solved is None:
            return loss
        noisy = self.scheduler.add_noise(to_latents(vae, solved) - start, noise, timesteps // 2)
        unexplained = guesses[:, 0] - exact(reblur)(solved, kernels)
        told = look_back(vae, solved - guesses[:, 0], unexplained)
        return 0.5 * loss + step(noisy, timesteps // 2, told)[0]

    def mean_error(self, predicted: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        error = predicted.float() - target
        error = error.abs() if self.error == "absolute" else error.square()
        if self.snr_gamma:
            error = error * min_snr_weights(self.scheduler, timesteps, self.snr_gamma)[:, None, None, None]
        return error.mean()

    def deblur_guesses(self, pixels: Tensor, kernels: Tensor | None) -> Tensor:
        return deblur_guesses(pixels, kernels, self.linear_light)

    def sample(self, guesses, structure, blur_tokens, strength: float, generator: Generator) -> Tensor:
        """Pixels from noise in `sampling_steps` steps."""
        start, seen = self.start(guesses)
        latents = torch.randn(start.shape, generator=generator).to(start.device)
        tokens = self.tokens(structure, blur_tokens, strength)
        self.scheduler.set_timesteps(self.sampling_steps, device=start.device)
        told = [latents.new_zeros(len(latents), 2 * latents.shape[1], *latents.shape[2:])] if self.looks_back else []
        for t in self.scheduler.timesteps:
            output = self.networks["unet"](torch.cat([latents, seen, *told], 1), t, tokens).sample
            latents = self.scheduler.step(output, t, latents).prev_sample
        return to_pixels(self.networks["vae"], start + latents)

    def start(self, guesses: Tensor) -> tuple[Tensor, Tensor]:
        """Where the diffused latents count from (the first guess, or zero), and the UNet's condition."""
        first, seen = condition(self.networks["vae"], guesses, guess_count(self.linear_light))
        return (first if self.residual else torch.zeros_like(first)), seen


def known(kernels: Tensor | None, rows: slice | Tensor = slice(None)) -> Tensor | None:
    """Rows of kernels `(B, k, k)` as data, through which nothing learns; None where there are none."""
    return None if kernels is None else kernels[rows].detach()


def kernel_loss(estimated: Tensor, true: Tensor) -> Tensor:
    """How differently two kernels `(B, k, k)` blur, as a scalar (ours).

    Root mean square of the difference of the transfer functions, weighted like natural spectra, so that what matters is
    what they do to photographs; the same of the magnitudes, which a kernel mirrored by mistake gets right; and half the
    L1 distance of both kernels smoothed by one pixel.
    """
    A, B = (transfer_function(kernels, 64, 64) for kernels in (estimated, true))
    weight = natural_power(64, device=true.device)
    difference = ((A - B).abs().square() * weight / weight.mean()).mean((1, 2)).add(1e-8).sqrt()
    milder = weight.sqrt() / weight.sqrt().mean()
    magnitude = ((A.abs() - B.abs()).square() * milder).mean((1, 2)).add(1e-8).sqrt()
    offsets = torch.arange(-3.0, 4.0, device=true.device)
    profile = torch.exp(-offsets.square() / 2)
    profile = profile / profile.sum()
    smoothed = F.conv2d((estimated - true)[:, None], (profile[:, None] * profile)[None, None], padding=3)
    return (difference + magnitude + 0.5 * smoothed.abs().sum((1, 2, 3))).mean()
