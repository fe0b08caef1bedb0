"""``fastconv models``: the networks of ``fastconv.models`` with their parameters and multiply-accumulates."""

from __future__ import annotations

import argparse
from typing import Any

from ..progress import progress
from .output import add_json, print_json, table

_EXAMPLES = """examples:
  fastconv models
  fastconv models resnet50
  fastconv models resnet50 --explain --batch-size 8 --optimize
  fastconv models --json
"""
_HELP = "table of the networks: input, parameters, multiply-accumulates, source"


def add_parser(verbs: Any) -> None:
    """Add ``models`` to the program's verbs."""
    parser = verbs.add_parser(
        "models",
        help=_HELP,
        description=f"A {_HELP}. MACs are those of one input by the direct method; each network runs once to count "
        "them. With one NAME, its layers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one network, layer by layer")
    parser.add_argument(
        "--explain", action="store_true", help="also time the layers of NAME against the machine's bound"
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="inputs at once for --explain (default 1)"
    )
    parser.add_argument("--optimize", action="store_true", help="explain the network as fastconv.optimize makes it")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build every network (or one) without drawing weights, run it on zeros, print."""
    from ..models import ModelInfo, list_models, model_info
    from ..nn.init import skip_init
    from ..nn.modules.summary import Summary

    def summary(info: ModelInfo) -> Summary:
        with skip_init():
            return info.build().summary((1, *info.input_shape))

    if arguments.explain:
        if arguments.name is None:
            raise ValueError("--explain needs the NAME of one network")
        return _explain(model_info(arguments.name), arguments)
    if arguments.name is not None:
        info = model_info(arguments.name)
        found = summary(info)
        if arguments.json:
            layers = [
                {
                    "name": r.name,
                    "layer": r.layer,
                    "output_shape": r.output_shape,
                    "parameters": r.parameters,
                    "macs": r.macs,
                }
                for r in found.rows
            ]
            print_json({**_entry(info, found), "layers": layers})
        else:
            print(f"{info.name}, {info.source}\n\n{found}\n{found.macs:,} multiply-accumulates for one input")
        return 0
    infos = [model_info(name) for name in list_models()]
    entries = [_entry(info, summary(info)) for info in progress(infos, len(infos), "models", not arguments.json)]
    if arguments.json:
        print_json({"models": entries})
        return 0
    rows = [
        (e["name"], "x".join(map(str, e["input_shape"])), f"{e['parameters']:,}", _macs(e["macs"]), e["source"])
        for e in entries
    ]
    print(table(rows, ("model", "input", "parameters", "MACs", "source"), "llrrl"))
    return 0


def _explain(info: Any, arguments: argparse.Namespace) -> int:
    from ..explanation import explain
    from ..optimization import optimize

    net = info.build().eval()
    shape = (arguments.batch_size, *info.input_shape)
    report = explain(optimize(net) if arguments.optimize else net, shape)
    if arguments.json:
        print_json({"name": info.name, **report.as_dict()})
    else:
        print(f"{info.name}, {info.source}\n{report}")
    return 0


def _entry(info: Any, found: Any) -> dict[str, Any]:
    return {
        "name": info.name,
        "input_shape": info.input_shape,
        "parameters": found.parameters,
        "macs": found.macs,
        "source": info.source,
    }


def _macs(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.2f} M"
