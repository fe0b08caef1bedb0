"""Data sets and the loader: order, workers, prefetching, errors, collation."""

import threading
import time
from collections import namedtuple

import numpy as np
import pytest

import fastconv as fc
from fastconv import data

X, Y = np.arange(20, dtype=np.float32).reshape(20, 1, 1, 1), np.arange(20)


class Slow(data.Dataset):
    """Samples that take a time of their own, so that workers finish out of order."""

    def __init__(self, fail=()):
        self.fail = fail
        self.asked = 0
        self.threads = set()

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.asked += 1
        self.threads.add(threading.current_thread())
        time.sleep(0.003 * (index % 3 == 0))
        if index in self.fail:
            raise OSError(f"sample {index} is broken")
        return np.float32(index), {"label": index}


def _noise(images, rng):
    return images + rng.random(images.shape)


def _epochs(loader, count=2):
    return [[(x.tolist(), y.tolist()) for x, y in loader] for _ in range(count)]


def test_every_sample_comes_once_in_each_epoch():
    loader = data.DataLoader(data.TensorDataset(X, Y), batch_size=6, shuffle=True, seed=0)
    assert len(loader) == 4 and "batch_size=6" in repr(loader)
    orders = []
    for _ in range(2):
        batches = list(loader)
        assert [len(y) for _, y in batches] == [6, 6, 6, 2]
        for x, y in batches:
            np.testing.assert_array_equal(x.ravel(), y)
        orders.append(np.concatenate([y for _, y in batches]).tolist())
        assert sorted(orders[-1]) == Y.tolist() != orders[-1]
    assert orders[0] != orders[1]
    assert [len(y) for _, y in data.DataLoader(loader.dataset, 6, drop_last=True)] == [6, 6, 6]
    assert np.concatenate([y for _, y in data.DataLoader(loader.dataset, 6)]).tolist() == Y.tolist()


def test_calls_of_torchs_loader_need_no_change():
    dataset = data.TensorDataset(X, Y)
    options = {"batch_size": 6, "shuffle": True, "num_workers": 2, "seed": 0}
    loader = data.DataLoader(dataset, **options, pin_memory=True, persistent_workers=True)
    assert _epochs(loader) == _epochs(data.DataLoader(dataset, **options))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_batches_do_not_depend_on_the_workers(workers):
    options = {"batch_size": 3, "shuffle": True, "seed": 7, "transform": _noise}
    expected = _epochs(data.DataLoader(data.TensorDataset(X, Y), **options))
    loader = data.DataLoader(data.TensorDataset(X, Y), **options, num_workers=workers)
    assert _epochs(loader) == expected
    slow = Slow()
    plain = [(x.tolist(), y["label"].tolist()) for x, y in data.DataLoader(Slow(), 3, shuffle=True, seed=2)]
    mixed = [(x.tolist(), y["label"].tolist()) for x, y in data.DataLoader(slow, 3, True, workers, seed=2)]
    assert mixed == plain
    assert threading.main_thread() not in slow.threads


def test_an_epoch_follows_from_seed_and_number():
    def loader(seed):
        return data.DataLoader(data.TensorDataset(X, Y), 4, shuffle=True, seed=seed, transform=_noise)

    first = _epochs(loader(3), 3)
    again = loader(3)
    again.epoch = 2
    assert _epochs(again, 1)[0] == first[2]
    assert _epochs(loader(4), 1)[0] != first[0]
    fc.manual_seed(9)
    drawn = _epochs(loader(None), 1)
    fc.manual_seed(9)
    assert _epochs(loader(None), 1) == drawn


def test_shards_are_the_parts_of_each_batch():
    options = {"batch_size": 8, "shuffle": True, "seed": 1}
    whole = list(data.DataLoader(data.TensorDataset(X, Y), **options))
    for count in (1, 2, 4):
        shards = [
            list(data.DataLoader(data.TensorDataset(X, Y), **options, shard=(rank, count))) for rank in range(count)
        ]
        for batch, *parts in zip(whole, *shards, strict=True):
            np.testing.assert_array_equal(batch[1], np.concatenate([part[1] for part in parts]))


def test_a_shard_of_no_samples_has_their_shapes():
    """The last batch has 2 samples for 4 processes; a transform that changes sizes has its say."""

    class Pairs(data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return X[index], {"label": index}

    def enlarge(images, rng):
        return np.concatenate([images, images], axis=2)

    loaders = [data.DataLoader(Pairs(), 8, shard=(rank, 4), transform=enlarge) for rank in range(4)]
    last = [list(loader)[-1] for loader in loaders]
    assert [len(images) for images, _ in last] == [0, 1, 0, 1]
    for images, entries in last:
        assert images.shape[1:] == (1, 2, 1) and images.dtype == np.float32
        assert entries["label"].dtype == np.int64 and len(entries["label"]) == len(images)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_shards_are_augmented_as_on_one_process(ranks):
    """Parts of different lengths, too: the last batch has five images."""
    images = np.random.default_rng(2).random((17, 3, 8, 8)).astype(np.float32)
    every = [
        data.transforms.RandomHorizontalFlip(),
        data.transforms.RandomVerticalFlip(),
        data.transforms.RandomCrop(8, padding=2),
        data.transforms.RandomAffine(30, 0.2, (0.8, 1.2)),
        data.transforms.ColorJitter(0.3, 0.3, 0.3),
        data.transforms.RandomErasing(0.7, value="random"),
        lambda images, rng: images + rng.normal(size=len(images))[:, None, None, None] + rng.uniform(),
    ]
    dataset = data.TensorDataset(images, np.arange(17))
    options = {"shuffle": True, "seed": 4, "transform": data.transforms.Compose(every)}
    whole = list(data.DataLoader(dataset, 12, **options))
    shards = [list(data.DataLoader(dataset, 12, **options, shard=(rank, ranks))) for rank in range(ranks)]
    for batch, *parts in zip(whole, *shards, strict=True):
        for all_of_it, pieces in zip(batch, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(all_of_it, np.concatenate(pieces))
    assert not np.array_equal(whole[0][0], images[whole[0][1]])


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_surfaces_where_its_batch_is_asked_for(workers):
    before = threading.active_count()
    got = []
    with pytest.raises(OSError, match="sample 13 is broken") as caught:
        for x, _ in data.DataLoader(Slow(fail=(13, 17)), 4, num_workers=workers):
            got.append(x.tolist())
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert caught.value.__notes__ == ["in batch 3 of epoch 0, samples 12, 13, 14, 15"]
    assert threading.active_count() == before


def test_leaving_the_loop_stops_the_workers():
    before = threading.active_count()
    dataset = Slow()
    for _ in data.DataLoader(dataset, 1, num_workers=2, prefetch_factor=1):
        break
    assert threading.active_count() == before
    assert dataset.asked <= 6  # what was prefetched, not the whole epoch


def test_workers_work_ahead():
    ready = threading.Event()

    class Ahead(Slow):
        def __getitem__(self, index):
            if index == 3:
                ready.set()
            return super().__getitem__(index)

    batches = iter(data.DataLoader(Ahead(), 1, num_workers=1, prefetch_factor=3))
    next(batches)
    assert ready.wait(5)
    batches.close()


def test_collation():
    batch = data.collate([(1.5, np.int64(3), {"a": np.zeros(2, np.float16)})] * 2)
    assert batch[0].dtype == np.float32 and batch[1].dtype == np.int64
    assert batch[2]["a"].shape == (2, 2) and batch[2]["a"].dtype == np.float16
    Pair = namedtuple("Pair", "image path")
    pair = data.collate([Pair(np.zeros(2, np.uint8), "a.png"), Pair(np.full(2, 300), "b.png")])
    assert isinstance(pair, Pair) and pair.path == ["a.png", "b.png"] and pair.image[1, 0] == 300
    for samples, kind, values in (
        ([1, 2.5], np.float32, [1, 2.5]),
        ([True, 2], np.int64, [1, 2]),
        ([np.float64(1e300), np.float64(1)], np.float64, [1e300, 1]),
        ([np.float32(1), np.float64(1e300)], np.float64, [1, 1e300]),
    ):
        batch = data.collate(samples)
        assert batch.dtype == kind and batch.tolist() == values
    for samples, error, word in (
        ([np.zeros(2), np.zeros(3)], ValueError, r"one shape.*\(2,\), \(3,\)"),
        ([(1, 2), (1,)], ValueError, "one length"),
        ([{"a": 1}, {"b": 1}], ValueError, "same keys"),
        ([object(), 1], TypeError, "numbers, arrays or strings, got object"),
        ([1, "a"], TypeError, "numbers, arrays or strings, got str"),
    ):
        with pytest.raises(error, match=word):
            data.collate(samples)
    lengths = data.DataLoader(data.TensorDataset(X, Y), 20, collate_fn=lambda samples: [len(samples)])
    assert next(iter(lengths)) == [20]


def test_data_sets():
    dataset = data.TensorDataset(X, Y, transform=lambda image: -image)
    assert dataset[3][0] == -3 and dataset[3][1] == 3 and len(dataset) == 20
    np.testing.assert_array_equal(dataset.batch([2, 5])[0].ravel(), [-2, -5])
    part = data.Subset(data.Subset(dataset, range(10, 20)), [0, 3])
    assert [sample[1] for sample in part] == [10, 13]
    ((x, y),) = data.DataLoader(part, 2)
    assert y.tolist() == [10, 13] and x.ravel().tolist() == [-10, -13]
    with pytest.raises(NotImplementedError, match="__getitem__"):
        data.Dataset()[0]
    for wrong in ((), (X, Y[:3]), (np.float32(1),)):
        with pytest.raises(ValueError, match="arrays must be at least one"):
            data.TensorDataset(*wrong)
    with pytest.raises(ValueError, match="indices must be from 0 to 19"):
        data.Subset(dataset, [20])


@pytest.mark.parametrize(
    "options, error, word",
    [
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2.0}, TypeError, "batch_size"),
        ({"num_workers": -1}, ValueError, "num_workers"),
        ({"prefetch_factor": 0}, ValueError, "prefetch_factor"),
        ({"seed": -1}, ValueError, "seed"),
        ({"shard": (2, 2)}, ValueError, "shard"),
        ({"batch_size": 3, "shard": (0, 2)}, ValueError, "multiple of the 2 processes"),
        ({"batch_size": 21, "drop_last": True}, ValueError, "drop_last leaves no batch"),
    ],
    ids=str,
)
def test_bad_options(options, error, word):
    with pytest.raises(error, match=word):
        data.DataLoader(data.TensorDataset(X, Y), **options)


def test_an_empty_data_set():
    with pytest.raises(ValueError, match="at least one sample"):
        data.DataLoader(data.TensorDataset(X[:0]))


def test_random_split():
    samples = data.TensorDataset(np.arange(11.0), np.arange(11))
    for lengths, sizes in (([8, 3], [8, 3]), ([0.5, 0.25, 0.25], [6, 3, 2]), ([1.0], [11]), ([0, 11], [0, 11])):
        parts = data.random_split(samples, lengths, np.random.default_rng(5))
        assert [len(part) for part in parts] == sizes
        assert sorted(int(part[i][1]) for part in parts for i in range(len(part))) == list(range(11))
    again = data.random_split(samples, [1.0], np.random.default_rng(5))[0]
    assert [int(again[i][1]) for i in range(11)] != list(range(11))
    np.testing.assert_array_equal(again.indices, data.random_split(samples, [11], np.random.default_rng(5))[0].indices)
    fc.manual_seed(3)
    first = data.random_split(samples, [11])[0].indices
    fc.manual_seed(3)
    np.testing.assert_array_equal(data.random_split(samples, [11])[0].indices, first)
    for lengths in ([5, 5], [12, -1], [0.5, 0.6], [], [5.5, 5.5]):
        with pytest.raises(ValueError, match="lengths must be counts that sum to 11 or shares that sum to 1"):
            data.random_split(samples, lengths)
