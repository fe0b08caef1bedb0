"""What a training run measured, epoch by epoch: as rows, as CSV, as a picture."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..serialization import replace_file

__all__ = ["History"]


class History(Sequence[dict[str, Any]]):
    """One dictionary an epoch: its number, learning rate, losses, accuracies, speed.

    Parameters
    ----------
    rows : iterable of mapping
        Of an earlier part of the run.

    Examples
    --------
    >>> from fastconv.training import History
    >>> history = History([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 0.5}])
    >>> history[-1]["loss"], history.column("loss")
    (0.5, [2.0, 0.5])
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self.rows = [dict(row) for row in rows]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an epoch."""
        self.rows.append(dict(row))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def column(self, name: str) -> list[Any]:
        """One quantity of all epochs, None where an epoch does not have it."""
        return [row.get(name) for row in self.rows]

    @property
    def names(self) -> list[str]:
        """The quantities, in the order in which they first came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with one line an epoch; the file appears whole or not at all.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        text = io.StringIO()
        table = csv.DictWriter(text, self.names, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        with replace_file(path) as file:
            file.write(text.getvalue().encode())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw losses, and accuracies where there are any, over the epochs into a PNG file.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        OSError
            The file cannot be written.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                'pictures of a history need matplotlib, which is not installed: pip install "fastconv[demo]"'
            ) from error
        kinds = [kind for kind in ("loss", "accuracy") if any(kind in name for name in self.names)]
        figure = Figure(figsize=(5 * max(len(kinds), 1), 4), layout="constrained")
        for place, kind in enumerate(kinds):
            axes = figure.add_subplot(1, len(kinds), place + 1)
            for name, label in ((kind, "training"), (f"val_{kind}", "validation")):
                points = [(row["epoch"], row[name]) for row in self.rows if row.get(name) is not None]
                if points:
                    axes.plot(*zip(*points), marker=".", label=label)
            axes.set(xlabel="epoch", ylabel=kind)
            axes.grid(alpha=0.3)
            axes.legend()
        with replace_file(path) as file:
            figure.savefig(file, format="png", dpi=120)

    def __repr__(self) -> str:
        return f"History of {len(self)} epochs: {', '.join(self.names)}"
