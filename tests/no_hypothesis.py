"""Stands in for `hypothesis` where it is not installed: tests with drawn examples are skipped, their files are not."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest


class _Anything:
    """A strategy, a profile, a health check."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self

    def __or__(self, other: Any) -> Any:
        return self


class _Settings(_Anything):
    """`settings`: as a decorator it leaves the test as it is."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return arguments[0] if arguments else self


def given(*strategies: Any, **named: Any) -> Callable[[Any], Any]:
    """A decorator that leaves a skipped test without the arguments that would be drawn."""

    def decorate(test: Any) -> Any:
        @pytest.mark.skip(reason="hypothesis is not installed")
        def skipped() -> None:
            pass

        skipped.__name__, skipped.__module__ = test.__name__, test.__module__
        return skipped

    return decorate


def install() -> None:
    """Let `import hypothesis` find the stand-in."""
    module: Any = types.ModuleType("hypothesis")
    module.given = given
    module.strategies = module.HealthCheck = _Anything()
    module.settings = _Settings()
    sys.modules["hypothesis"] = module
    sys.modules["hypothesis.strategies"] = module.strategies
