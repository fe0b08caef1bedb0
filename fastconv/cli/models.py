"""``fastconv models``: the networks of ``fastconv.models`` with their parameters and multiply-accumulates."""

from __future__ import annotations

import argparse
from typing import Any

from ..progress import progress
from .output import add_json, print_json, table

_EXAMPLES = """examples:
  fastconv models
  fastconv models resnet50
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
