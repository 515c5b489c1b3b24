"""Images a second of the blur synthesis on one core, beside albumentations' nearest equivalent where it is installed.

    python tests/bench_synthesis.py

Batches of 16 images of 256x256, float32, new blurs drawn for every batch; the best of seven, in CPU seconds. On one
core of an AMD EPYC: Gaussian and box at 0.6 of albumentations' speed; line, shake and disc at 1.5 to 4 times of it;
noise + JPEG alike.
"""

import time

import torch

from bd_diff.blur import kernels
from bd_diff.blur.camera import add_noise, compress
from bd_diff.blur.synthesis import FAMILIES, Blur, draw_kernels

BATCH, SIZE, REPEATS = 16, 256, 7


def images_per_second(work) -> float:
    """Of a function that does one batch; the first call warms up."""
    work()
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return BATCH / min(seconds)


def ours(images, generator) -> dict[str, float]:
    """Each family drawn and applied; a field of shakes; and noise with JPEG."""
    speeds = {}
    for family in FAMILIES:

        def work(family=family):
            drawn, _ = draw_kernels(BATCH, generator, {family: 1.0})
            return kernels.blur(images, drawn)

        speeds[family] = images_per_second(work)
    varying = Blur("shake", 16.0, seed=1, variation=0.5)
    speeds["shake, varying"] = images_per_second(lambda: varying.apply(images))
    speeds["noise + JPEG"] = images_per_second(lambda: compress(add_noise(images, 0.0, 4 / 255, generator), 80))
    return speeds


def albumentations_speeds(images) -> dict[str, float]:
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
    return {
        name: images_per_second(lambda transform=transform: [transform(image=image) for image in arrays])
        for name, transform in nearest.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator)
    theirs = albumentations_speeds(images)
    print(f"{'images/s on one core':<22} {'bd-diff':>9} {'albumentations':>15}")
    for name, speed in ours(images, generator).items():
        other = f"{theirs[name]:>15.0f}" if name in theirs else f"{'-':>15}"
        print(f"{name:<22} {speed:>9.0f} {other}")


if __name__ == "__main__":
    main()
