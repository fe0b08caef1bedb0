"""Transfer learning with VGG16: classes of your own from a few pictures of each.

    python -m fastconv.examples.transfer_vgg16 --weights vgg16.safetensors --data pictures --output mine.safetensors

``pictures/train`` and ``pictures/val`` hold one folder of pictures for each class. The weights are torchvision's for
ImageNet ("vgg16-397923af.pth" saved as .safetensors or .npz), which you bring. What happens:

1. The network is frozen and gets a new last layer for the classes.
2. All pictures run through the frozen network once; the last layer is trained on what came out. An epoch of that takes
   less time than one picture.
3. The last block of convolutions is fine-tuned with the new layer, with a small learning rate and pictures that are
   mirrored at random. The frozen blocks before it are computed, but neither recorded nor changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F
from fastconv import data, models, optim, transfer
from fastconv.data.transforms import Normalize, RandomHorizontalFlip

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAST_BLOCK = ("features.24", "features.26", "features.28")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fastconv.examples.transfer_vgg16", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--weights", required=True, metavar="FILE", help="VGG16 for ImageNet, .safetensors or .npz")
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder with train/CLASS/*.jpg and val/CLASS/*.jpg"
    )
    parser.add_argument("--output", metavar="FILE", help="where to save the new network, .safetensors or .npz")
    parser.add_argument("--head-epochs", type=int, default=50, help="passes over the features (default 50)")
    parser.add_argument("--tune-epochs", type=int, default=3, help="passes of fine-tuning (default 3; 0: none)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time (default 16)")
    parser.add_argument("--size", type=int, default=224, help="height and width of the pictures (default 224)")
    parser.add_argument("--seed", type=int, default=0, help="of the new layer, the order and the mirroring (default 0)")
    return parser.parse_args(argv)


def train_head(head: Any, features: np.ndarray, labels: np.ndarray, epochs: int, rng: np.random.Generator) -> None:
    """The new layer alone, on features that were computed once."""
    optimizer = optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(epochs):
        for x, y in data.batches(features, labels, size=32, rng=rng):
            optimizer.zero_grad()
            F.cross_entropy(head(fc.tensor(x)), y).backward()
            optimizer.step()


def tune(net: Any, batches: data.DataLoader) -> float:
    """One pass of fine-tuning over what is not frozen; returns the mean loss."""
    optimizer = optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    net.train()
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(fc.tensor(x)), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    net.eval()
    return float(np.mean(losses))


def accuracy(net: Any, batches: Any) -> float:
    """Share of right answers."""
    right = [net(x).argmax(axis=1) == y for x, y in batches]
    return float(np.concatenate(right).mean())


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run all three steps; returns the accuracies on ``val`` after the second and the third."""
    options = _arguments(argv)
    rng = np.random.default_rng(options.seed)
    fc.manual_seed(options.seed)

    prepare = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    train, val = (
        data.ImageFolder(Path(options.data, part), prepare, size=options.size, bad_files="skip")
        for part in ("train", "val")
    )
    if train.classes != val.classes:
        raise ValueError(f"{options.data}: train has the classes {train.classes}, val has {val.classes}")
    for path, reason in (*train.skipped, *val.skipped):
        print(f"left out {path}: {reason}")
    in_order = [data.DataLoader(part, options.batch_size, num_workers=2) for part in (train, val)]

    net = models.vgg16()
    net.load_state_dict(fc.load(options.weights))
    transfer.freeze(net)
    head = transfer.replace_head(net, len(train.classes))
    net.eval()
    print(f"{len(train)} pictures to train, {len(val)} to test; {head} now gives {', '.join(train.classes)}")

    (features, labels), (test_features, test_labels) = (transfer.extract_features(net, part, head) for part in in_order)
    new_layer = net.classifier[-1]
    train_head(new_layer, features, labels, options.head_epochs, rng)
    result = {"head": float((new_layer(test_features).argmax(axis=1) == test_labels).mean())}
    print(f"new layer trained on {features.shape[1]} features: accuracy {100 * result['head']:.1f} %")

    if options.tune_epochs:
        transfer.unfreeze(net, *LAST_BLOCK)
        mirrored = data.DataLoader(
            train, options.batch_size, shuffle=True, num_workers=2, transform=RandomHorizontalFlip(), seed=options.seed
        )
        for epoch in range(options.tune_epochs):
            print(f"fine-tuning, epoch {epoch + 1}: loss {tune(net, mirrored):.4f}")
        result["tuned"] = accuracy(net, in_order[1])
        print(f"last block fine-tuned: accuracy {100 * result['tuned']:.1f} %")
    if options.output:
        fc.save(net, options.output)
        print(f"saved to {options.output}")
    return result


if __name__ == "__main__":
    main()
