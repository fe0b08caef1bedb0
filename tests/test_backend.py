"""Choosing backends, threads and precision; what happens without the native module; what import costs."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn.functional as F
from fastconv import backend as backends
from fastconv import config
from fastconv.random import generator


def test_available_backends():
    names = fc.available_backends()
    assert names[0] == "reference" and len(set(names)) == len(names)
    assert all(name in ("reference", "cpu", "cuda:simt", "cuda") or name.startswith("cpu:") for name in names)


def test_use_backend_restores(backend):
    name = fc.get_backend()
    with fc.use_backend("reference") as module:
        assert fc.get_backend() == "reference"
        assert module is backends.active(np.zeros(1))
        with pytest.raises(KeyError), fc.use_backend("reference"):
            raise KeyError
        assert fc.get_backend() == "reference"
    assert fc.get_backend() == name and backends.active(np.zeros(1)) is backend


def test_instruction_set_follows_the_name(kernel_backend):
    family, _, isa = fc.get_backend().partition(":")
    assert kernel_backend.isa() == (isa or family)
    with fc.use_backend("cpu"):
        assert kernel_backend.isa() in kernel_backend.available_isas()
    assert kernel_backend.isa() == (isa or family)


def test_set_backend():
    with fc.use_backend("reference"):
        fc.set_backend("reference")
        assert fc.get_backend() == "reference"


@pytest.mark.parametrize("name", ["", "gpu", "numpy", "Reference", "reference:avx2", "cpu:", "cpu:sse9"])
def test_unknown_backend(name):
    before = fc.get_backend()
    with pytest.raises((ValueError, ImportError)) as error:
        fc.set_backend(name)
    assert "reference" in str(error.value)
    assert fc.get_backend() == before
    with pytest.raises(TypeError, match="name must be a str"):
        fc.set_backend(3)


def test_choice_holds_for_all_threads():
    seen = []
    with fc.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(fc.get_backend()))
        thread.start()
        thread.join()
    assert seen == ["reference"]


def test_pullback_stays_with_its_backend(kernel_backend):
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    y, pullback = F.conv2d.vjp(x, w)
    with fc.use_backend("reference"):
        assert len(pullback(np.ones_like(y))) == 2


def run(code: str, **variables: str) -> str:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


WITHOUT_NATIVE = (
    "import sys; sys.modules['fastconv._cpu'] = sys.modules['fastconv._cuda_simt'] = None\n"
    "import numpy as np, fastconv as fc\n"
)


def test_missing_native_module():
    code = WITHOUT_NATIVE + (
        "import fastconv.nn.functional as F\n"
        "print(fc.get_backend(), fc.available_backends())\n"
        "for call in (lambda: F.relu(np.ones(2)), lambda: fc.set_backend('cpu'), lambda: fc.get_num_threads()):\n"
        "    try: call()\n"
        "    except ImportError as error: print('pip install' in str(error))\n"
        "fc.set_backend('reference'); print(F.relu(np.ones(2)))\n"
        "fc.show_config()\n"
    )
    lines = run(code).splitlines()
    assert lines[:5] == ["cpu ('reference',)", "True", "True", "True", "[1. 1.]"]
    assert any(line.startswith("native module: ") for line in lines)


def test_import_is_lazy_and_cheap():
    """Beside NumPy it loads the small modules behind ``fc.tensor`` and no other package; a load of 20 ms, measured."""
    code = (
        "import sys, numpy; before = set(sys.modules); import fastconv; new = set(sys.modules) - before\n"
        "print(len(new), sorted(m for m in new if m.startswith(('fastconv.nn', 'fastconv._cpu', 'fastconv.reference',"
        " 'fastconv.optim', 'fastconv.images')) or m.split('.')[0] not in {'fastconv', *sys.stdlib_module_names}))"
    )
    count, heavy = run(code).split(" ", 1)
    assert heavy == "[]"
    assert int(count) <= 24


def test_public_names_exist():
    assert set(fc.__all__) <= set(dir(fc))
    for name in ("Tensor", "tensor", "no_grad", "use_backend", "show_config", "manual_seed", "relu", "flatten"):
        assert callable(getattr(fc, name))
    with pytest.raises(AttributeError, match="no attribute 'convolve3d'"):
        _ = fc.convolve3d


def test_submodule_named_as_function_does_not_hide_it():
    code = "import fastconv.tensor, fastconv.nn.functional.dropout, fastconv as fc\nprint(fc.tensor([1.0]).shape)"
    assert run(code) == "(1,)"


def test_threads(kernel_backend):
    before = fc.get_num_threads()
    with fc.num_threads(1):
        assert fc.get_num_threads() == 1
    assert fc.get_num_threads() == before
    with pytest.raises(ValueError, match="n must be from 1 to 4095, got"):
        fc.set_num_threads(0)
    for wrong in (True, 1.0, "2", None):
        with pytest.raises(TypeError, match="n must be an int"):
            fc.set_num_threads(wrong)
    assert fc.get_num_threads() == before


def test_precision(kernel_backend):
    before = fc.get_float32_precision()
    fc.set_float32_precision("high")
    assert fc.get_float32_precision() == "high"
    with pytest.raises(ValueError, match="highest, high, medium"):
        fc.set_float32_precision("low")
    fc.set_float32_precision(before)


def test_conv_algorithm(kernel_backend):
    """An algorithm is taken where it can compute the problem; others keep the rule's choice."""
    if not fc.get_backend().startswith("cpu"):
        pytest.skip("a choice of the CPU's kernels")
    shapes = (1, 16, 20, 20), (16, 16, 1, 1)
    plan = kernel_backend.conv_plan("conv_forward", *shapes)
    # The emulator's table takes AMX wherever it can.
    assert plan["algorithm"] == ("amx" if kernel_backend.isa() == "amx-emulated" else "pointwise")
    assert {plan["algorithm"], *plan["others"]} >= {"pointwise", "direct"}
    kernel_backend.set_conv_algorithm("direct")
    try:
        plan = kernel_backend.conv_plan("conv_forward", *shapes)
        assert plan["algorithm"] == "direct" and "set_conv_algorithm" in plan["why"]
        plan = kernel_backend.conv_plan("conv_backward_weight", *shapes)
        assert plan["algorithm"] == ("amx" if kernel_backend.isa() == "amx-emulated" else "tap_products")
    finally:
        kernel_backend.set_conv_algorithm("")
    assert kernel_backend.get_conv_algorithm() == ""
    with pytest.raises(ValueError, match=r"conv algorithm must be one of '', 'direct', .* got 'fastest'"):
        kernel_backend.set_conv_algorithm("fastest")


def test_algorithm_from_the_environment():
    code = "from fastconv.backend import native; print(native().get_conv_algorithm())"
    assert run(code, FASTCONV_ALGO="direct") == "direct"


def test_show_config(kernel_backend, capsys):
    fc.show_config()
    text = capsys.readouterr().out
    report, native = config.configuration(), backends.native()
    assert report["isa"] == native.isa() and report["threads"] == native.thread_info()
    for word in (fc.__version__, np.__version__, native.isa(), "threads:"):
        assert word in text


def test_manual_seed():
    fc.manual_seed(5)
    first = generator().random(4)
    assert (fc.manual_seed(5).random(4) == first).all()
    assert not (fc.manual_seed(6).random(4) == first).all()
    with pytest.raises(ValueError, match="seed must not be negative"):
        fc.manual_seed(-1)
    for wrong in (1.5, True, None):
        with pytest.raises(TypeError, match="seed must be an int"):
            fc.manual_seed(wrong)
    with pytest.raises(TypeError, match="rng must be a"):
        generator(np.random.RandomState(0))


def test_peak_of_multiply_adds_is_measured(kernel_backend):
    """By the processor's kernels; on simulated GPUs there is nothing to measure."""
    for wide in (False, True):
        peak = kernel_backend.fma_peak(wide)
        assert peak == 0 if kernel_backend.isa() in ("simt", "cuda") else 1e8 < peak < 1e14


def test_tile_peak_is_measured_where_there_are_tiles(kernel_backend):
    assert (kernel_backend.tile_peak() > 0) == (kernel_backend.isa() in ("amx", "avx512_bf16"))
