"""A network on scikit-learn's digits, with all that a training run has: augmentation, a schedule, checkpoints.

    python -m fastconv.examples.train_digits                     LeNet-5, ten epochs, well under a minute
    python -m fastconv.examples.train_digits --epochs 20         goes on to twenty: the first ten are not repeated
    python -m fastconv.examples.train_digits --model resnet18 --size 32 --folder runs/resnet18

The same from the command line: ``fastconv train lenet5 --data digits``. A second run in the same folder goes on where
the first one ended, or was interrupted, and gives the bits of one long run: the checkpoint holds the parameters, the
optimiser, the schedule, the random generator and the loader's position.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fastconv as fc
from fastconv import data, models, optim
from fastconv.data import transforms
from fastconv.optim import lr_scheduler

BATCH, WARM_UP = 32, 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fastconv.examples.train_digits", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="lenet5", help="a name from `fastconv models` (default lenet5)")
    parser.add_argument("--size", type=int, default=28, help="height and width of the images (default 28)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training images (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default 0)")
    parser.add_argument("--folder", default="runs/digits", help="for checkpoint and history (default runs/digits)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and print the accuracy on the test images."""
    options = _arguments(argv)
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{options.model}.npz"

    digits = data.load_digits(seed=options.seed)
    resize = transforms.Resize(options.size)
    augment = transforms.Compose(
        [transforms.RandomTranslation(0.08), transforms.RandomRotation(8), transforms.RandomErasing(0.2)]
    )
    train = data.DataLoader(
        data.TensorDataset(resize(digits.train_images), digits.train_labels),
        BATCH,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        transform=augment,
        seed=options.seed,
    )
    test = data.DataLoader(data.TensorDataset(resize(digits.test_images), digits.test_labels), 128, seed=0)

    fc.manual_seed(options.seed)
    net = models.get_model(options.model, num_classes=10, in_channels=1)
    optimizer = optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    # The rate depends on the epoch alone, not on how many there will be, so that a run may be prolonged.
    schedule = lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=WARM_UP), lr_scheduler.ExponentialLR(optimizer, 0.8)],
        milestones=[WARM_UP],
    )
    trainer = fc.Trainer(
        net,
        optimizer,
        scheduler=schedule,
        max_grad_norm=5.0,
        checkpoint=checkpoint,
        config={"model": options.model, "size": options.size, "seed": options.seed},
    )
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"going on after epoch {trainer.epoch}")
    history = trainer.fit(train, options.epochs, validation=test)
    history.to_csv(folder / f"{options.model}.csv")
    if len(history):
        history.plot(folder / f"{options.model}.png")
    net.load_state_dict(fc.load(trainer.best_checkpoint))
    print(f"accuracy of the best epoch on the test images: {100 * trainer.evaluate(test)['accuracy']:.2f} %")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
