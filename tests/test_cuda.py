"""CuPy arrays: what `fastconv.cuda` says where something is missing, and its functions over a stand-in for CuPy.

`fake_cupy` and the simulator together take the place of CuPy and a GPU: what is tested is everything between the
functions of the package and a kernel's pointers.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fake_cupy
import fastconv as fc
import fastconv.cuda
import fastconv.nn.functional as F
from checks import assert_same_bits, layouts
from fastconv import backend, reference
from hostile import VALID

with_simulator = pytest.mark.skipif("cuda:simt" not in fc.available_backends(), reason="the simulator is not built")


def results(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@with_simulator
@pytest.mark.parametrize("function", sorted(VALID))
def test_functions_give_what_they_give_for_numpy(cupy, function):
    def run(module, convert):
        def there(a):
            if isinstance(a, list | tuple):
                return type(a)(map(there, a))
            return convert(np.array(a, order="K")) if isinstance(a, np.ndarray) else a

        arguments = [there(a) for _, _, a in VALID[function]]
        stats = [a for a, (_, kind, _) in zip(arguments, VALID[function]) if kind == "stats"]
        return [*results(getattr(module, function)(*arguments)), *stats]

    on_device = run(fastconv.cuda.kernels(), cupy.asarray)
    backend.simulator().set_array_library(None)
    for result, expected in zip(on_device, run(backend.simulator(), lambda a: a), strict=True):
        assert isinstance(result, fake_cupy.ndarray)
        assert_same_bits(cupy.asnumpy(result), expected)
        assert result.strides == expected.strides
    del on_device, result


@with_simulator
@pytest.mark.parametrize("dtype", (np.float32, np.float64, np.float16, ml_dtypes.bfloat16), ids=str)
def test_any_strides(cupy, dtype):
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype) - 7
    w = np.ones((2, 3, 2, 2), dtype)
    expected = reference.conv_forward(x, w, None, 1, 0, 1, 1, 2)
    kernels = fastconv.cuda.kernels()
    for name, view in layouts(x):
        if name == "misaligned":
            continue  # CuPy has none
        strided = fake_cupy.ndarray(
            view.shape,
            view.dtype,
            fake_cupy.MemoryPointer(fake_cupy.UnownedMemory(view.ctypes.data, view.nbytes, view), 0),
            view.strides,
        )
        y = kernels.conv_forward(strided, cupy.asarray(w), None, 1, 0, 1, 1, 2)
        np.testing.assert_array_equal(cupy.asnumpy(y).astype(np.float64), expected.astype(np.float64), err_msg=name)


@with_simulator
def test_functional_and_vjp(cupy):
    rng = np.random.default_rng(3)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 4, 6, 6), (3, 4, 3, 3), (3,)))
    device = [cupy.asarray(a) for a in (x, w, b)]
    with fc.use_backend("cuda:simt"):
        y, pullback = F.conv2d.vjp(x, w, b, padding=1)
        gradients = pullback(y)
        pooled = F.max_pool2d(y, 2)
    z, device_pullback = F.conv2d.vjp(*device, padding=1)
    assert_same_bits(cupy.asnumpy(z), y)
    for result, expected in zip(device_pullback(z), gradients, strict=True):
        assert_same_bits(cupy.asnumpy(result), expected)
    assert_same_bits(cupy.asnumpy(F.max_pool2d(z, 2)), pooled)
    assert_same_bits(cupy.asnumpy(F.conv2d(*device, padding=1)), y)
    assert type(F.relu(x)) is np.ndarray  # NumPy arrays stay with their backend
    del device_pullback


@with_simulator
def test_in_place(cupy):
    x = cupy.asarray(np.array([-1.0, 2.0, -3.0, 4.0]))
    assert F.relu(x, inplace=True) is x
    assert cupy.asnumpy(x).tolist() == [0, 2, 0, 4]
    every_second = cupy.asarray(np.array([-1.0, -2.0, -3.0, 4.0]))[::2]
    fastconv.cuda.kernels().relu_forward(every_second, True)
    assert cupy.asnumpy(every_second).tolist() == [0, 0]


@with_simulator
def test_empty_sums_and_batches(cupy):
    kernels = fastconv.cuda.kernels()
    y = kernels.linear_forward(*(cupy.asarray(np.ones(s, np.float32)) for s in ((3, 0), (2, 0), (2,))))
    assert cupy.asnumpy(y).tolist() == [[1, 1]] * 3
    y = kernels.linear_forward(*(cupy.asarray(np.ones(s, np.float32)) for s in ((3, 0), (0,), (1,))))
    assert cupy.asnumpy(y).tolist() == [1] * 3
    dw = kernels.conv_backward_weight(
        cupy.asarray(np.ones((0, 2, 2, 2), np.float32)),
        cupy.asarray(np.ones((0, 1, 3, 3), np.float32)),
        *((2, 1, 2, 2), 1, 0, 1, 1, 2),
    )
    assert not cupy.asnumpy(dw).any()


@with_simulator
def test_indices_outside_the_plane_are_left_out(cupy):
    """The host's backends raise; here that would mean to wait for the GPU."""
    x, indices = np.ones((1, 1, 2, 2), np.float32), np.array([[[[0, 99], [-5, 3]]]])
    y = fastconv.cuda.kernels().max_unpool_forward(cupy.asarray(x), cupy.asarray(indices), (2, 2), 2)
    assert cupy.asnumpy(y).tolist() == [[[[1, 0], [0, 1]]]]


@with_simulator
def test_refusals(cupy):
    kernels = fastconv.cuda.kernels()
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"conv_forward: all arrays must be on one device, got .* \[0, 1\]"):
        kernels.conv_forward(cupy.asarray(x), cupy.asarray(w, device=1), None, 1, 0, 1, 1, 2)
    with pytest.raises(ValueError, match="all arrays must be CuPy arrays"):
        kernels.conv_forward(cupy.asarray(x), w, None, 1, 0, 1, 1, 2)
    with pytest.raises(ValueError, match="weight"):
        kernels.conv_forward(cupy.asarray(x), cupy.asarray(x[0]), None, 1, 0, 1, 1, 2)
    with pytest.raises(TypeError, match="dtype"):
        kernels.relu_forward(cupy.asarray(np.ones(3, np.int32)))


@with_simulator
def test_out_of_memory(cupy, monkeypatch):
    x, w = cupy.asarray(np.ones((1, 1, 40, 40), np.float32)), cupy.asarray(np.ones((1, 1, 3, 3), np.float32))
    for limit in (0, 1000):  # no output; no workspace
        monkeypatch.setattr(fake_cupy, "LIMIT", limit)
        with pytest.raises(MemoryError):
            fastconv.cuda.kernels().conv_forward(x, w, None, 1, 0, 1, 1, 2)
    monkeypatch.setattr(fake_cupy, "LIMIT", 16)  # room for the weights' gradient alone
    with pytest.raises(MemoryError):
        fastconv.cuda.kernels().conv_backward_weight(x, x, (1, 1, 1, 1), 1, 0, 1, 1, 2)


@with_simulator
def test_an_error_of_the_allocator_is_not_taken_for_want_of_memory(cupy, monkeypatch):
    x = cupy.asarray(np.ones(3, np.float32))
    alloc = cupy.cuda.alloc

    def broken(size):
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    monkeypatch.setattr(cupy.cuda, "alloc", broken)
    with pytest.raises(RuntimeError, match=r"relu_forward of float32 \(3,\): cudaErrorIllegalAddress"):
        fastconv.cuda.kernels().relu_forward(x)
    monkeypatch.setattr(cupy.cuda, "alloc", alloc)
    monkeypatch.setattr(fake_cupy, "LIMIT", 0)
    with pytest.raises(MemoryError):  # not the error of before
        fastconv.cuda.kernels().relu_forward(x)


@with_simulator
def test_device_and_stream_of_a_call(cupy, monkeypatch):
    seen = []
    monkeypatch.setattr(fake_cupy.Stream, "ptr", 4711)
    x = cupy.asarray(np.ones(3, np.float32), device=2)
    kernels = fastconv.cuda.kernels()
    enter = fake_cupy.Device.__enter__
    monkeypatch.setattr(fake_cupy.Device, "__enter__", lambda self: (seen.append(self.id), enter(self))[1])
    y = kernels.relu_forward(x)
    assert seen == [2] and fake_cupy.Device.current == 0 and y.device.id == 2
    assert backend.simulator().get_stream() == 4711


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(fastconv.cuda.is_available(), reason="nothing is missing here")
def test_what_is_missing():
    code = (
        "import sys, types\n"
        "class ndarray: pass\n"
        "ndarray.__module__ = 'cupy'\n"
        "sys.modules['fastconv._cuda'] = None\n"
        "import fastconv.cuda as cuda, fastconv.nn.functional as F\n"
        "print(cuda.is_available(), cuda.device_count())\n"
        "cuda.show_config()\n"
        "try: F.relu(ndarray())\n"
        "except NotImplementedError as error: print(error)\n"
    )
    lines = run(code).splitlines()
    assert lines[0] == "False 0" and lines[1] == "CUDA: not available"
    for word in ("fastconv._cuda is not built", "FASTCONV_CUDA=ON", "input is a CuPy array", "cupy.asnumpy"):
        assert word in "\n".join(lines)


def test_a_module_without_a_gpu(monkeypatch):
    class Native:
        device_count = staticmethod(lambda: 0)
        driver_version = staticmethod(lambda: "none")
        runtime_version = staticmethod(lambda: "13.0")

    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    monkeypatch.setattr(fastconv.cuda, "_native", Native)
    assert fastconv.cuda.missing() == [
        "no GPU answers (driver: CUDA none, needed: 13.0): `nvidia-smi` must list one",
    ]


def test_import_touches_no_cuda():
    code = "import sys, fastconv; print([m for m in ('cupy', 'fastconv._cuda') if m in sys.modules])"
    assert run(code) == "[]"
