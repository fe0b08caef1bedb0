"""Backend "cuda" for NumPy arrays, over the stand-in for CuPy and the simulator."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import fake_cupy
import fastconv as fc
import fastconv.cuda
import fastconv.nn.functional as F
from checks import assert_same_bits, layouts
from fastconv import backend
from fastconv.host_arrays import HostArrays
from hostile import VALID

with_simulator = pytest.mark.skipif("cuda:simt" not in fc.available_backends(), reason="the simulator is not built")


@pytest.fixture
def gpu(monkeypatch):
    """The backend as on a machine with a GPU."""
    native = backend.simulator()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    monkeypatch.setattr(fastconv.cuda, "missing", list)
    monkeypatch.setattr(fastconv.cuda, "_kernels", fastconv.cuda.Kernels(native, sys.modules["cupy"]))
    alive = fake_cupy.Memory.alive
    with fc.use_backend("cuda") as module:
        assert isinstance(module, HostArrays) and "cuda" in fc.available_backends()
        yield module
    native.set_array_library(None)
    assert fake_cupy.Memory.alive == alive, "device memory is kept"


def results(value):
    return value if isinstance(value, tuple) else (value,)


@with_simulator
@pytest.mark.parametrize("function", sorted(VALID))
def test_functions_give_what_the_kernels_give(gpu, function):
    def run(module):
        arguments = [np.array(a, order="K") if isinstance(a, np.ndarray) else a for _, _, a in VALID[function]]
        stats = [a for a, (_, kind, _) in zip(arguments, VALID[function]) if kind == "stats"]
        return [*results(getattr(module, function)(*arguments)), *stats]

    on_gpu = run(gpu)
    backend.simulator().set_array_library(None)
    for result, expected in zip(on_gpu, run(backend.simulator()), strict=True):
        assert type(result) is np.ndarray and result.strides == expected.strides
        assert_same_bits(result, expected)


@with_simulator
def test_any_strides_and_alignment(gpu):
    x = np.arange(-60, 60, dtype=np.float32).reshape(2, 3, 4, 5)
    for name, view in layouts(x):
        np.testing.assert_array_equal(F.relu(view), np.maximum(x, 0), err_msg=name)
    assert F.relu(np.empty((0, 3, 2, 2), np.float32)).shape == (0, 3, 2, 2)


@with_simulator
def test_in_place(gpu):
    x = np.array([-1.0, -2.0, -3.0, 4.0])
    every_second = x[::2]
    assert gpu.relu_forward(every_second, inplace=True) is every_second
    assert x.tolist() == [0, -2, 0, 4]


@with_simulator
def test_arguments_that_overlap_are_refused(gpu):
    memory = np.arange(1, 13, dtype=np.float32)
    before = memory.copy()
    with pytest.raises(ValueError, match="running_"):
        F.batch_norm(np.ones((3, 4, 5, 5), np.float32), memory[:4], memory[3:7], training=True)
    np.testing.assert_array_equal(memory, before)


@with_simulator
@pytest.mark.parametrize("x", [np.ones((1, 2), np.int64), np.ones((1, 2), ">f4"), np.ones((1, 2), np.complex64), [1.0]])
def test_what_is_no_array_for_kernels_is_refused(gpu, x):
    with pytest.raises(TypeError, match="input must"):
        gpu.relu_forward(x)


@with_simulator
def test_a_launch_that_fails_says_where(gpu, monkeypatch):
    def broken(x, inplace=False):
        raise RuntimeError("CUDA kernel relu (1 blocks of 256 threads, 0 bytes of shared memory): out of resources")

    monkeypatch.setitem(
        fastconv.cuda.kernels().__dict__,
        "module",
        type("Native", (), {"relu_forward": staticmethod(broken), "set_stream": staticmethod(lambda stream: None)}),
    )
    fastconv.cuda.kernels().__dict__.pop("relu_forward", None)
    with pytest.raises(RuntimeError, match=r"relu_forward of float32 \(2, 3\): CUDA kernel relu .*out of resources"):
        F.relu(np.ones((2, 3), np.float32))


@pytest.mark.skipif(fastconv.cuda.is_available(), reason="nothing is missing here")
def test_without_a_gpu_the_name_says_what_is_missing():
    before = fc.get_backend()
    with pytest.raises(ImportError, match=r'^backend "cuda" cannot be used here: .+'):
        fc.set_backend("cuda")
    assert fc.get_backend() == before and "cuda" not in fc.available_backends()
