"""``fastconv demo``: LeNet-5 on handwritten digits: trains, verifies layer by layer, times, draws a picture."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ..arguments import natural, positive
from ..output import add_json, print_json, table

_EXAMPLES = """examples:
  fastconv demo                            scikit-learn's 1,797 digits, well under a minute
  fastconv demo --data ~/mnist --epochs 2  MNIST's IDX files, plain or .gz
  fastconv demo --seed 3 --output digits.png --json
"""
DEFAULT_EPOCHS = 12


def add_parser(verbs: Any) -> None:
    """Add ``demo`` to the program's verbs."""
    parser = verbs.add_parser(
        "demo",
        help="train LeNet-5 on handwritten digits, verify and time it, draw a picture",
        description="Train LeNet-5 on handwritten digits, hold every layer of the trained network against the "
        "reference, time it against the reference (and torch where installed), draw filters, activations and loss.",
        epilog=_EXAMPLES + '\nNeeds the extra "demo": pip install "fastconv[demo]"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", metavar="DIR", help="directory with MNIST's IDX files instead of scikit-learn's digits"
    )
    parser.add_argument(
        "--epochs", type=positive, help=f"passes over the training images (default {DEFAULT_EPOCHS}; 2 with --data)"
    )
    parser.add_argument("--seed", type=natural, default=0, help="seed of weights, order and split (default 0)")
    parser.add_argument(
        "--output", metavar="FILE.png", default="fastconv-demo.png", help="the picture (default fastconv-demo.png)"
    )
    parser.add_argument("--no-picture", action="store_true", help="write no picture, do not need matplotlib")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The four parts in turn; status 1 if a layer is beyond its bound."""
    from . import layers, picture, timing, training

    if not arguments.no_picture:
        picture.check(arguments.output)  # before the training rather than after it
    say = (lambda *_: None) if arguments.json else print
    started = time.perf_counter()
    dataset = training.load(arguments.data, arguments.seed)
    source = arguments.data or "scikit-learn's digits"
    say(f"{source}: {len(dataset.train_labels)} images to train, {len(dataset.test_labels)} to test")
    epochs = arguments.epochs or (2 if arguments.data else DEFAULT_EPOCHS)
    history = training.train(dataset, epochs, arguments.seed, say, bar=not arguments.json)
    seconds = time.perf_counter() - started
    say(f"test accuracy {100 * history.accuracies[-1]:.2f} % after {epochs} epochs, {seconds:.1f} s\n")

    images = dataset.test_images[:64]
    rows = layers.verify(history.net, images)
    passed = all(row.passed for row in rows)
    say("the trained network against the reference, layer by layer:")
    say(layers.text(rows))
    say("every layer is within its bound\n" if passed else "a layer is BEYOND its bound\n")

    timings = timing.measure(history.net, dataset) if passed else []
    if timings:
        say(f"milliseconds for a batch of {timing.BATCH} images:")
        cells = [(row.backend, f"{row.forward_ms:.3f}", f"{row.step_ms:.3f}", row.note) for row in timings]
        say(table(cells, ("backend", "forward", "training step", "step"), "lrr"))
    if not arguments.no_picture:
        picture.draw(arguments.output, history, dataset)
        say(f"\nlearned filters, activations and loss: {Path(arguments.output)}")
    if arguments.json:
        print_json(
            {
                "passed": passed,
                "accuracy": history.accuracies[-1],
                "accuracies": history.accuracies,
                "losses": history.losses,
                "epochs": epochs,
                "seed": arguments.seed,
                "seconds": round(seconds, 3),
                "layers": [row._asdict() for row in rows],
                "timings": [row._asdict() for row in timings],
                "picture": None if arguments.no_picture else arguments.output,
            }
        )
    return 0 if passed else 1
