"""``fastconv visualize``: look inside a network: one method of ``fastconv.visualize``, one picture."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .arguments import natural, positive
from .output import add_json, check_picture, print_json
from .subject import Pictures, add_network, load_network

_EXAMPLES = """examples:
  fastconv visualize vgg16 filters --weights vgg16.safetensors
  fastconv visualize resnet18 grad-cam --weights resnet18.safetensors --image dog.jpg --layer layer4
  fastconv visualize vgg16 maximize --weights vgg16.safetensors --unit 9 --steps 300 --output ostrich.png
  fastconv visualize vgg16 dream --weights vgg16.safetensors --image clouds.jpg --layer features.21
  fastconv visualize vgg19 style --weights vgg19.safetensors --image house.jpg --style painting.jpg
  fastconv visualize resnet50 receptive-field

methods:
  filters          the weights of a convolution (default: the first one)
  activations      the maps of a layer (default: the first one that has maps)
  receptive-field  table of what the units of each layer see; with --image, the middle unit of --layer drawn
  saliency         size of the gradient of a class by each pixel
  guided           guided backpropagation, of a class or of a unit of --layer
  deconvnet        projection of a class, or of a unit of --layer, by a deconvolutional network
  grad-cam         where the maps of a layer (default: the last one that has maps) speak for a class
  occlusion        how much the score of a class falls when a window of the picture is covered
  maximize         a picture that a class, or a unit of --layer, answers to most
  dream            DeepDream of a layer (default: the last one that has maps)
  style            the content of --image in the style of --style
"""


def add_parser(verbs: Any) -> None:
    """Add ``visualize`` to the program's verbs."""
    parser = verbs.add_parser(
        "visualize",
        help="filters, activations, saliency, Grad-CAM, DeepDream and more of a network, as a picture",
        description="Look inside a network of the catalogue and draw what is found.",
        epilog=_EXAMPLES + '\nNeeds the extra "visualize": pip install "fastconv[visualize]"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_network(parser)
    parser.add_argument("method", choices=tuple(_METHODS), metavar="METHOD", help="one of those below")
    parser.add_argument("--image", metavar="FILE", help="the picture that is looked at, or begun with")
    parser.add_argument("--style", metavar="FILE", help="the picture whose style is taken")
    parser.add_argument("--layer", metavar="NAME", help="a layer, as `fastconv models MODEL` names it")
    parser.add_argument("--unit", type=natural, metavar="N", help="class or channel (default: the strongest)")
    parser.add_argument("--steps", type=natural, metavar="N", help="steps of maximize (200), dream (10), style (300)")
    parser.add_argument("--window", type=positive, metavar="N", help="covered pixels (default: an eighth)")
    parser.add_argument(
        "--output", metavar="FILE.png", default="fastconv-visualize.png", help="default fastconv-visualize.png"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load, compute, draw."""
    from fastconv.visualize.plots import extra

    table_only = arguments.method == "receptive-field" and arguments.image is None
    if not table_only:
        check_picture(arguments.output)
        extra("matplotlib", "matplotlib")
    if arguments.method in _OF_A_PICTURE and arguments.image is None:
        raise ValueError(f"{arguments.method} needs --image")
    if arguments.method == "style" and arguments.style is None:
        raise ValueError("style needs --style, the picture whose style is taken")
    if arguments.method == "maximize" and arguments.unit is None:
        raise ValueError("maximize needs --unit, the class that the picture shall show")
    net, arguments.trained = load_network(arguments.model, arguments.weights, arguments.seed)
    report = {"model": arguments.model, "method": arguments.method, "weights": arguments.weights or "random"}
    ax, found = _METHODS[arguments.method](net, arguments)
    report.update(found)
    if ax is not None:
        ax.figure.savefig(arguments.output, dpi=150)
        report["output"] = arguments.output
    if arguments.json:
        print_json(report)
        return 0
    if "table" in report:
        print(report["table"])
    if ax is not None:
        said = [f"{name} {report[name]}" for name in ("layer", "unit", "score") if report.get(name) is not None]
        print(f"{arguments.method} of {arguments.model} ({report['weights']} weights)", *said, sep=", ")
        print(f"written to {arguments.output}")
    return 0


def _filters(net: Any, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from fastconv import nn, visualize
    from fastconv.nn.modules.lookup import find_layer

    name = arguments.layer
    if name is None:
        name = next((name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)), "")
    layer = find_layer(net, name)
    if not isinstance(layer, nn.Conv2d):
        raise ValueError(f"layer {name!r} is {type(layer).__name__}, which has no filters of two dimensions")
    return visualize.plot_filters(layer.weight), {"layer": name, "filters": layer.weight.shape}


def _activations(net: Any, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from fastconv import visualize

    image = Pictures(net, arguments, arguments.trained).read(arguments.image)
    name = arguments.layer or _layers_with_maps(net, image)[0]
    maps = visualize.activations(net, image, name)
    if maps.ndim != 4:
        raise ValueError(f"layer {name!r} has no maps, its output is of shape {maps.shape}")
    return visualize.plot_activations(maps[0], title=name), {"layer": name, "maps": maps.shape[1:]}


def _layers_with_maps(net: Any, image: Any) -> list[str]:
    """Layers whose outputs are maps of more than one place, in the order of their registration."""
    from fastconv import visualize

    found = [name for name, y in visualize.activations(net, image).items() if y.ndim == 4 and y[0, 0].size > 1]
    if not found:
        raise ValueError("no layer of this network has maps")
    return found


def _receptive_field(net: Any, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from fastconv import models, visualize

    if arguments.image is None:
        shape = models.model_info(arguments.model).input_shape
        shape = (*shape[:-2], *arguments.size) if arguments.size and len(shape) > 2 else shape
        fields = visualize.receptive_field(net, (1, *shape), None if arguments.layer is None else [arguments.layer])
        entries = {n: {"size": f.size, "stride": [float(s) for s in f.stride]} for n, f in fields.items()}
        return None, {"fields": entries, "table": str(fields)}
    pictures = Pictures(net, arguments, arguments.trained)
    image = pictures.read(arguments.image)
    name = arguments.layer or _layers_with_maps(net, image)[-1]
    field = visualize.receptive_field(net, image.shape, name)
    place = tuple(n // 2 for n in visualize.activations(net, image, name).shape[2:])
    if len(place) != 2:
        raise ValueError(f"layer {name!r} has no maps")
    return visualize.plot_receptive_field(pictures.pixels(image)[0], field, place), {"layer": name, "size": field.size}


def _attribution(function_name: str, signed: bool = False) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """A method whose result is a map over the picture."""

    def method(net: Any, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
        from fastconv import visualize

        pictures = Pictures(net, arguments, arguments.trained)
        image = pictures.read(arguments.image)
        options: dict[str, Any] = {}
        layer = arguments.layer
        if function_name == "grad_cam":
            layer = options["layer"] = layer or _layers_with_maps(net, image)[-1]
        elif function_name == "occlusion_map":
            if layer is not None:
                raise ValueError("occlusion is of a class of the output: it takes no --layer")
            options["window"] = arguments.window or max(min(pictures.size) // 8, 1)
        else:
            options["layer"] = layer
        heat = getattr(visualize, function_name)(net, image, target=arguments.unit, **options)[0]
        asked_of = None if function_name == "grad_cam" else layer
        unit, score = _unit(net, image, arguments.unit, asked_of)
        title = f"unit {unit} of {asked_of}" if asked_of else f"class {unit}"
        if heat.ndim == 3:  # a gradient with its signs: grey is 0
            spread = float(abs(heat).max()) or 1.0
            ax = visualize.plot_image(heat / (2 * spread) + 0.5, title=title)
        else:
            ax = visualize.plot_heatmap(pictures.pixels(image)[0], heat, signed=signed, title=title)
        return ax, {"layer": layer, "unit": unit, "score": score}

    return method


def _unit(net: Any, image: Any, unit: int | None, layer: str | None) -> tuple[int, float]:
    """The unit that was asked about, or the strongest one, and its output."""
    from fastconv import visualize

    y = visualize.activations(net, image, layer or "")[0]
    strongest = y.reshape(len(y), -1).max(axis=1)
    chosen = int(strongest.argmax()) if unit is None else unit
    return chosen, round(float(strongest[chosen]), 4)


def _maximize(net: Any, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    import numpy as np

    from fastconv import visualize

    pictures = Pictures(net, arguments, arguments.trained)
    start: Any = (1, pictures.channels, *pictures.size)
    if arguments.image is not None:
        start = pictures.read(arguments.image)
    image = visualize.maximize_unit(
        net,
        arguments.unit,
        start,
        arguments.layer,
        steps=200 if arguments.steps is None else arguments.steps,
        jitter=max(min(pictures.size) // 16, 1),
        limits=pictures.limits,
        rng=np.random.default_rng(arguments.seed),
    )
    unit, score = _unit(net, image, arguments.unit, arguments.layer)
    title = f"unit {unit} of {arguments.layer}" if arguments.layer else f"class {unit}"
    found = {"layer": arguments.layer, "unit": unit, "score": score}
    return visualize.plot_image(pictures.pixels(image)[0], title=title), found


def _dream(net: Any, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    import numpy as np

    from fastconv import visualize

    pictures = Pictures(net, arguments, arguments.trained)
    image = pictures.read(arguments.image)
    name = arguments.layer or _layers_with_maps(net, image)[-1]
    dream = visualize.deep_dream(
        net,
        image,
        name,
        octaves=_octaves(min(pictures.size)),
        steps=10 if arguments.steps is None else arguments.steps,
        limits=pictures.limits,
        rng=np.random.default_rng(arguments.seed),
    )
    return visualize.plot_image(pictures.pixels(dream)[0], title=f"dream of {name}"), {"layer": name}


def _octaves(side: int) -> int:
    """As many sizes as leave 64 pixels in the smallest, at most 4."""
    return max(1, min(4, sum(side / 1.4**octave >= 64 for octave in range(4))))


def _style(net: Any, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from fastconv import visualize

    pictures = Pictures(net, arguments, arguments.trained)
    image, style = pictures.read(arguments.image), pictures.read(arguments.style)
    with_maps = _layers_with_maps(net, image)
    content = arguments.layer or with_maps[len(with_maps) * 2 // 3]
    # Five layers from the first to the one of the content, as the five blocks of VGG in the paper.
    before = with_maps[: with_maps.index(content) + 1] if content in with_maps else with_maps
    layers = list(dict.fromkeys(before[i * (len(before) - 1) // 4] for i in range(5)))
    result = visualize.style_transfer(
        net,
        image,
        style,
        content,
        layers,
        steps=300 if arguments.steps is None else arguments.steps,
        limits=pictures.limits,
    )
    found = {
        "layer": content,
        "style_layers": layers,
        "style_losses": [*result.style_losses[:1], *result.style_losses[-1:]],
    }
    return visualize.plot_image(pictures.pixels(result.image)[0]), found


_METHODS: dict[str, Callable[[Any, argparse.Namespace], tuple[Any, dict[str, Any]]]] = {
    "filters": _filters,
    "activations": _activations,
    "receptive-field": _receptive_field,
    "saliency": _attribution("saliency"),
    "guided": _attribution("guided_backprop"),
    "deconvnet": _attribution("deconvnet"),
    "grad-cam": _attribution("grad_cam"),
    "occlusion": _attribution("occlusion_map", signed=True),
    "maximize": _maximize,
    "dream": _dream,
    "style": _style,
}
_OF_A_PICTURE = tuple(name for name in _METHODS if name not in ("filters", "receptive-field", "maximize"))
