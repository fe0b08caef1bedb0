"""``fastconv explain``: one operation on this machine: work, kernel and why, bound and measured time."""

from __future__ import annotations

import argparse
import inspect
import math
import os
import re
from typing import Any

from .arguments import literal
from .output import add_json, print_json

_EXAMPLES = """examples:
  fastconv explain conv2d 8x64x56x56 64x64x3x3 --padding 1
  fastconv explain conv2d 1x3x224x224 64x3x7x7 64 --stride 2 --padding same --channels-last
  fastconv explain max_pool2d 8x64x112x112 --kernel-size 3 --stride 2 --padding 1
  fastconv explain batch_norm 8x64x56x56 64 64 training=True
  fastconv explain linear 64x400 120x400 --json

SHAPES are those of the function's array arguments in their order. An option without a flag of its own is given as
NAME=VALUE; a value is a number, a tuple such as 2,1 or a word.
"""
_FLAGS = ("stride", "padding", "dilation", "groups", "kernel-size", "output-size", "output-padding")


def add_parser(verbs: Any) -> None:
    """Add ``explain`` to the program's verbs."""
    parser = verbs.add_parser(
        "explain",
        help="FLOPs, bytes, kernel and why, roofline bound and measured time of one operation",
        description="Explain one call of fastconv.nn.functional on this machine, with arrays of random numbers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("op", metavar="OP", help="a function of fastconv.nn.functional, such as conv2d")
    parser.add_argument("arguments", nargs="+", metavar="SHAPE", help="shapes as 8x64x56x56, options as NAME=VALUE")
    for flag in _FLAGS:
        parser.add_argument(f"--{flag}", type=literal, metavar="VALUE")
    parser.add_argument("--dtype", default="float32", help="float32 (default), float64, float16 or bfloat16")
    parser.add_argument("--channels-last", action="store_true", help="give the arrays channels-last strides")
    parser.add_argument("--backend", help="a backend of `fastconv info` (default: the best)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the arrays, explain, print."""
    import numpy as np

    from .. import backend
    from ..cases import available_dtypes
    from ..explanation import explain
    from ..layouts import channels_last
    from ..nn import functional

    function: Any = getattr(functional, arguments.op, None)
    if arguments.op.startswith("_") or not hasattr(function, "spec"):
        known = sorted(name for name in dir(functional) if hasattr(getattr(functional, name), "spec"))
        raise ValueError(
            f"OP must be a function of fastconv.nn.functional, got {arguments.op!r}; one of {', '.join(known)}"
        )
    dtypes = available_dtypes()
    if arguments.dtype not in dtypes:
        raise ValueError(f"--dtype must be one of {', '.join(dtypes)}; got {arguments.dtype!r}")
    shapes = [_shape(text) for text in arguments.arguments if "=" not in text]
    options = dict(_option(text) for text in arguments.arguments if "=" in text)
    for flag in _FLAGS:
        name = flag.replace("-", "_")
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    parameters = inspect.signature(function).parameters
    unknown = [name for name in options if name not in parameters]
    if unknown:
        raise ValueError(f"{arguments.op} has no option {unknown[0]!r}; it takes {', '.join(parameters)}")
    names = [function.spec.names[i] for i in function.spec.arrays]
    if len(shapes) > len(names):
        raise ValueError(
            f"{arguments.op} takes at most {len(names)} arrays ({', '.join(names)}), got {len(shapes)} shapes"
        )
    size = sum(math.prod(shape) for shape in shapes) * dtypes[arguments.dtype].itemsize
    if size > _memory() // 4:
        raise ValueError(f"the arrays of these shapes need {size / 1e9:.1f} GB, more than a quarter of the memory")
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in zip(names, shapes):
        # Values around 1 are fit for everything, variances included.
        array = rng.uniform(0.5, 1.5, shape).astype(dtypes[arguments.dtype])
        if arguments.channels_last and array.ndim > 2:
            array = channels_last(array)
        arrays[name] = np.zeros(shape, np.int64) if name in ("indices", "target") else array
    with backend.use_backend(arguments.backend or backend.get_backend()):
        report = explain(function, **arrays, **options)
    if arguments.json:
        print_json(report.as_dict())
    else:
        print(report)
    return 0


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+([x,]\d+)*", text):
        raise ValueError(f"SHAPE must look like 8x64x56x56, got {text!r}")
    return tuple(int(part) for part in re.split("[x,]", text))


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name.strip().replace("-", "_"), literal(value)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
