"""Pillow's unsharp mask on a folder of PNG files; for `bench_peers.py`."""

import argparse
from pathlib import Path

from PIL import Image, ImageFilter

UNSHARP = ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0)  # Pillow's defaults but for the threshold

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("blurry", type=Path, help="a folder of PNG files, with subfolders")
    parser.add_argument("out", type=Path, help="the folder for results of the same names")
    given = parser.parse_args()
    for path in sorted(given.blurry.rglob("*.png")):
        target = given.out / path.relative_to(given.blurry)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).filter(UNSHARP).save(target)
