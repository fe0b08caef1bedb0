"""What a Trainer on several ranks has to agree on: the order of the samples, and the states of the generators."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..distributed import Communicator
from ..random import get_rng_state, set_rng_state

__all__ = ["check_same_order", "gather_rng_states", "set_own_rng_state"]


def check_same_order(loader: Any, group: Communicator) -> None:
    """ValueError, on every rank, where the parts that the ranks take are not those of one batch."""
    place = (group.rank, group.size)
    shard = getattr(loader, "shard", place)
    if group.size > 1 and tuple(shard) != place:
        raise ValueError(f"train must give rank {group.rank} its part of each batch: shard={place}, got {shard}")
    own = np.array([getattr(loader, "seed", 0), getattr(loader, "epoch", 0)], np.uint64)
    values = group.all_gather(own)
    for rank, value in enumerate(values):
        if (value != values[0]).any():
            raise ValueError(
                f"train must have the same seed and epoch on every rank, got {values[0].tolist()} on rank 0 and "
                f"{value.tolist()} on rank {rank}; give the DataLoader a seed"
            )


def gather_rng_states(group: Communicator) -> dict[str, Any]:
    """The state of the generator of :func:`fastconv.manual_seed`; with several ranks those of all."""
    if group.size == 1:
        return get_rng_state()
    text = json.dumps(get_rng_state()).encode()
    longest = int(group.all_gather(np.array(len(text))).max())
    texts = group.all_gather(np.frombuffer(text.ljust(longest), np.uint8))
    return {"ranks": [json.loads(each.tobytes()) for each in texts]}


def set_own_rng_state(state: dict[str, Any], group: Communicator) -> None:
    """Set what :func:`gather_rng_states` returned; ValueError where that was on another number of ranks."""
    states = state.get("ranks", [state])
    if len(states) != group.size:
        raise ValueError(
            f"the run was on {len(states)} ranks, this one is on {group.size}: going on bit for bit takes the random "
            f"numbers of each of those {len(states)}; begin anew from the weights of the checkpoint instead"
        )
    set_rng_state(states[group.rank])
