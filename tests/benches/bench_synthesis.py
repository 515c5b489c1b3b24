"""Images a second of the blur synthesis on one core, beside albumentations' nearest equivalent where it is installed.

    python tests/benches/bench_synthesis.py

Batches of 16 images of 256x256, float32, new blurs drawn for every batch; the two take turns, so that caches and the
heap are warm for both; the best of nine, in CPU seconds. On one core of an AMD EPYC: Gaussian at 0.45 and box at 0.3
of albumentations' speed (OpenCV makes one pass over a cached image where PyTorch copies it several times, and its
Gaussian ends at 3.5 sigma, ours at 5.3); line, shake and disc at 1.2 to 4 times of it; noise + JPEG alike.
"""

import time
from functools import partial

import torch

from bd_diff.blur import kernels
from bd_diff.blur.camera import add_noise, compress
from bd_diff.blur.synthesis import FAMILIES, Blur, draw_kernels

BATCH, SIZE, REPEATS = 16, 256, 9


def images_per_second(works) -> list[float]:
    """Of functions that do one batch each, in turns; the first turn warms up."""
    seconds = [[] for _ in works]
    for _ in range(1 + REPEATS):
        for work, times in zip(works, seconds, strict=True):
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
    return [BATCH / min(times[1:]) for times in seconds]


def ours(images, generator) -> dict:
    """What does one batch: each family drawn and applied; a field of shakes; and noise with JPEG."""

    def draw_and_blur(family):
        drawn, _ = draw_kernels(BATCH, generator, {family: 1.0})
        return kernels.blur(images, drawn)

    varying = Blur("shake", 16.0, seed=1, variation=0.5)
    works = {family: partial(draw_and_blur, family) for family in FAMILIES}
    works["shake, varying"] = lambda: varying.apply(images)
    works["noise + JPEG"] = lambda: compress(add_noise(images, 0.0, 4 / 255, generator), 80)
    return works


def theirs(images) -> dict:
    """The same batches through albumentations, one image after the other, float32; empty where it is not installed."""
    try:
        import albumentations as A
        import cv2
    except ImportError as error:
        print(f"without albumentations ({error}): pip install albumentations to see both")
        return {}
    cv2.setNumThreads(1)
    nearest = {
        "gaussian": A.GaussianBlur(blur_limit=0, sigma_limit=(0.5, 3), p=1),
        "box": A.Blur((3, 29), p=1),
        "line": A.MotionBlur((5, 25), p=1),
        "shake": A.MotionBlur((5, 25), p=1),
        "disc": A.Defocus((1, 8), p=1),
        "noise + JPEG": A.Compose(
            [A.GaussNoise(std_range=(4 / 255, 4 / 255), p=1), A.ImageCompression(quality_range=(80, 80), p=1)]
        ),
    }
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images]

    def transform_all(transform):
        return [transform(image=image) for image in arrays]

    return {name: partial(transform_all, transform) for name, transform in nearest.items()}


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator)
    others = theirs(images)
    print(f"{'images/s on one core':<22} {'bd-diff':>9} {'albumentations':>15} {'ratio':>6}")
    for name, work in ours(images, generator).items():
        speed, *other = images_per_second([work, others[name]] if name in others else [work])
        beside = f"{other[0]:>15.0f} {speed / other[0]:>6.2f}" if other else f"{'-':>15}"
        print(f"{name:<22} {speed:>9.0f} {beside}", flush=True)


if __name__ == "__main__":
    main()
