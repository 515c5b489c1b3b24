"""A toy of every network that `bd_diff.restore` loads, by the name of its class: untrained, and quick on one core."""

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.baselines.uresnet import UResNet
from bd_diff.baselines.xdecode import Generator

TOYS = {
    "UResNet": lambda: UResNet(width=2),
    "NAFNet": lambda: NAFNet(width=4, enc_blocks=[1, 1], middle_blocks=1, dec_blocks=[1, 1]),
    "AdaRevD": lambda: AdaRevD(variant=1, width=4, enc_blocks=[1, 1], layers=[1, 1], tile=64, overlap=8),
    "Generator": lambda: Generator(ngf=2, depth=4),
}
