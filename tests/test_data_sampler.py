"""Samplers, the loader that goes by them, and data sets one after the other."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import data

Y = np.arange(12)


def drawn(loader):
    return np.concatenate([np.asarray(batch) for batch in loader]).tolist()


def test_orders_of_the_samplers():
    rng = np.random.default_rng(0)
    assert list(data.SequentialSampler(Y)) == Y.tolist()
    assert sorted(data.RandomSampler(Y).draw(rng)) == Y.tolist() != data.RandomSampler(Y).draw(rng).tolist()
    some = data.RandomSampler(Y, num_samples=30)
    assert len(some) == 30 and np.bincount(some.draw(rng)).tolist() >= [2] * 12
    assert len(set(data.RandomSampler(Y, num_samples=5).draw(rng).tolist())) == 5
    again = data.RandomSampler(Y, replacement=True, num_samples=2000).draw(rng)
    assert np.bincount(again, minlength=12).min() > 100 and len(again) == 2000
    assert sorted(data.SubsetRandomSampler([7, 3, 5]).draw(rng)) == [3, 5, 7]
    fc.manual_seed(3)
    first = list(data.RandomSampler(Y))
    fc.manual_seed(3)
    assert list(data.RandomSampler(Y)) == first and all(type(index) is int for index in first)


@pytest.mark.parametrize("scale", [1.0, 5e307, 1e-300])
def test_weights_are_probabilities(scale):
    weights = np.array([0, 1, 3, 0]) * scale
    counts = np.bincount(data.WeightedRandomSampler(weights, 4000).draw(np.random.default_rng(1)), minlength=4)
    assert counts[0] == counts[3] == 0 and abs(counts[1] - 1000) < 4 * np.sqrt(4000 * 0.25 * 0.75)
    once = data.WeightedRandomSampler(weights, 2, replacement=False)
    assert sorted(once.draw(np.random.default_rng(2))) == [1, 2]


@pytest.mark.parametrize("workers", [0, 3])
def test_the_loader_goes_by_its_sampler(workers):
    for sampler in ([5, 5, 0, 11, 2], range(3, 9), np.array([1, 0], np.uint8)):
        loader = data.DataLoader(Y, 2, sampler=sampler, num_workers=workers)
        assert len(loader) == -(-len(sampler) // 2)
        assert drawn(loader) == drawn(loader) == list(sampler)
    sampler = data.WeightedRandomSampler(np.ones(12), 7)
    orders = []
    for _ in range(2):
        loader = data.DataLoader(Y, 3, sampler=sampler, seed=5, num_workers=workers)
        orders.append([drawn(loader) for _ in range(3)])
        assert [len(batch) for batch in loader] == [3, 3, 1]
    assert orders[0] == orders[1] and orders[0][0] != orders[0][1]
    resumed = data.DataLoader(Y, 3, sampler=sampler, seed=0)
    resumed.load_state_dict({**loader.state_dict(), "epoch": 2})
    assert drawn(resumed) == orders[0][2]
    assert len(data.DataLoader(Y, 3, sampler=sampler, drop_last=True)) == 2


def test_shards_of_a_sampled_batch():
    sampler = data.RandomSampler(Y, replacement=True, num_samples=10)
    whole = list(data.DataLoader(Y, 4, sampler=sampler, seed=1))
    parts = [list(data.DataLoader(Y, 4, sampler=sampler, seed=1, shard=(rank, 2))) for rank in range(2)]
    for batch, *pieces in zip(whole, *parts):
        assert np.concatenate(pieces).tolist() == batch.tolist()


class Wrong(data.Sampler):
    def __init__(self, indices):
        self.indices = indices

    def __len__(self):
        return 2

    def draw(self, rng):
        return self.indices


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: data.DataLoader(Y, sampler=[0], shuffle=True), "sampler must be None where shuffle"),
        (lambda: data.DataLoader(Y, sampler=[]), "sampler must give at least one index, got none"),
        (lambda: list(data.DataLoader(Y, sampler=[0, 12])), "sampler must give indices from 0 to 11, got 0 to 12"),
        (lambda: list(data.DataLoader(Y, sampler=[0, -1])), "sampler must give indices from 0 to 11, got -1 to 0"),
        (lambda: list(data.DataLoader(Y, sampler=[0.5, 1])), "sampler must give 2 indices, got float64"),
        (
            lambda: list(data.DataLoader(Y, sampler=Wrong([0]))),
            "sampler must give 2 indices, got .* of shape",
        ),
        (lambda: data.RandomSampler([]), "data_source must hold at least one sample"),
        (lambda: data.RandomSampler(Y, num_samples=0), "num_samples must be at least 1"),
        (lambda: data.WeightedRandomSampler([1, -1], 1), "weights must be one finite number from 0 on"),
        (lambda: data.WeightedRandomSampler([1, np.nan], 1), "weights must be one finite number from 0 on"),
        (lambda: data.WeightedRandomSampler([[1, 1]], 1), "weights must be one finite number from 0 on"),
        (lambda: data.WeightedRandomSampler([0, 0], 1), "weights must be above 0 for at least 1 samples, got 0"),
        (lambda: data.WeightedRandomSampler([1, 0], 2, False), "weights must be above 0 for at least 2 samples, got 1"),
        (
            lambda: data.WeightedRandomSampler([1e308, 1e-20, 1e-20], 3, replacement=False),
            "weights must be above 0 for at least 3 samples, got 1",
        ),
        (lambda: data.ConcatDataset([]), "datasets must be at least one"),
    ],
)
def test_bad_arguments(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_indices_that_are_none():
    for wrong in ([0.5, 1.9], [True, False], [[1, 2]]):
        with pytest.raises(TypeError, match="indices must be a sequence of integers"):
            data.SubsetRandomSampler(wrong)
    assert len(data.SubsetRandomSampler([])) == 0


def test_a_sampler_that_shrinks_to_nothing():
    indices = [1, 2]
    loader = data.DataLoader(Y, sampler=indices)
    indices.clear()
    with pytest.raises(ValueError, match="sampler must give at least one index, got none"):
        list(loader)
    assert loader.epoch == 0
    indices.append(3)
    assert drawn(loader) == [3]


def test_a_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="Sampler defines no __len__"):
        len(data.Sampler())
    with pytest.raises(NotImplementedError, match="Sampler defines no draw"):
        data.Sampler().draw(np.random.default_rng())


def test_data_sets_one_after_the_other():
    parts = [data.TensorDataset(Y[:4], 10 * Y[:4]), data.TensorDataset(Y[:0], Y[:0]), data.TensorDataset(Y[4:], Y[4:])]
    joined = data.ConcatDataset(iter(parts))
    assert len(joined) == 12 and joined.cumulative_sizes == [4, 4, 12]
    assert [joined[i][0] for i in range(12)] == [joined[i][0] for i in range(-12, 0)] == Y.tolist()
    assert joined[np.int64(3)] == (3, 30) and joined[4] == (4, 4)
    for wrong in (12, -13):
        with pytest.raises(IndexError, match=f"index must be from -12 to 11, got {wrong}"):
            joined[wrong]
    with pytest.raises(TypeError):
        joined[1.0]
    assert [sample[0] for sample in joined] == Y.tolist()
    summed = parts[0] + parts[2] + parts[0]
    assert len(summed) == 16
    x, y = next(iter(data.DataLoader(summed, 16)))
    assert x.tolist() == [*range(12), *range(4)] and y.tolist()[-1] == 30
    assert [len(part) for part in data.random_split(joined, [0.5, 0.5])] == [6, 6]
