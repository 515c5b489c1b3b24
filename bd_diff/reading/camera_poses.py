"""A camera that turned while it shook: where it pointed, for how long, and turned by which angles.

A kernel tells where a camera pointed, and for how long. An angle by which it was turned meanwhile moved the farther
places of the photograph, each another way (Whyte et al., "Non-uniform deblurring for shaken images", 2012; Hirsch et
al., "Fast removal of non-uniform camera shake", 2011). Looked for are the angles at every pixel of a known kernel under
which windows all over the photograph have the least energy

    E(K) = min_x |K * x - y|^2 + s |gradient x|_0

with the L0 prior of the kernel search. At the least x its derivative by K is that of the first term alone, x held
fixed. So every step deblurs the windows anew by the kernels that they have then: pictures that were deblurred once
would only lead back to the kernels that deblurred them (ours).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bd_diff.blur.kernels import blur, splat
from bd_diff.reading.kernel_search import GROWTH, circular_gradients, l0_deblur

# All ours, measured on photographs of the training.
ANGLES, FARTHEST, SPREAD = 9, 8.0, 3.0  # how many; pixels by which the largest, and by which a usual one, moves the
# middle of the farther edge
SMOOTHNESS = 2e-4  # s
STEPS, PACE, SLOWER = 50, (0.2, 0.05), 0.975  # of Adam; first ones, of angles and of the middle; of each to the last
AT_ONCE = 16  # windows that one step sees
MARGIN = 24  # pixels at the border of a window that are only seen by others
SHOWN = 1e-3  # of the kernel's largest value: below, a pixel is none of its points


@dataclass(frozen=True)
class Poses:
    """What a camera did: the `time` `(N,)` that it pointed to `points` `(N, 2)`, down and right in pixels, and how much
    of that time it was turned by each of the `angles` `(A,)`, as logits `(N, A)`; an angle is told by the pixels that
    it moves the middle of the farther edge. Kernels are of `size` pixels, and as if it had not turned at the `middle`
    `(2,)`, a place as in `kernels`.
    """

    points: Tensor
    time: Tensor
    angles: Tensor
    logits: Tensor
    middle: Tensor
    size: int

    @classmethod
    def of(cls, kernel: Tensor) -> "Poses":
        """Of a kernel `(k, k)`, turned by small angles either way."""
        points = (kernel > SHOWN * kernel.max()).nonzero()
        angles = torch.linspace(-FARTHEST, FARTHEST, ANGLES, device=kernel.device)
        logits = (-0.5 * (angles / SPREAD).square()).repeat(len(points), 1)
        size, time = kernel.shape[-1], kernel[points[:, 0], points[:, 1]]
        return cls((points - size // 2).float(), time, angles, logits, kernel.new_zeros(2), size)

    def kernels(self, places: Tensor) -> Tensor:
        """The kernels `(S, k, k)` of places `(S, 2)`, down and right of the middle of the photograph, 1 at its farther
        edge; they belong to the same sharp photograph.
        """
        down, right = (places - self.middle).T[..., None]
        rows, columns = self.points.repeat_interleave(len(self.angles), 0).T
        angles, time = self.angles.repeat(len(self.points)), self.logits.softmax(1) * self.time[:, None]
        return splat(rows + angles * right, columns - angles * down, self.size, time.flatten().expand(len(places), -1))


def find_poses(windows: Tensor, visible: Tensor, places: Tensor, kernel: Tensor) -> Poses:
    """The poses that explain windows `(S, 1, h, w)` in [0, 1] at `places` `(S, 2)` (`Poses.kernels`) with the least
    energy, from the `kernel` `(1, k, k)` of some place. visible: the pixels `(S, 1, h, w)` that count. The angles are
    zero on average: how the sharp photograph itself is turned, blur does not tell.
    """
    generator = torch.Generator().manual_seed(0)
    # Adam counts its steps on the default device.
    with torch.device(windows.device), torch.inference_mode(False), torch.enable_grad():
        windows, places, kernel, seen = (one.clone() for one in (windows, places, kernel, visible.to(windows)))
        poses = Poses.of(kernel[0])
        descent = torch.optim.Adam(
            [
                {"params": [one.requires_grad_()], "lr": pace}
                for one, pace in zip((poses.logits, poses.middle), PACE, strict=True)
            ],
            betas=(0.9, 0.98),
        )
        slower = torch.optim.lr_scheduler.ExponentialLR(descent, SLOWER)
        first = None
        for _ in range(STEPS):
            some = torch.randperm(len(windows), generator=generator, device="cpu")[:AT_ONCE].to(windows.device)
            left = energy(windows[some], seen[some], poses.kernels(places[some]))
            first = left.detach().clamp_min(1e-12) if first is None else first
            descent.zero_grad()
            (left / first).backward()
            descent.step()
            slower.step()
    logits, middle = poses.logits.detach(), poses.middle.detach()
    turned = (poses.time[:, None] * logits.softmax(1) * poses.angles).sum() / poses.time.sum()
    return replace(poses, logits=logits, middle=middle, angles=poses.angles - turned)


def energy(windows: Tensor, seen: Tensor, kernels: Tensor) -> Tensor:
    """The first term of the energy, of values and of their gradients, over windows `(S, 1, h, w)` in [0, 1], where
    these are `seen` `(S, 1, h, w)`; differentiable by the kernels `(S, k, k)`.
    """
    with torch.no_grad():
        sharp = l0_deblur(windows, kernels, kernels.new_full((len(kernels),), SMOOTHNESS), growth=GROWTH)
    missed = blur(sharp, kernels) - windows
    each = torch.cat([missed, circular_gradients(missed)], 1) * seen
    return each[..., MARGIN:-MARGIN, MARGIN:-MARGIN].square().sum(1).mean()
