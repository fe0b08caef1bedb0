"""How a run trains: its options, which stand in the checkpoint, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = [
    "AUGMENTATIONS",
    "DEFAULTS",
    "OPTIMIZERS",
    "SCHEDULES",
    "augmentation",
    "normalisation",
    "optimizer",
    "schedule",
]

DEFAULTS: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 32,
    "optim": "adam",
    "lr": None,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "warmup": 0.0,
    "clip_norm": None,
    "label_smoothing": 0.0,
    "augment": "",
    "image_size": None,
    "grey": False,
    "validation": 0.2,
    "bad_files": "raise",
    "model_options": {},
    "seed": 0,
    "new_head": False,
    "freeze": "",
}

# The learning rates that the optimisers' papers, or the networks trained with them, recommend.
OPTIMIZERS = {
    "sgd": ("SGD", 0.05),
    "adam": ("Adam", 1e-3),
    "adamw": ("AdamW", 1e-3),
    "adagrad": ("Adagrad", 1e-2),
    "rmsprop": ("RMSprop", 1e-3),
    "adadelta": ("Adadelta", 1.0),
    "adamax": ("Adamax", 2e-3),
    "nadam": ("NAdam", 2e-3),
    "radam": ("RAdam", 1e-3),
}
SCHEDULES = ("constant", "cosine", "step")
_STEPS = 3  # as often does "step" divide the learning rate by ten

# Functions of the module fastconv.data.transforms, which --help does not need, and of the images' size.
AUGMENTATIONS: dict[str, Callable[[Any, tuple[int, int]], Any]] = {
    "flip": lambda T, size: T.RandomHorizontalFlip(),
    "vflip": lambda T, size: T.RandomVerticalFlip(),
    "crop": lambda T, size: T.RandomCrop(size, padding=max(1, min(size) // 8), padding_mode="edge"),
    "rotate": lambda T, size: T.RandomRotation(15, padding_mode="edge"),
    "shift": lambda T, size: T.RandomTranslation(0.1, padding_mode="edge"),
    "zoom": lambda T, size: T.RandomZoom((0.85, 1.15), padding_mode="edge"),
    "colour": lambda T, size: T.ColorJitter(0.3, 0.3, 0.3),
    "erase": lambda T, size: T.RandomErasing(),
}


def augmentation(words: str, size: tuple[int, int]) -> list[Any]:
    """The transforms that a list such as "flip,crop" names."""
    from ..data import transforms

    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        if name not in AUGMENTATIONS:
            raise ValueError(f"--augment must name some of {', '.join(AUGMENTATIONS)}; got {name!r}")
    return [AUGMENTATIONS[name](transforms, size) for name in names]


def normalisation(dataset: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of at most 512 images spread over the data set."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(512, len(dataset))).astype(int))
    images = np.stack([dataset[int(i)][0] for i in chosen]).astype(np.float64)
    mean, std = images.mean(axis=(0, 2, 3)), images.std(axis=(0, 2, 3))
    # Rounded, so that they read well in the checkpoint; a channel without contrast is only centred.
    return [round(float(m), 4) for m in mean], [round(float(s), 4) or 1.0 for s in std]


def optimizer(options: Mapping[str, Any], model: Any) -> Any:
    """The optimiser of the options, for all parameters of the model."""
    from .. import optim

    name, default = OPTIMIZERS[options["optim"]]
    settings: dict[str, Any] = {"lr": default if options["lr"] is None else options["lr"]}
    settings["weight_decay"] = options["weight_decay"]
    if options["optim"] in ("sgd", "rmsprop"):
        settings["momentum"] = options["momentum"]
    return getattr(optim, name)(model.parameters(), **settings)


def schedule(options: Mapping[str, Any], target: Any, batches: int) -> Any:
    """The schedule of the options (None for a constant rate), which counts batches; `batches` make an epoch."""
    from ..optim import lr_scheduler

    total = options["epochs"] * batches
    warm = round(options["warmup"] * batches)
    if not 0 <= warm < max(total, 1):
        raise ValueError(
            f"--warmup must be from 0 to less than the {options['epochs']} epochs, got {options['warmup']}"
        )
    rest = max(total - warm, 1)
    later: Any = None
    if options["schedule"] == "cosine":
        later = lr_scheduler.CosineAnnealingLR(target, T_max=rest)
    elif options["schedule"] == "step":
        later = lr_scheduler.StepLR(target, step_size=max(1, -(-rest // _STEPS)))
    elif warm:
        later = lr_scheduler.ConstantLR(target, factor=1.0)
    if not warm or later is None:
        return later
    rising = lr_scheduler.LinearLR(target, start_factor=0.01, total_iters=warm)
    return lr_scheduler.SequentialLR(target, [rising, later], milestones=[warm])
