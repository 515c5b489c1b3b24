"""The networks of AdaRevD's training stages: each starts from what the stage before left."""

from collections.abc import Sequence
from typing import Any

from bd_diff.baselines import adarevd, nafnet
from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.baselines.released import read_checkpoint
from bd_diff.models.components import construct
from bd_diff.restore import load

STAGES = ("nafnet", "decoders", "classifier", "exits")


def build(
    stage: str, start: str | None, settings: dict[str, Any], crop: int, features: str, thresholds: Sequence[float]
) -> NAFNet | AdaRevD:
    """The network of a stage, with the weights of the stage before (`start`).

    `settings` are NAFNet's or AdaRevD's constructor's; crop is in pixels; features and thresholds are the classifier's.
    Raises ValueError saying what does not fit.
    """
    if stage not in STAGES:
        raise ValueError(f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}")
    if (start is None) != (stage == "nafnet"):
        raise ValueError(f"stage {stage}: start must {'not ' * (stage == 'nafnet')}be given")
    if stage == "nafnet":
        return construct(NAFNet, settings, "network")
    before = read(start, NAFNet if stage == "decoders" else AdaRevD)
    if stage == "decoders":
        network = construct(AdaRevD, settings, "network")
        network.load_encoder(before)
        return network
    if settings:
        raise ValueError(f"stage {stage}: the network is that of {start}; leave `network` out")
    if crop > before.config.tile:
        raise ValueError(
            f"data.crop is {crop}; the classifier sees tiles of {before.config.tile}, so no more than that"
        )
    if stage == "classifier":
        before.add_classifier(features, thresholds)
    return before


def read(path: str, kind: type) -> NAFNet | AdaRevD:
    """The network in a model folder or in a released `.pth` file, which must be of this kind."""
    if path.endswith(".pth"):
        network = {NAFNet: nafnet, AdaRevD: adarevd}[kind].convert_released(read_checkpoint(path))
    else:
        network = load(path, device="cpu").network
    if not isinstance(network, kind):
        raise ValueError(f"{path} holds a {type(network).__name__}; this stage starts from {kind.__name__}")
    return network
