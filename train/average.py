"""Average the weights of two pipelines that were trained from one: `python train/average.py A B --share 0.5 --out C`.

Where B learned something new from A and forgot some of the old, the average often knows most of both (Wortsman et al.,
"Robust fine-tuning of zero-shot models", 2022, section 3).
"""

import argparse
import sys
from pathlib import Path

from bd_diff.pipeline import BDDiffPipeline
from bd_diff.training.joint import see_linear_light
from bd_diff.training.pipelines import load_pipeline, save_pipeline

NETWORKS = ["image_encoder", "structure_qformer", "blur_qformer", "blur_decoder", "unet"]


def average(first: BDDiffPipeline, second: BDDiffPipeline, share: float, names: list[str]) -> BDDiffPipeline:
    """`second`, its networks of these names replaced by `share` of themselves and the rest of `first`'s. Raises
    ValueError where two are not of one shape; where only one of the pipelines sees linear light, the other is given it.
    """
    for one, other in ((first, second), (second, first)):
        if one.config.linear_light and not other.config.linear_light:
            see_linear_light(other)
    for name in names:
        old, new = getattr(first, name).state_dict(), getattr(second, name).state_dict()
        if {key: value.shape for key, value in old.items()} != {key: value.shape for key, value in new.items()}:
            raise ValueError(f"{name} is not of one shape in the two pipelines, so they have no average")
        getattr(second, name).load_state_dict({key: old[key].to(new[key].dtype).lerp(new[key], share) for key in new})
    return second


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", help="pipeline folder")
    parser.add_argument("second", help="pipeline folder, trained from the first or from what that was trained from")
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, help="the others are the second's")
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write")
    given = parser.parse_args(arguments)
    if not 0 <= given.share <= 1:
        raise ValueError(f"--share is {given.share}; it must be between 0 and 1")
    save_pipeline(
        average(load_pipeline(given.first), load_pipeline(given.second), given.share, given.networks), given.out
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
