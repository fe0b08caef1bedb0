"""DataParallel on ranks that are threads, and what needs no second rank: the group of one, refusals, the launcher."""

import copy
import sys

import numpy as np
import pytest

import fastconv as fc
import fastconv.distributed as dist
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import assert_same_bits, float32, normal
from fastconv.distributed import communicator
from ranks import on_threads


class Net(nn.Module):
    """Two routes, so that a parameter may be used by some ranks only, or by none."""

    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.first, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        for parameter in self.parameters():
            parameter.data[...] = normal(rng, parameter.shape, float32)

    def forward(self, x, route="left"):
        return getattr(self, route)(F.relu(self.first(x)))


def data(count=6, seed=1):
    return normal(np.random.default_rng(seed), (count, 3), float32), np.arange(count) % 2


def part(group, *arrays):
    return [
        array[len(array) * group.rank // group.size : len(array) * (group.rank + 1) // group.size] for array in arrays
    ]


def gradients(net):
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def expected_gradients(net, x, labels, **options):
    net = copy.deepcopy(net)
    net.zero_grad()
    F.cross_entropy(net(fc.tensor(x), **options), labels).backward()
    return gradients(net)


def assert_gradients(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert (value is None) == (actual[name] is None), name
        if value is not None:
            np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def wrapped(group, net=None, **options):
    return dist.DataParallel(copy.deepcopy(net or Net()), process_group=group, **options)


@pytest.mark.parametrize("ranks, count", [(2, 6), (2, 5), (3, 7), (4, 3)])
@pytest.mark.parametrize("bucket", [25.0, 4e-5], ids=["one bucket", "a bucket for each parameter"])
def test_gradients_of_the_whole_batch(ranks, count, bucket):
    """For parts of different lengths, and for one that is empty; the same bits on every rank."""
    x, labels = data(count)

    def program(group):
        net = wrapped(group, bucket_cap_mb=bucket)
        mine, targets = part(group, x, labels)
        with np.errstate(invalid="ignore"):  # the mean loss of no examples
            F.cross_entropy(net(fc.tensor(mine)), targets).backward()
        return gradients(net.module)

    results = on_threads(ranks, program)
    for result in results:
        assert_gradients(result, expected_gradients(Net(), x, labels))
        assert_same_bits(result["first.weight"], results[0]["first.weight"])


class Mirror(dist.SingleProcess):
    """One of two ranks that do the same; `events` has the gradients that were there when each sum began."""

    size = 2

    def __init__(self, net):
        self.net, self.events = net, []

    def all_reduce(self, array):
        self.events.append([name for name, gradient in gradients(self.net).items() if gradient is not None])
        array += array
        return super().all_reduce(array)

    def all_gather(self, array):
        return np.stack([array, array])


def test_sums_begin_before_the_pass_ends():
    """The gradients of the last layer are on their way while those of the first are not yet computed."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    group = Mirror(net)
    x, labels = data()
    F.cross_entropy(dist.DataParallel(net, process_group=group, bucket_cap_mb=4e-5)(fc.tensor(x)), labels).backward()
    assert group.events[0] == ["2.weight", "2.bias"] and group.events[-1] == list(gradients(net))
    assert_gradients(gradients(net), expected_gradients(net, x, labels))


def test_values_of_rank_0_at_construction():
    """Parameters and buffers of every dtype and layout."""

    def program(group):
        net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(2, 2).double())
        for array in (*(p.data for p in net.parameters()), *net.buffers()):
            array[...] = group.rank + 1
        net[0].weight.data = np.moveaxis(np.full((3, 1, 1, 2), group.rank + 1, float32), -1, 1)
        dist.DataParallel(net, process_group=group, bucket_cap_mb=2e-5)
        return net.state_dict()

    for state in on_threads(3, program):
        assert all((value == 1).all() for value in state.values())


def test_buffers_follow_rank_0():
    """Running statistics of an ordinary batch norm: those of rank 0 enter each training step, unless refused."""
    x = normal(np.random.default_rng(0), (2, 4, 3), float32)

    def program(group, **options):
        net = dist.DataParallel(nn.BatchNorm1d(3), process_group=group, **options)
        for _ in range(2):
            net(fc.tensor(x[group.rank])).sum().backward()
        net.eval()(fc.tensor(x[0]))
        return net.module.running_mean

    alone = nn.BatchNorm1d(3)
    alone(x[0])
    expected = 0.9 * alone.running_mean + 0.1 * x[1].mean(axis=0)
    np.testing.assert_allclose(on_threads(2, program)[1], expected, rtol=1e-5)
    own = on_threads(2, lambda group: program(group, broadcast_buffers=False))[1]
    np.testing.assert_allclose(own, (1 - 0.9**2) * x[1].mean(axis=0), rtol=1e-5)


def test_parameters_that_some_ranks_use():
    """One route on rank 0, another on rank 1; a third that no rank takes keeps no gradient."""
    x, labels = data(4)

    def program(group):
        net = wrapped(group)
        mine, targets = part(group, x, labels)
        F.cross_entropy(net(fc.tensor(mine), "left" if group.rank == 0 else "right"), targets).backward()
        first = gradients(net.module)
        net.zero_grad()
        F.cross_entropy(net(fc.tensor(mine), "left"), targets).backward()
        return first, gradients(net.module)

    halves = [
        expected_gradients(Net(), *(a[2 * i : 2 * i + 2] for a in (x, labels)), route=("left", "right")[i])
        for i in (0, 1)
    ]
    mixed = {name: sum(half[name] / 2 for half in halves if half[name] is not None) for name in halves[0]}
    for first, second in on_threads(2, program):
        assert_gradients(first, mixed)
        assert_gradients(second, expected_gradients(Net(), x, labels))
        assert second["right.weight"] is None


def test_accumulation():
    """Passes under no_sync stay local; the pass after them sends the sum. Two passes through one output add up."""
    x, labels = data(8)

    def program(group):
        net = wrapped(group)
        mine, targets = part(group, x, labels)
        with net.no_sync():
            (F.cross_entropy(net(fc.tensor(mine[:2])), targets[:2]) / 2).backward()
        local = gradients(copy.deepcopy(net.module))
        (F.cross_entropy(net(fc.tensor(mine[2:])), targets[2:]) / 2).backward()
        accumulated = gradients(copy.deepcopy(net.module))
        net.zero_grad()
        loss = F.cross_entropy(net(fc.tensor(mine)), targets) / 2
        loss.backward(retain_graph=True)
        loss.backward()
        return local, accumulated, gradients(net.module)

    for rank, (local, accumulated, twice) in enumerate(on_threads(2, program)):
        start = 4 * rank
        half = expected_gradients(Net(), x[start : start + 2], labels[start : start + 2])
        assert_gradients(local, {name: None if value is None else value / 2 for name, value in half.items()})
        assert_gradients(accumulated, expected_gradients(Net(), x, labels))
        assert_gradients(twice, expected_gradients(Net(), x, labels))


def test_only_passes_through_the_output_are_averaged():
    """Looking inside the network on one rank, after training, needs no other rank."""
    x, labels = data(4)

    def program(group):
        net = wrapped(group)
        mine, targets = part(group, x, labels)
        F.cross_entropy(net(fc.tensor(mine)), targets).backward()
        if group.rank == 0:
            F.cross_entropy(net.module(fc.tensor(mine)), targets).backward()
            assert net.eval()(mine).shape == (2, 2)
            with fc.no_grad():
                net.train()(fc.tensor(mine))
        return gradients(net.module)["left.bias"]

    results = on_threads(2, program)
    own = expected_gradients(Net(), x[:2], labels[:2])["left.bias"]
    np.testing.assert_allclose(results[0] - results[1], own, rtol=1e-5)


def test_freezing_and_other_dtypes_after_construction():
    x, labels = data(4)

    def program(group):
        net = wrapped(group)
        net.module.first.requires_grad_(False)
        step(net, group)
        assert net.module.first.weight.grad is None
        net.module.first.requires_grad_(True)
        net.zero_grad()
        step(net, group)
        first = gradients(copy.deepcopy(net.module))
        net.zero_grad()
        net.module.to(np.float16)
        step(net, group, np.float16)
        return first, gradients(net.module)

    def step(net, group, dtype=float32):
        mine, targets = part(group, x, labels)
        F.cross_entropy(net(fc.tensor(mine.astype(dtype))), targets).backward()

    expected = expected_gradients(Net(), x, labels)
    for first, half in on_threads(2, program):
        assert_gradients(first, expected)
        assert half["left.weight"].dtype == np.float16
        np.testing.assert_allclose(half["left.weight"], expected["left.weight"], atol=2e-3)


def test_a_pass_that_failed_leaves_nothing_behind():
    x, labels = data(4)

    def program(group):
        net = wrapped(group)
        mine, targets = part(group, x, labels)
        handle = net.module.first.weight.register_post_accumulate_grad_hook(lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            F.cross_entropy(net(fc.tensor(mine)), targets).backward()
        handle.remove()
        net.zero_grad()
        F.cross_entropy(net(fc.tensor(mine)), targets).backward()
        return gradients(net.module)

    for result in on_threads(2, program):
        assert_gradients(result, expected_gradients(Net(), x, labels))


def test_different_networks_are_refused_on_every_rank():
    def program(group):
        with pytest.raises(ValueError, match="the same network on every rank: that of rank 2 has other parameters"):
            dist.DataParallel(nn.Linear(3, 2 + group.rank // 2), process_group=group)

    on_threads(3, program)


def test_bad_arguments():
    with pytest.raises(TypeError, match="module must be a Module, got function"):
        dist.DataParallel(F.relu)
    for value in (0, -1.0):
        with pytest.raises(ValueError, match=f"bucket_cap_mb must be positive, got {value}"):
            dist.DataParallel(nn.ReLU(), bucket_cap_mb=value)
    alone = dist.SingleProcess()
    for array in (np.zeros(2, np.float16), [1.0]):
        with pytest.raises(TypeError, match="array must be an array of float32, float64 or int64"):
            alone.all_reduce(array)
    with pytest.raises(ValueError, match="contiguous and writable"):
        alone.all_reduce(np.zeros((4, 4))[:, 1])
    with pytest.raises(ValueError, match="root must be a rank from 0 to 0, got 1"):
        alone.broadcast(np.zeros(1), 1)


def test_one_process():
    """Without mpiexec the same program trains as it would without the wrapper."""
    group = dist.world()
    assert (group.rank, group.size) == (0, 1) and dist.world() is group
    x, labels = data()
    net = dist.DataParallel(Net())
    F.cross_entropy(net(fc.tensor(x)), labels).backward()
    for name, value in expected_gradients(Net(), x, labels).items():
        assert value is None or (gradients(net.module)[name] == value).all()
    total = np.array([1.5, 2.0])
    work = group.all_reduce(total)
    work.wait()
    group.barrier()
    assert work.test() and total.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("variable", ["PMI", "OMPI_COMM_WORLD"])
def test_ranks_without_mpi4py(monkeypatch, variable):
    """Several processes that cannot talk must not each train alone."""
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    monkeypatch.setenv(f"{variable}_RANK", "0")
    monkeypatch.setenv(f"{variable}_SIZE", "1")
    assert isinstance(communicator._start(), dist.SingleProcess)
    monkeypatch.setenv(f"{variable}_SIZE", "2")
    with pytest.raises(ImportError, match=r'needs mpi4py: pip install "fastconv\[mpi\]"'):
        communicator._start()


def test_a_launcher_of_another_library(monkeypatch):
    """The mpiexec of one MPI library and the mpi4py of another: every process believes to be alone."""

    class MPI:
        class COMM_WORLD:
            Get_size = staticmethod(lambda: 1)

        Get_library_version = staticmethod(lambda: "Some MPI 1.0\nbuilt here")

    class Package:
        pass

    Package.MPI = MPI
    monkeypatch.setitem(sys.modules, "mpi4py", Package)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(RuntimeError, match=r"started 4 processes, mpi4py sees 1: .*\(Some MPI 1.0\)"):
        communicator._start()
