"""Fixtures and settings shared by all tests.

Two ways to run the suite, both from the root of a checkout:

* installed: ``pip install ".[test]" && pytest -n 2``. The installed package is tested, doctests included: ``--pyargs``
  in the pytest settings makes the test path ``fastconv`` mean the package Python imports, not the folder. The checkout
  holds no native module then, so it must not come before the installed package (``python -m pytest`` would put it
  there): see ``_prefer_installed``.
* a source tree: build the native module into it (CMake option ``FASTCONV_INPLACE``), then ``PYTHONPATH=. pytest``.

``tests`` itself is on ``sys.path`` (``pythonpath`` in the pytest settings), so test modules say ``import checks``.
The shapes of the benchmark are ``checks.shapes``, in the wheel ``fastconv.bench.shapes``, in a tree ``bench.shapes``.
"""

import gc
import importlib.machinery
import os
import re
import sys
from pathlib import Path

import pytest

try:
    import hypothesis
except ModuleNotFoundError:
    import no_hypothesis

    no_hypothesis.install()
    import hypothesis

ROOT = Path(__file__).resolve().parent.parent


def _prefer_installed() -> None:
    """Take a checkout without a native module off ``sys.path`` where another fastconv is installed."""
    if any((ROOT / "fastconv").glob("_cpu*.so")):
        return
    others = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    if importlib.machinery.PathFinder.find_spec("fastconv", others) is not None:
        sys.path[:] = others
        os.environ["PYTHONSAFEPATH"] = "1"  # nor on that of the programs that tests start here


_prefer_installed()

import fake_cupy  # noqa: E402
import fastconv as fc  # noqa: E402
import fastconv.backend  # noqa: E402
import fastconv.cuda  # noqa: E402

# Looking for doctests in this plugin would switch it on.
collect_ignore = ["fake_gpu.py"]

# Same examples in every run: a failure seen in CI is a failure seen at home.
hypothesis.settings.register_profile(
    "fastconv",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fastconv")

# "cpu" is the best of the "cpu:ISA" names: testing it too would test one of them twice.
BACKENDS = tuple(name for name in fc.available_backends() if name != "cpu")
KERNEL_BACKENDS = tuple(name for name in BACKENDS if name != "reference")
CPU_BACKENDS = tuple(name for name in BACKENDS if name.startswith("cpu:"))


# Layers that are large so that processor threads share them: the simulator would take seconds and learn nothing more.
FOR_THREADS = re.compile(r"test_bits_do_not_depend_on_threads.*\[cuda:simt-(resnet50|googlenet|mobilenetv2)-")
# Images of many bands of rows, or blocks of pixels, which the kernels of the processor have alone.
FOR_BANDS = re.compile(
    r"test_exact\[(reference|cuda:simt)-(many bands|one row a band)"
    r"|test_weight_gradient_is_exact\[cuda:simt-large_of_several_blocks_1x1"
)
# On a GPU indices outside the plane are left out, not looked for beforehand; and the large layers as above.
NOT_ON_GPU = re.compile(r"test_max_unpool_index_outside\[cuda\]|" + FOR_THREADS.pattern.replace("cuda:simt", "cuda"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    not_here = FOR_THREADS, FOR_BANDS, NOT_ON_GPU
    dropped = [item for item in items if any(pattern.search(item.name) for pattern in not_here)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function):
    try:
        return (yield)
    except NotImplementedError as error:  # see `checks.DTYPES`
        if os.environ.get("FASTCONV_TWO_TYPES") and "a build with sanitizers" in str(error):
            pytest.skip(str(error))
        raise


def pytest_collection_finish() -> None:
    """Leave the objects of 30,000 collected tests out of every later search for garbage: it took a second each time."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    return f"fastconv: {Path(fc.__file__).parent}, backends: {', '.join(BACKENDS)}"


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend of this machine in turn, active while the test runs: the module with the backend functions."""
    with fc.use_backend(request.param) as module:
        yield module


@pytest.fixture(params=KERNEL_BACKENDS)
def kernel_backend(request):
    """As ``backend``, without the reference: for what only native code can get wrong."""
    with fc.use_backend(request.param) as module:
        yield module


@pytest.fixture(params=CPU_BACKENDS)
def cpu_backend(request):
    """As ``kernel_backend``, without the simulator of CUDA kernels: for the algorithms of the processor's kernels."""
    with fc.use_backend(request.param) as module:
        yield module


@pytest.fixture
def asked(cpu_backend):
    """A function that asks a backend for an algorithm until the test ends, and returns the backend."""

    def ask(algorithm: str):
        cpu_backend.set_conv_algorithm(algorithm)
        return cpu_backend

    yield ask
    cpu_backend.set_conv_algorithm("")


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in for CuPy over the simulator, with everything in place as on a machine with a GPU."""
    if "cuda:simt" not in BACKENDS:
        pytest.skip("the simulator is not built")
    fake = fake_cupy.module()
    native = fastconv.backend.simulator()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(fastconv.cuda, "_kernels", fastconv.cuda.Kernels(native, fake))
    monkeypatch.setattr(fastconv.backend, "ops", fastconv.backend.ops)
    gc.collect()
    alive = fake_cupy.Memory.alive
    yield fake
    native.set_array_library(None)
    gc.collect()
    assert fake_cupy.Memory.alive == alive, "the module keeps memory of arrays that are gone"


@pytest.fixture(scope="session")
def torch():
    """PyTorch, the oracle for arguments, defaults and shapes; tests that need it are skipped where it is absent."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)  # on arrays as small as the tests', more threads only wait for each other
    return module
