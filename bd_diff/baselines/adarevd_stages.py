"""The networks of AdaRevD's training stages: each stage starts from the network that the one before trained."""

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from bd_diff.baselines import adarevd, nafnet
from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.baselines.released import read_checkpoint
from bd_diff.models.components import construct
from bd_diff.restore import NetworkRestorer, load

Network = TypeVar("Network", NAFNet, AdaRevD)

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
    assert start is not None  # of these stages
    if stage == "decoders":
        trained = read(start, NAFNet)
        network = construct(AdaRevD, settings, "network")
        network.load_encoder(trained)
        return network
    before = read(start, AdaRevD)
    if settings:
        raise ValueError(f"stage {stage}: the network is that of {start}; leave `network` out")
    if crop > before.config.tile:
        raise ValueError(
            f"data.crop is {crop}; the classifier sees tiles of {before.config.tile}, so no more than that"
        )
    if stage == "classifier":
        before.add_classifier(features, thresholds)
    return before


def read(path: str, kind: type[Network]) -> Network:
    """The network in a model folder or a released `.pth` file. Raises ValueError if it is not of class `kind`."""
    network: nn.Module
    if path.endswith(".pth"):
        convert = nafnet.convert_released if kind is NAFNet else adarevd.convert_released
        network = convert(read_checkpoint(path))
    else:
        restorer = load(path, device="cpu")
        network = restorer.network if isinstance(restorer, NetworkRestorer) else restorer.pipeline
    if not isinstance(network, kind):
        raise ValueError(f"{path} holds a {type(network).__name__}; this stage starts from {kind.__name__}")
    return network
