"""Writes a test set of photographs in the public domain, from packages that anyone can install; checks each pixel.

    pip install scikit-image matplotlib
    python tests/benches/public_test_set.py public

None of them was trained on. The three of gb82 are the samples of this repository.
"""

import argparse
import hashlib
from importlib.resources import files
from pathlib import Path

from PIL import Image

from bd_diff.data.images import read_image, save_image

SAMPLES = Path(__file__).parents[2] / "assets" / "samples" / "sharp"
PHOTOGRAPHS = {  # name: package and file, licence, the first digits of the SHA-256 of its pixels as RGB
    "astronaut": ("skimage", "data/astronaut.png", "public domain, NASA", "a8c429c18afa7b0f"),
    "brick": ("skimage", "data/brick.png", "CC0, CC0Textures", "3501e216fb0968c3"),
    "camera": ("skimage", "data/camera.png", "CC0, Lav Varshney", "13e2b4aa92cb1649"),
    "chelsea": ("skimage", "data/chelsea.png", "CC0, Stefan van der Walt", "416b729128bfb2c3"),
    "coffee": ("skimage", "data/coffee.png", "CC0, Rachel Michetti", "0ce2b51640b9c95f"),
    "grass": ("skimage", "data/grass.png", "CC0, linolafett", "c7ca5c984d6b5a27"),
    "gravel": ("skimage", "data/gravel.png", "CC0, CC0Textures", "e73bd88250cbfd7f"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg", "public domain, NASA", "9a3ea9548188f81e"),
    "rocket": ("skimage", "data/rocket.jpg", "public domain, SpaceX", "3d4435cc745752b7"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "public domain, US Navy", "f7f982de68dd296a"),
    "haze": ("", "gb82_haze.png", "CC0, gb82", "face1628e6b52136"),
    "mies": ("", "gb82_mies.png", "CC0, gb82", "5e4e898d8a31770f"),
    "sand": ("", "gb82_sand.png", "CC0, gb82", "ca3f9d72d1fe862d"),
}


def source(package: str, file: str) -> Path:
    """Where a photograph lies: in an installed package, or among the samples of this repository."""
    return Path(str(files(package).joinpath(file))) if package else SAMPLES / file


def fingerprint(image: Image.Image) -> str:
    """The first digits of the SHA-256 of an image's pixels as RGB, row by row."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()[:16]


def write_test_set(folder: Path) -> None:
    """Write all photographs to `folder` as PNG. Raises `ValueError` for one whose pixels are not those known here."""
    for name, (package, file, _, expected) in PHOTOGRAPHS.items():
        image = read_image(source(package, file)).convert("RGB")
        if (found := fingerprint(image)) != expected:
            raise ValueError(
                f"{source(package, file)} is another picture than in this test set: {found}, not {expected}"
            )
        image.info.clear()
        save_image(image, folder / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder to write")
    given = parser.parse_args()
    write_test_set(given.folder)
    print(f"{len(PHOTOGRAPHS)} photographs in {given.folder}")
