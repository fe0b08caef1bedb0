"""``fastconv train``: a network of the catalogue on images of one's own, with checkpoints to go on from."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from .arguments import assignment, natural, number_from, positive
from .output import add_json, print_json

_EXAMPLES = """examples:
  fastconv train lenet5 --data digits --epochs 8
  fastconv train resnet18 --data photos/ --image-size 96 --optim sgd --augment flip,crop,colour
  fastconv train resnet18 --resume --output runs/resnet18      goes on where it stopped, bit for bit
  fastconv train resnet18 --data pets/ --weights resnet18.safetensors --new-head --freeze body      other classes
  mpiexec -n 4 fastconv train resnet18 --data photos/          on 4 processes, each with a quarter of every batch

--data is the word digits (scikit-learn's), a directory with MNIST's IDX or CIFAR's binary files, or one with a folder
of pictures for each class, or with such directories train and val. The output directory gets last.npz (all that is
needed to go on), last-best.npz (weights of the best epoch), history.csv and history.png. Ctrl-C leaves the last whole
epoch there.
"""


def add_parser(verbs: Any) -> None:
    """Add ``train`` to the program's verbs."""
    from .recipe import AUGMENTATIONS, DEFAULTS, OPTIMIZERS, SCHEDULES

    parser = verbs.add_parser(
        "train",
        help="train a network of `fastconv models` on a folder of pictures, MNIST, CIFAR or digits",
        description="Train a network of the catalogue to tell classes of images.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a name from `fastconv models`")
    parser.add_argument("--data", metavar="SOURCE", help="digits, or a directory (see below)")
    # The defaults come in later: with --resume, what is not given is that of the checkpoint.
    for flag, kind, words in (
        ("epochs", positive, "passes over the training images"),
        ("batch-size", positive, "images in a step"),
        ("lr", number_from(0), f"learning rate; {', '.join(f'{k} {v[1]:g}' for k, v in OPTIMIZERS.items())}"),
        ("momentum", number_from(0), "of sgd and rmsprop"),
        ("weight-decay", number_from(0), "factor of the weights in their gradients"),
        ("warmup", number_from(0), "epochs in which the learning rate rises"),
        ("clip-norm", number_from(0), "largest norm of the gradients"),
        ("label-smoothing", number_from(0, 1), "part of each target that is spread over all classes"),
        ("image-size", positive, "pixels of height and width; the model's own by default"),
        ("validation", number_from(0, 1), "part of a folder without val that is kept for validation"),
        ("seed", natural, "of weights, order, augmentation and split"),
    ):
        default = DEFAULTS[flag.replace("-", "_")]
        shown = "" if default is None else f" (default {default})"
        parser.add_argument(f"--{flag}", type=kind, metavar="N", help=words + shown)
    parser.add_argument("--optim", choices=sorted(OPTIMIZERS), help=f"(default {DEFAULTS['optim']})")
    parser.add_argument("--schedule", choices=SCHEDULES, help=f"of the learning rate (default {DEFAULTS['schedule']})")
    parser.add_argument("--augment", metavar="LIST", help=f"some of {','.join(AUGMENTATIONS)}")
    parser.add_argument("--grey", action="store_true", default=None, help="read pictures as grey values")
    parser.add_argument("--bad-files", choices=("raise", "skip"), help="pictures that cannot be read (default raise)")
    parser.add_argument(
        "--model-option", action="append", type=assignment, metavar="NAME=VALUE", help="of the model's constructor"
    )
    parser.add_argument("--weights", metavar="FILE", help="weights to begin with: .npz, .safetensors or a checkpoint")
    parser.add_argument(
        "--new-head", action="store_true", default=None, help="leave out the last layer of --weights: for other classes"
    )
    parser.add_argument(
        "--freeze", metavar="LIST", help='layers that stay as they are, such as conv1,layer1; "body": all but the last'
    )
    parser.add_argument(
        "--workers", type=natural, default=2, metavar="N", help="threads that prepare batches (default 2)"
    )
    parser.add_argument(
        "--patience", type=positive, metavar="N", help="epochs without improvement that end the training"
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or cuda:N, where the network computes (default cpu)"
    )
    parser.add_argument("--output", metavar="DIR", help="(default runs/MODEL)")
    parser.add_argument("--resume", action="store_true", help="go on from the output directory's last.npz")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where the output directory holds a run")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train; status 1 where the loss is no number any more."""
    from ..distributed import NCCLCommunicator, end_all_ranks, world

    group = world()
    if group.size > 1 and arguments.device not in (None, "cpu"):
        if arguments.device != "cuda":
            raise ValueError(
                f"--device must be cpu, or cuda, where each of several processes takes a GPU, got {arguments.device}"
            )
        group = NCCLCommunicator(group)
        arguments.device = group.device
    folder = Path(arguments.output or f"runs/{arguments.model}")
    last = folder / "last.npz"
    options, saved = _options(arguments, last)
    first = group.rank == 0  # the rank that writes and speaks
    say = print if first and not arguments.json else (lambda *_: None)
    trainer, train, validation = prepare(options, arguments, say, group)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.checkpoint = last
    if saved is not None:
        trainer.config, config = saved, trainer.config
        trainer.load(last)
        trainer.config = config
        say(f"going on after epoch {trainer.epoch}")

    def report(line: str) -> None:
        say(line)
        trainer.history.to_csv(folder / "history.csv")

    if first:
        trainer.log = report
    status = 0
    try:
        with end_all_ranks(group):
            trainer.fit(train, options["epochs"], validation)
    except KeyboardInterrupt:
        if first:
            print(f"{last} holds {trainer.epoch} whole epochs: go on with --resume", file=sys.stderr)
        raise
    except FloatingPointError as error:
        print(f"fastconv train: {error}", file=sys.stderr)
        status = 1
    finally:
        picture = _draw(trainer, folder) if first else None
    if first:
        _report(arguments, trainer, folder, picture, say)
    return status


def _options(arguments: argparse.Namespace, last: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The options of the run: those given, those of the checkpoint (for --resume, too), the defaults for the rest."""
    from ..models import model_info
    from ..training import read_checkpoint
    from .recipe import DEFAULTS

    given = {name: getattr(arguments, name, None) for name in DEFAULTS if getattr(arguments, name, None) is not None}
    if arguments.model_option:
        given["model_options"] = dict(arguments.model_option)
    if not arguments.resume:
        if last.exists() and not arguments.overwrite:
            raise ValueError(f"{last} holds a run: go on with --resume, or begin anew with --overwrite")
        if arguments.data is None:
            raise ValueError("--data must be given: the word digits, or a directory")
        if arguments.new_head and arguments.weights is None:
            raise ValueError("--new-head must come with --weights, whose last layer it leaves out")
        named = {"model": arguments.model, "data": arguments.data, "weights": arguments.weights}
        return {**DEFAULTS, **given, **named}, None
    if arguments.overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    saved = {"new_head": False, "freeze": "", **read_checkpoint(last).config}  # runs from before there were these
    model_info(arguments.model)
    if set(DEFAULTS) - set(saved):
        raise ValueError(f"{last} was not written by `fastconv train`")
    given.update(model=arguments.model, **({"weights": arguments.weights} if arguments.weights else {}))
    # More epochs change nothing that was done, unless the learning rate followed from their number.
    free = ("epochs",) if saved["schedule"] == "constant" else ()
    differing = [
        f"--{name.replace('_', '-')} {saved[name]} then, {value} now"
        for name, value in given.items()
        if saved[name] != value and name not in free
    ]
    if differing:
        raise ValueError(f"--resume goes on with the options of {last}: {'; '.join(differing)}")
    moved = {"data": arguments.data} if arguments.data else {}
    return {**saved, **moved, **{name: given[name] for name in free if name in given}}, saved


def prepare(options: dict[str, Any], arguments: argparse.Namespace, say: Any, group: Any) -> tuple[Any, Any, Any]:
    """A Trainer and both loaders for these options, on this rank of `group`."""
    import fastconv as fc

    from .. import data
    from ..nn import SyncBatchNorm
    from ..nn import functional as F
    from ..training import Trainer
    from . import recipe
    from .networks import begin_with, build, freeze, image_size
    from .sources import open_source

    size = image_size(options["model"], options["image_size"])
    kept = {name: options[name] for name in ("seed", "grey", "bad_files")}
    source = open_source(options["data"], size, fraction=options["validation"], **kept, say=say)
    say(
        f"{options['data']}: {len(source.train)} images to train, {len(source.validation)} to validate, "
        f"{len(source.classes)} classes"
    )
    if "mean" not in options:
        options["mean"], options["std"] = recipe.normalisation(source.train)
    if options.setdefault("classes", source.classes) != source.classes:
        raise ValueError(f"{options['data']} must have the run's classes {options['classes']}, got {source.classes}")
    options["channels"] = source.channels
    normalise = data.transforms.Normalize(options["mean"], options["std"])
    fc.manual_seed(options["seed"])
    model = build(options)
    if options["weights"] is not None:
        begin_with(model, options["weights"], options["new_head"])
    freeze(model, options["freeze"])
    if group.size > 1:
        model = SyncBatchNorm.convert_sync_batchnorm(model, group)
    if group.rank > 0:
        fc.manual_seed(options["seed"] + group.rank)  # other masks of dropout than rank 0
    shard = (group.rank, group.size)
    count = len(source.train)
    train = data.DataLoader(
        source.train,
        options["batch_size"],
        shuffle=True,
        num_workers=arguments.workers,
        # Batch normalisation cannot learn from a last batch of one image.
        drop_last=count > options["batch_size"] and count % options["batch_size"] == 1,
        transform=data.transforms.Compose([*recipe.augmentation(options["augment"], size), normalise]),
        seed=options["seed"],
        shard=shard,
    )
    validation = data.DataLoader(
        source.validation,
        options["batch_size"],
        num_workers=arguments.workers,
        transform=normalise,
        seed=0,
        shard=shard,
    )
    target = recipe.optimizer(options, model)
    schedule = recipe.schedule(options, target, len(train))
    trainer = Trainer(
        model,
        target,
        partial(F.cross_entropy, label_smoothing=options["label_smoothing"]),
        schedule,
        schedule_batches=schedule is not None,
        max_grad_norm=options["clip_norm"],
        patience=arguments.patience,
        config=options,
        device=arguments.device,
        progress=not arguments.json,
        process_group=group,
    )
    return trainer, train, validation


def _draw(trainer: Any, folder: Path) -> Path | None:
    """The history's picture, where there is something to draw and matplotlib to draw with."""
    if not len(trainer.history):
        return None
    try:
        trainer.history.plot(folder / "history.png")
    except ImportError:
        return None
    return folder / "history.png"


def _report(arguments: argparse.Namespace, trainer: Any, folder: Path, picture: Path | None, say: Any) -> None:
    rows = trainer.history.rows
    if arguments.json:
        print_json(
            {
                "model": arguments.model,
                "epochs": trainer.epoch,
                "history": rows,
                "checkpoint": str(trainer.checkpoint),
                "best": str(trainer.best_checkpoint) if trainer.best_checkpoint.exists() else None,
                "picture": None if picture is None else str(picture),
            }
        )
    elif rows:
        best = min(rows, key=lambda row: row["val_loss"])  # the one that is kept
        accuracy = f", accuracy {100 * best['val_accuracy']:.2f} %" if "val_accuracy" in best else ""
        say(f"best validation loss {best['val_loss']:.4f}{accuracy} after epoch {best['epoch']}; all in {folder}")
