#!/usr/bin/env bash
# Guess:   an image library that opens a FITS file gives its numbers, like any reader of FITS: they are big-endian (FITS standard
#          4.0, section 5), scaled by BSCALE and BZERO.
# Truth:   Pillow opens 16 and 32 bit integers and floats with the bytes of each number in the wrong order on little-endian machines
#          (1 becomes 256, 1.0 becomes 4.6e-41), without an error, and leaves BZERO out. 8 bit is right. Its plugin names modes only,
#          so their bytes count as little-endian. (That the first row of the file is Pillow's last is right: viewers show it so.)
# Version: Pillow 12.3.0, against astropy 8.0.2, CPython 3.11, x86-64.
# Matters: a star's profile is a measured blur kernel, and astronomers keep it as FITS. Read by Pillow it is noise that looks like a
#          kernel. We read kernels by astropy, and refuse FITS photographs in one sentence.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==12.3.0 astropy==8.0.2
cd "$folder"
shown=$("$folder/venv/bin/python" -I - <<'PY'
import numpy as np
from astropy.io import fits
from PIL import Image

for kind in ("uint8", "int16", "uint16", "int32", "float32"):
    fits.PrimaryHDU(np.array([[1, 2], [3, 4]], kind)).writeto("file.fits", overwrite=True)
    image = Image.open("file.fits")
    seen = np.asarray(image)[::-1]
    print(kind, "astropy", *(f"{one:g}" for one in fits.getdata("file.fits").flat), image.mode, *(f"{one:.3g}" for one in seen.flat))
PY
)
echo "$shown"
[ "$shown" = "uint8 astropy 1 2 3 4 L 1 2 3 4
int16 astropy 1 2 3 4 I;16 256 512 768 1.02e+03
uint16 astropy 1 2 3 4 I;16 384 640 896 1.15e+03
int32 astropy 1 2 3 4 I 1.68e+07 3.36e+07 5.03e+07 6.71e+07
float32 astropy 1 2 3 4 F 4.6e-41 8.97e-44 2.3e-41 4.6e-41" ] || { echo "changed" >&2; exit 1; }
