"""``fastconv predict``: what a trained network says of pictures, or how often it is right on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import natural, positive
from .output import add_json, print_json, table

_EXAMPLES = """examples:
  fastconv predict runs/resnet18 photo.jpg more-photos/
  fastconv predict runs/resnet18 --data photos/ --json
  fastconv predict runs/lenet5/last.npz --data digits

RUN is the output directory of `fastconv train`, whose best weights are taken, or one checkpoint of it.
"""


def add_parser(verbs: Any) -> None:
    """Add ``predict`` to the program's verbs."""
    parser = verbs.add_parser(
        "predict",
        help="classes of pictures, or accuracy on a data set, by a network that `fastconv train` trained",
        description="Name the classes of pictures, or measure loss and accuracy on the validation part of a data set.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_path", metavar="RUN", help="output directory or checkpoint of `fastconv train`")
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="picture files, or directories with some")
    parser.add_argument("--data", metavar="SOURCE", help="data set to measure on, as for `fastconv train`")
    parser.add_argument(
        "--top", type=positive, default=3, metavar="N", help="classes named for each picture (default 3)"
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="images at a time (default 32)")
    parser.add_argument(
        "--workers", type=natural, default=2, metavar="N", help="threads that read pictures (default 2)"
    )
    parser.add_argument("--bad-files", choices=("raise", "skip"), default="raise", help="pictures that cannot be read")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the network, then name or measure."""
    if bool(arguments.pictures) == bool(arguments.data):
        raise ValueError("either pictures or --data must be given")
    options, model, weights = _load(Path(arguments.run_path))
    if arguments.data:
        return _measure(arguments, options, model, weights)
    return _name(arguments, options, model, weights)


def _load(path: Path) -> tuple[dict[str, Any], Any, Path]:
    """The options of the run, the network with its weights, and where those come from."""
    from ..serialization import load
    from ..training import read_checkpoint
    from .networks import build

    last = path / "last.npz" if path.is_dir() else path
    state = read_checkpoint(last)
    options = state.config
    if "classes" not in options:
        raise ValueError(f"{last} was not written by `fastconv train`")
    best = last.with_stem(f"{last.stem}-best")
    weights = best if path.is_dir() and best.exists() else last
    model = build(options)
    model.load_state_dict(load(best) if weights == best else state.model)
    return options, model.eval(), weights


def _batches(dataset: Any, arguments: argparse.Namespace, options: dict[str, Any]) -> Any:
    from .. import data

    normalise = data.transforms.Normalize(options["mean"], options["std"])
    return data.DataLoader(dataset, arguments.batch_size, num_workers=arguments.workers, transform=normalise, seed=0)


def _measure(arguments: argparse.Namespace, options: dict[str, Any], model: Any, weights: Path) -> int:
    from .. import optim
    from ..training import Trainer
    from .networks import image_size
    from .sources import open_source

    size = image_size(options["model"], options["image_size"])
    kept = {name: options[name] for name in ("seed", "grey")}
    source = open_source(arguments.data, size, fraction=options["validation"], bad_files=arguments.bad_files, **kept)
    if source.classes != options["classes"]:
        raise ValueError(f"{arguments.data} must have the run's classes {options['classes']}, got {source.classes}")
    trainer = Trainer(model, optim.SGD(model.parameters()), progress=not arguments.json)
    measured = trainer.evaluate(_batches(source.validation, arguments, options))
    if arguments.json:
        print_json({"weights": str(weights), "data": arguments.data, "images": len(source.validation), **measured})
    else:
        print(
            f"{weights} on {len(source.validation)} images of {arguments.data}: loss {measured['loss']:.4f}, "
            f"accuracy {100 * measured['accuracy']:.2f} %"
        )
    return 0


def _name(arguments: argparse.Namespace, options: dict[str, Any], model: Any, weights: Path) -> int:
    from .. import optim
    from ..data import ImageFiles
    from ..data.image_folder import pictures
    from ..nn import functional as F
    from ..training import Trainer
    from .networks import image_size

    paths = [found for name in arguments.pictures for found in pictures(Path(name))]
    if not paths:
        raise ValueError(f"{', '.join(arguments.pictures)}: no pictures")
    files = ImageFiles(
        paths,
        mode="L" if options["channels"] == 1 else "RGB",
        size=image_size(options["model"], options["image_size"]),
        bad_files=arguments.bad_files,
    )
    entries: list[dict[str, Any]] = [{"picture": str(path), "problem": why} for path, why in files.skipped]
    if len(files):
        trainer = Trainer(model, optim.SGD(model.parameters()), progress=not arguments.json)
        scores = F.softmax(trainer.predict(_batches(files, arguments, options)), 1)
        for path, row in zip(files.paths, scores):
            order = row.argsort()[::-1][: arguments.top]
            top = [{"class": options["classes"][i], "probability": round(float(row[i]), 6)} for i in order]
            entries.append({"picture": str(path), "top": top})
    entries.sort(key=lambda entry: entry["picture"])
    if arguments.json:
        print_json({"weights": str(weights), "pictures": entries})
        return 0
    rows = [
        (
            entry["picture"],
            entry["problem"]
            if "problem" in entry
            else ", ".join(f"{top['class']} {100 * top['probability']:.1f} %" for top in entry["top"]),
        )
        for entry in entries
    ]
    print(table(rows, ("picture", "classes")))
    return 0
