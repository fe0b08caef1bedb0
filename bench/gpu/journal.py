"""The journal: one line of JSON for everything that happened, so that a call that is cut off loses one case at most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DONE = ("passed", "skipped")  # not tried again by a later call


class Journal:
    """A file of events, appended to by the program and by its worker processes, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, event: str, **fields: Any) -> None:
        """Append one event."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """All events in their order; half a line, which a killed process leaves, is left out."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                yield event

    def ended(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The last end of each case, by stage and key."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for event in self.events():
            if event["event"] == "end":
                found[event["stage"], event["key"]] = event
            elif event["event"] == "forget":
                found = {at: end for at, end in found.items() if at[0] != event["stage"]}
        return found

    def not_again(self, stage: str) -> set[str]:
        """Keys of a stage that are done, or were tried since the program began."""
        skipped: set[str] = set()
        for event in self.events():
            if event["event"] == "run":
                ends = self.ended()
                skipped = {key for key in skipped if ends.get((stage, key), {"status": ""})["status"] in DONE}
            elif event.get("stage") == stage:
                if event["event"] == "end":
                    skipped.add(event["key"])
                elif event["event"] == "forget":
                    skipped.clear()
        return skipped

    def unfinished(self) -> tuple[str, str] | None:
        """The case that was begun and did not end: what a worker died of."""
        begun = None
        for event in self.events():
            if event["event"] == "begin":
                begun = event["stage"], event["key"]
            elif event["event"] in ("end", "run"):
                begun = None
        return begun

    def environment(self) -> dict[str, Any]:
        """The last environment that was recorded."""
        found: dict[str, Any] = {}
        for event in self.events():
            if event["event"] == "environment":
                found = event["environment"]
        return found

    def stages(self) -> dict[str, dict[str, Any]]:
        """The last end of each stage."""
        return {event["stage"]: event for event in self.events() if event["event"] == "stage"}
