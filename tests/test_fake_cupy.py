"""The stand-in for CuPy has nothing that CuPy lacks, and refuses what CuPy refuses."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import fake_cupy
import fake_nccl


def test_names_and_parameters_are_cupys():
    cupy = pytest.importorskip("cupy")
    for name, parameters in {**fake_cupy.SIGNATURES, **fake_cupy.CREATION}.items():
        own = [p.lstrip("*") for p in parameters.split()]
        assert own == list(inspect.signature(getattr(cupy, name)).parameters), name
    assert all(isinstance(getattr(cupy, name), cupy.ufunc) for name in fake_cupy.UFUNCS)
    assert hasattr(cupy.add, "at")
    for name in (n for n in vars(fake_cupy.ndarray) if not n.startswith("_")):
        assert hasattr(cupy.ndarray, name), name
    for name in vars(fake_cupy.module().cuda):
        assert hasattr(cupy.cuda, name), name


def test_nccls_methods_are_cupyxs():
    pytest.importorskip("cupy")
    own, real = fake_nccl.NCCLBackend, pytest.importorskip("cupyx.distributed").NCCLBackend
    for name in ("__init__", "all_reduce", "broadcast", "all_gather"):
        parameters = [inspect.signature(getattr(kind, name)).parameters for kind in (own, real)]
        assert list(parameters[0]) == list(parameters[1]), name
    cuda = pytest.importorskip("cupy").cuda
    for kind in (fake_cupy.Event, fake_cupy.Stream):
        for name in ("done", "record", "synchronize", "wait_event"):
            assert hasattr(getattr(cuda, kind.__name__), name) or not hasattr(kind, name), name


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: np.asarray(x),
        lambda x: x + np.ones(2),
        lambda x: np.ones(2) + x,
        lambda x: np.matmul(x, x),
        lambda x: np.add.at(x, 0, 1),
        lambda x: np.max(x, initial=0),
        lambda x: np.fft.fft(x),
        lambda x: np.concatenate([x, np.ones(2)]),
        lambda x: x.__setitem__(0, np.ones(1)),
    ],
)
def test_what_cupy_refuses(compute):
    with pytest.raises(TypeError):
        compute(fake_cupy.asarray(np.ones(2)))


def test_views_share_memory_and_copies_do_not():
    x = fake_cupy.asarray(np.zeros((2, 3)))
    np.moveaxis(x, 0, 1)[2, 1] = 4
    x.reshape(6)[0] = 5
    assert x.tolist() == [[5, 0, 0], [0, 0, 4]]
    np.where(x > 0, x, 0)[0] = 9
    assert x.tolist() == [[5, 0, 0], [0, 0, 4]]
    assert x.flags.owndata and not np.moveaxis(x, 0, 1).flags.owndata
    assert not hasattr(x.flags, "writeable")
