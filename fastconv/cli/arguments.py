"""Kinds of values that options take."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from typing import Any

__all__ = ["assignment", "literal", "natural", "number_from", "positive"]


def natural(text: str) -> int:
    """A whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def number_from(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """A finite number within limits."""

    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high or value == float("inf"):
            limits = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"must be {limits}, got {text}")
        return value

    return number


def literal(text: str) -> Any:
    """A number, a tuple such as 2,1, or the word itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def assignment(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"must look like NAME=VALUE, got {text!r}")
    return name.strip(), literal(value)
