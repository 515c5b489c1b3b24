"""The picture beside it: real photographs of print, at half of their size, and what the shipped model makes of them."""

from pathlib import Path

from bd_diff import BDDiffPipeline
from bd_diff.data.drawing import contact_sheet
from bd_diff.data.images import read_image, save_image

here, rows, pipe = Path(__file__).parent, [], BDDiffPipeline.from_pretrained()
for name, blurred in (("text_motion", "camera moved"), ("text_defocus", "out of focus")):
    photograph = read_image(here / "real" / f"{name}.jpg").convert("RGB").reduce(2)
    output = pipe(photograph)
    (found,) = output.blur
    rows.append([(f"{blurred}: before", photograph), (f"after ({found})", output.images[0])])
save_image(contact_sheet(rows), here / "before-after.jpg")
