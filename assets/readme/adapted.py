"""The picture beside it: out of focus, deblurred by the shipped and by an adapted model; after train/experiment.py."""

from pathlib import Path

from bd_diff import BDDiffPipeline
from bd_diff.data.drawing import contact_sheet
from bd_diff.data.images import read_image, save_image

run, rows = Path("runs/experiment_short"), []
models = {"shipped": "assets/bd-diff-tiny", "adapted": run / "seed0/defocus/fitted-blur/pipeline"}
pipes = {said: BDDiffPipeline.from_pretrained(model) for said, model in models.items()}
for name in ("gb82_mies.png", "gb82_sand.png"):
    blurry, sharp = (read_image(run / "domains/defocus/test" / side / name) for side in ("blurry", "sharp"))
    results = [(said, pipe(blurry, fast=True).images[0]) for said, pipe in pipes.items()]
    rows.append([("out of focus", blurry), *results, ("the truth", sharp)])
save_image(contact_sheet(rows), Path(__file__).with_suffix(".jpg"))
