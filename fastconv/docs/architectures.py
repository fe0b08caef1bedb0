"""A page for each family of networks: where it comes from, its sizes, and its diagram in words."""

import inspect
from pathlib import Path
from typing import Any

from fastconv import models
from fastconv.nn.init import skip_init

# Titles of the files of fastconv.models, and the network of each that is drawn.
FAMILIES = {
    "linear": ("Linear classifier and perceptrons", "linear_classifier"),
    "lenet": ("LeNet-5", "lenet5"),
    "keras_mnist": ("Keras' network for MNIST", "keras_mnist"),
    "alexnet": ("AlexNet", "alexnet"),
    "zfnet": ("ZFNet", "zfnet"),
    "vgg": ("VGG", "vgg16"),
    "googlenet": ("GoogLeNet", "googlenet"),
    "inception": ("Inception v2 and v3", "inception_v3"),
    "resnet": ("ResNet and plain networks", "resnet50"),
    "densenet": ("DenseNet", "densenet121"),
    "mobilenet": ("MobileNet v1 and v2", "mobilenet_v2"),
    "waveform": ("Networks for raw waveforms", "m5"),
    "c3d": ("C3D", "c3d"),
    "segmentation": ("U-Net and FCN", "unet"),
}


def _families() -> dict[str, list[str]]:
    """The networks of the catalogue by the file that they are in."""
    found: dict[str, list[str]] = {}
    for name in models.list_models():
        module = inspect.getmodule(models.model_info(name).build)
        found.setdefault(module.__name__.rpartition(".")[2], []).append(name)
    return found


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _diagram(name: str) -> tuple[list[str], int]:
    """One line for each part of the network in the order of the passes, and its multiply-accumulates."""
    info = models.model_info(name)
    with skip_init():
        net = info.build()
    table = net.summary((1, *info.input_shape))
    parts: dict[str, list[Any]] = {}
    for row in table.rows:
        if row.output_shape is not None:
            steps = row.name.split(".")
            # A part is a block or layer two levels down: "features.3", "layer2.0".
            parts.setdefault(".".join(steps[:2]), []).append(row)
    lines = [f"input  {_size(info.input_shape)}"]
    for part, rows in parts.items():
        layers = [row.layer for row in rows]
        kinds = [f"{layers.count(kind)} {kind}" if layers.count(kind) > 1 else kind for kind in dict.fromkeys(layers)]
        count = sum(row.parameters for row in rows)
        line = f"-> {part}: {', '.join(kinds)}  ->  {_size(rows[-1].output_shape[1:])}"
        lines.append(line + (f"  ({count:,} parameters)" if count else ""))
    return lines, table.macs


def _parameters(name: str) -> int:
    with skip_init():
        return sum(parameter.numel() for parameter in models.model_info(name).build().parameters())


def write_architectures(folder: Path) -> None:
    """Write the pages and their index."""
    folder.mkdir(exist_ok=True)
    families = _families()
    for family, names in families.items():
        title, drawn = FAMILIES.get(family, (family, names[0]))
        module = inspect.getmodule(models.model_info(drawn).build)
        diagram, macs = _diagram(drawn)
        page = [title, "=" * len(title), "", (module.__doc__ or "").strip(), ""]
        page += [".. list-table::", "   :header-rows: 1", ""]
        page += ["   * - network", "     - input", "     - parameters", "     - source"]
        for name in names:
            info = models.model_info(name)
            cells = (f"``{name}``", _size(info.input_shape), f"{_parameters(name):,}", info.source)
            page += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(cells)]
        page += ["", f"``{drawn}``, {macs:,} multiply-accumulates for one input:", ""]
        page += ["::", "", *(f"   {line}" for line in diagram), ""]
        page += ["Build it, look at it layer by layer, or train it::", ""]
        page += [f"   net = fastconv.models.get_model({drawn!r}, num_classes=10)"]
        page += [f"   print(net.summary((1, {', '.join(map(str, models.model_info(drawn).input_shape))})))"]
        page += [f"   $ fastconv models {drawn}", ""]
        page += ["The constructors with all their options are in :doc:`/reference/fastconv.models`.", ""]
        (folder / f"{family}.rst").write_text("\n".join(page))
    tree = "\n".join(f"   {family}" for family in families)
    head = "Architectures\n=============\n\n.. toctree::\n   :maxdepth: 1\n\n"
    (folder / "index.rst").write_text(f"{head}{tree}\n")
