"""What the library does to its process: threads, forks, memory, floating-point state, start-up, environment variables.

Checks that need a process of their own run a script in one (``script``), with the path that found this fastconv.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn.functional as F
from checks import assert_same_bits, float32, float64, normal, shapes
from conftest import CPU_BACKENDS, KERNEL_BACKENDS


def script(
    source: str, seconds: float = 60, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python source in a new process; unless `check` is off, it must end well."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FASTCONV_", "OMP_"))}
    inherited["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**inherited, **environment},
    )
    assert not check or done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def printed(source: str, seconds: float = 60, **environment: str) -> Any:
    """The JSON that Python source prints in a new process."""
    return json.loads(script(source, seconds, **environment).stdout)


def test_the_native_module_is_there():
    """Without it the suite would test the reference against itself."""
    assert fc.available_backends()[:2] == ("reference", "cpu")
    assert "cpu:generic" in fc.available_backends()
    assert fc.get_backend() == "cpu"


def test_backends_offer_the_same_functions():
    from fastconv import _cpu, reference

    def functions(module):
        names = (name for name in dir(module) if not name.startswith("_") and callable(getattr(module, name)))
        return {name for name in names if "_forward" in name or "_backward" in name}

    assert functions(_cpu) == functions(reference) == set(reference.__all__)


CONV = """
import numpy as np, fastconv as fc, fastconv.nn.functional as F
rng = np.random.default_rng(0)
x, w = rng.standard_normal((4, 16, 24, 24), np.float32), rng.standard_normal((32, 16, 3, 3), np.float32)
def results():
    y, pullback = F.conv2d.vjp(x, w, padding=1)
    return [y, *pullback(y), F.max_pool2d(y, 2), F.relu(y)]
before = results()
def same():
    return all((a.view(np.uint32) == b.view(np.uint32)).all() for a, b in zip(before, results(), strict=True))
"""


def test_a_forked_child_computes():
    """Threads do not survive a fork: a child that waited for them would hang (pytorch/pytorch#91547)."""
    script(
        CONV
        + """
import os, time
assert fc.get_num_threads() == 2
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if same() else 1)
    limit = time.monotonic() + 5
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > limit:
            os.kill(child, 9)
            raise SystemExit("the forked child did not finish in 5 s")
        time.sleep(0.01)
    assert ended[1] == 0, f"the child ended with status {ended[1]}"
    assert same()
""",
        FASTCONV_NUM_THREADS="2",
    )


def test_forked_pool_workers_compute():
    script(
        CONV
        + """
import multiprocessing
def work(_):
    return same()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(work, range(4)).get(timeout=20) == [True] * 4
""",
        FASTCONV_NUM_THREADS="2",
    )


def test_python_threads_get_the_same_bits(request, kernel_backend):
    """Calls from many Python threads at once, each of them parallel inside; more than team.cpp has slots for."""
    simulated = request.node.callspec.params["kernel_backend"] == "cuda:simt"
    count, repeats = (4, 1) if simulated else (20, 5)
    rng = np.random.default_rng(1)
    x, w, v = (normal(rng, s, float32) for s in ((3, 8, 20, 20), (16, 8, 3, 3), (16, 1, 3, 3)))
    mean, var = np.zeros(16, np.float32), np.ones(16, np.float32)

    def work() -> list[np.ndarray]:
        y = kernel_backend.conv_forward(x, w, None, 1, 1, 1, 1, 2)
        z = kernel_backend.conv_forward(y, v, None, 2, 1, 1, 16, 2)
        return [
            y,
            z,
            kernel_backend.conv_backward_input(y, w, x.shape, 1, 1, 1, 1, 2),
            kernel_backend.conv_backward_weight(y, x, w.shape, 1, 1, 1, 1, 2),
            kernel_backend.max_pool_forward(y, 3, 2, 1, 1, False, 2, "none"),
            kernel_backend.avg_pool_forward(y, 2, 2, 0, False, True, None, 2),
            *kernel_backend.batch_norm_forward(y, None, None, mean, var, False, 0.1, 1e-5),
            kernel_backend.linear_forward(z.reshape(3, -1), z.reshape(3, -1), None),
            kernel_backend.relu_forward(y),
        ]

    expected = work()
    problems: list[BaseException] = []

    def repeat() -> None:
        try:
            for _ in range(repeats):
                for actual, right in zip(work(), expected, strict=True):
                    assert_same_bits(actual, right)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not problems, problems[0]


HELPERS = """
import os, pathlib
def helpers():
    tasks = [t for t in pathlib.Path("/proc/self/task").iterdir() if (t / "comm").read_text() == "fastconv\\n"]
    return [dict(line.split(":", 1) for line in (t / "status").read_text().splitlines()) for t in tasks]
"""


@pytest.mark.skipif(not CPU_BACKENDS, reason="no native module")
def test_helpers_are_started_when_needed_and_never_again():
    counts = printed(
        HELPERS
        + CONV
        + """
import json
counts = [len(helpers())]
for n in (1, 2, 5, 3, 5):
    fc.set_num_threads(n)
    assert same()
    counts.append(len(helpers()))
print(json.dumps(counts))
""",
        FASTCONV_NUM_THREADS="1",
    )
    assert counts == [0, 0, 1, 4, 4, 4]


@pytest.mark.skipif(not CPU_BACKENDS, reason="no native module")
def test_helpers_leave_signals_to_the_program_and_keep_to_its_processors():
    """A signal that a helper took would not interrupt what the program's threads wait for."""
    script(
        HELPERS
        + """
import time
mine = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {mine})
"""
        + CONV
        + """
for _ in range(5):
    time.sleep(0.01)
    assert same()
(helper,) = helpers()
assert int(helper["SigBlk"], 16) & 0b110 == 0b110, helper["SigBlk"]  # SIGINT and SIGQUIT
assert helper["Cpus_allowed_list"].strip() == str(mine), helper["Cpus_allowed_list"]
""",
        FASTCONV_NUM_THREADS="2",
    )


@pytest.mark.skipif(not CPU_BACKENDS, reason="no native module")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_helpers_that_sleep_wake_elsewhere_than_the_caller():
    script(
        HELPERS
        + CONV
        + """
import time
allowed = os.sched_getaffinity(0)
everywhere = sum(1 << processor for processor in allowed)
for _ in range(500):  # until it sleeps when a call begins, which may take its time on a busy machine
    time.sleep(0.01)
    assert same()
    (helper,) = helpers()
    mask = int(helper["Cpus_allowed"].replace(",", ""), 16)
    assert mask and not mask & ~everywhere, (hex(mask), hex(everywhere))
    outside = everywhere & ~mask
    if outside:
        break
assert outside.bit_count() == 1, (hex(mask), hex(everywhere))
""",
        FASTCONV_NUM_THREADS="2",
    )


def test_number_of_threads_is_set_and_checked():
    before = fc.get_num_threads()
    try:
        for count in (1, 3, 2):
            fc.set_num_threads(count)
            assert fc.get_num_threads() == count
        for bad in (0, -1, 2**31, 2**70):
            with pytest.raises(ValueError, match=r"\bn\b"):
                fc.set_num_threads(bad)
        for bad in (1.5, "2", None, True):
            with pytest.raises(TypeError, match=r"\bn\b"):
                fc.set_num_threads(bad)
        assert fc.get_num_threads() == 2
    finally:
        fc.set_num_threads(before)


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
@pytest.mark.parametrize("value", ["abc", "0", "-1", "2x", "1.5", "4096"])
def test_a_number_of_threads_that_is_none_is_an_error(value):
    done = script(THREADS, check=False, FASTCONV_NUM_THREADS=value)
    assert done.returncode == 1
    assert f"FASTCONV_NUM_THREADS must be a whole number from 1 to 4095, got '{value}'" in done.stderr


THREADS = "import json, fastconv as fc; print(json.dumps(fc.get_num_threads()))"


def test_default_number_of_threads():
    """The smallest of affinity, cgroup quota and OMP_NUM_THREADS; FASTCONV_NUM_THREADS before all of them."""
    assert 1 <= printed(THREADS) <= len(os.sched_getaffinity(0))
    assert printed(THREADS, OMP_NUM_THREADS="1") == 1
    assert printed(THREADS, FASTCONV_NUM_THREADS="3") == 3
    assert printed(THREADS, FASTCONV_NUM_THREADS="3", OMP_NUM_THREADS="1") == 3
    assert printed(THREADS, OMP_NUM_THREADS="1,2") == 1  # a number for each level of nesting
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert printed(one + THREADS) == 1


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
def test_memory_does_not_grow_with_the_number_of_shapes():
    """10,000 different small shapes: no cache for each shape (uxlfoundation/oneDNN#1757)."""
    growth = printed(
        """
        import json, os, numpy as np, fastconv as fc
        from fastconv import _cpu
        fc.set_backend("cpu")
        data = np.random.default_rng(0).standard_normal(1 << 20, np.float32)
        page = os.sysconf("SC_PAGE_SIZE")

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * page

        def array(*shape):
            return data[: int(np.prod(shape))].reshape(shape)

        def call(rng):
            n, c, k, h, w, r = (int(v) for v in rng.integers([1, 1, 1, 4, 4, 1], [3, 24, 24, 24, 24, 4]))
            x, f = array(n, c, h, w), array(k, c, r, r)
            y = _cpu.conv_forward(x, f, None, 1, 1, 1, 1, 2)
            _cpu.conv_backward_input(y, f, x.shape, 1, 1, 1, 1, 2)
            _cpu.conv_backward_weight(y, x, f.shape, 1, 1, 1, 1, 2)
            z, saved = _cpu.max_pool_forward(y, 2, 2, 0, 1, False, 2, "window")
            _cpu.max_pool_backward(z, saved, y.shape, 2, 2, 0, 1, False, 2)
            _cpu.batch_norm_forward(y, None, None, None, None, True, 0.1, 1e-5)

        rng = np.random.default_rng(1)
        for _ in range(8000):  # until scratch of all sizes has been in use
            call(rng)
        before = resident()
        for _ in range(10000):
            call(rng)
        print(json.dumps(resident() - before))
        """,
        seconds=120,
    )
    assert growth < 1 << 20, f"{growth} bytes more"


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
def test_freed_memory_is_used_again_and_given_back_in_the_end():
    """What a training step frees serves the next one, of whatever size; a program that goes on with less keeps less."""
    seen = printed(
        """
        import json, os, resource, numpy as np, fastconv as fc
        from fastconv import _cpu
        fc.set_backend("cpu")
        data = np.ones(1 << 20, np.float32)

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

        def faults():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

        def step():
            kept = [_cpu.relu_forward(data[: size << 10]) for size in (1024, 900, 512, 100) for _ in range(75)]
            for y in kept:
                y += 1  # writes to every page of what was handed out

        start = resident()
        step(), step()
        most, before = resident() - start, faults()
        step()
        again = faults() - before
        for _ in range(2 * 16384 + 2):
            _cpu.relu_forward(data[: 1 << 15])
        later = resident() - start
        _cpu.release_memory()
        print(json.dumps({"most": most, "again": again, "later": later, "released": resident() - start}))
        """
    )
    assert 700 < seen["most"] < 1000, seen  # MB; 743 MB are in use at once, classes of sizes round up
    assert seen["again"] < 2000, seen  # of 190,000 pages
    assert seen["later"] <= 512 + 16 and seen["released"] < 16, seen


WORKSPACE_LIMIT = 32 << 20
# Small output, large temporary: what an unbounded im2col, a padded copy or packed weights would need.
LARGE = [
    ("large_kernel", (1, 3, 256, 256), (8, 3, 15, 15), {"padding": 7}),
    ("wide_row", (1, 4, 1, 200_000), (4, 4, 1, 9), {"padding": (0, 4)}),
    ("many_weights", (1, 512, 7, 7), (1024, 512, 3, 3), {"padding": 1}),
    ("large_image", (1, 16, 512, 512), (16, 16, 3, 3), {"padding": 1}),
    ("large_batch", (64, 16, 32, 32), (16, 16, 3, 3), {"padding": 1}),
    ("depthwise", (1, 96, 224, 224), (96, 1, 3, 3), {"padding": 1, "groups": 96}),
    ("strided_stem", (2, 3, 448, 448), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
]


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
@pytest.mark.parametrize("name,x_shape,w_shape,options", LARGE, ids=[case[0] for case in LARGE])
def test_workspace_is_bounded(name, x_shape, w_shape, options):
    from fastconv import _cpu

    x, w = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32)
    _cpu.reset_workspace_peak()
    with fc.use_backend("cpu"):
        y, pullback = F.conv2d.vjp(x, w, **options)
        pullback(y)
    assert _cpu.workspace_peak() <= WORKSPACE_LIMIT


def denormals_work() -> bool:
    """Whether the hardware of this thread computes with denormal numbers."""
    single, double = np.full(64, 1e-40, np.float32), np.full(64, 1e-310)
    return bool((single * np.float32(0.5) > 0).all() and (double * 0.5 > 0).all())


def test_denormals_are_back_after_a_call(kernel_backend):
    """Kernels flush denormals; the caller's floating-point state must not notice, whatever way a call ends."""
    assert denormals_work()
    rng = np.random.default_rng(2)
    for dtype in (float32, float64):
        x, w = normal(rng, (2, 8, 12, 12), dtype), normal(rng, (8, 8, 3, 3), dtype)
        calls = [
            lambda x=x, w=w: kernel_backend.conv_forward(x, w, None, 1, 1, 1, 1, 2),
            lambda x=x, w=w: kernel_backend.conv_backward_input(x, w, x.shape, 1, 1, 1, 1, 2),
            lambda x=x, w=w: kernel_backend.conv_backward_weight(x, x, w.shape, 1, 1, 1, 1, 2),
            lambda x=x, w=w: kernel_backend.conv_transpose_forward(x, w, None, 1, 1, 0, 1, 1, 2),
            lambda x=x, w=w: kernel_backend.avg_pool_forward(x, 2, 2, 0, False, True, None, 2),
            lambda x=x, w=w: kernel_backend.lp_pool_forward(x, 2.0, 2, 2, False, 2),
            lambda x=x, w=w: kernel_backend.max_pool_forward(x, 2, 2, 0, 1, False, 2, "none"),
            lambda x=x, w=w: kernel_backend.batch_norm_forward(x, None, None, None, None, True, 0.1, 1e-5),
            lambda x=x, w=w: kernel_backend.local_response_norm_forward(x, 5, 1e-4, 0.75, 1.0),
            lambda x=x, w=w: kernel_backend.linear_forward(x, w[0, 0, :1].repeat(4, 1), None),
        ]
        for call in calls:
            call()
            assert denormals_work()
        with pytest.raises(ValueError):
            kernel_backend.conv_forward(x, w, None, 0, 1, 1, 1, 2)
        assert denormals_work()


def test_denormal_values_pass_where_nothing_is_summed(backend):
    """ReLU, max pooling and indexing select values: they keep denormals."""
    x = np.full((1, 1, 4, 4), 1e-40, np.float32)
    assert (backend.relu_forward(x) == x).all()
    assert (backend.max_pool_forward(x, 2, 2, 0, 1, False, 2, "none") == x[0, 0, 0, 0]).all()


def test_import_is_cheap():
    """Less than NumPy itself takes, 50 ms of 100: a slow machine is slow for both. Processor time, so that a
    busy one does not count, and of this thread, as those of NumPy's BLAS spin meanwhile; the median of five."""
    source = """
    import json, time
    start = time.thread_time()
    import numpy
    middle = time.thread_time()
    import fastconv
    print(json.dumps((time.thread_time() - middle) / (middle - start)))
    """
    assert statistics.median(printed(source) for _ in range(5)) < 1


def test_import_brings_only_numpy():
    source = """
    import json, sys
    import fastconv, fastconv.nn.functional
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
    """
    optional = {"torch", "matplotlib", "sklearn", "scipy", "tqdm", "safetensors", "cupy", "PIL"}
    assert optional.isdisjoint(printed(source))


CHOSEN = """
import json, numpy as np, fastconv as fc, fastconv.nn.functional as F
F.relu(np.ones(3, np.float32))
from fastconv import _cpu
print(json.dumps([fc.get_backend(), _cpu.isa()]))
"""


@pytest.mark.parametrize("name", [name.partition(":")[2] for name in CPU_BACKENDS])
def test_environment_forces_the_instruction_set(name):
    assert printed(CHOSEN, FASTCONV_ISA=name) == ["cpu", name]


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
def test_best_instruction_set_is_the_default():
    assert printed(CHOSEN) == ["cpu", printed("import json; from fastconv import _cpu; print(json.dumps(_cpu.isa()))")]


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
@pytest.mark.parametrize("name", ["sse", "avx1024", "AVX2 ", "cpu:avx2"])
def test_an_unsupported_instruction_set_is_an_error(name):
    """Not a silent fallback, and not an illegal instruction."""
    done = script(CHOSEN, check=False, FASTCONV_ISA=name)
    assert done.returncode == 1
    assert name in done.stderr and "generic" in done.stderr


def test_backends_are_switched_and_restored():
    before = fc.get_backend()
    for name in fc.available_backends():
        with fc.use_backend(name):
            assert fc.get_backend() == name
            assert_same_bits(F.relu(np.array([-1, 2], np.float32)), np.array([0, 2], np.float32))
    assert fc.get_backend() == before
    with pytest.raises(ValueError, match="reference"):
        fc.set_backend("cpu:sse")
    with pytest.raises(KeyError), fc.use_backend("reference"):
        raise KeyError
    assert fc.get_backend() == before


def test_the_list_of_shapes_is_sound():
    """Names are unique and every layer has an output; VGG's and ResNet's stems are as published."""
    for cases in (shapes.CONVS, shapes.POOLS, shapes.NORMS, shapes.AWKWARD):
        assert len({str(case) for case in cases}) == len(cases)
    for case in (*shapes.CONVS, *shapes.POOLS, *shapes.AWKWARD):
        assert min(case.y_shape[1:]) >= 1
    by_name = {str(case): case for case in (*shapes.CONVS, *shapes.POOLS)}
    assert by_name["resnet50-conv1"].y_shape == (8, 64, 112, 112)
    assert by_name["resnet50-conv1"].flops == 2 * 8 * 64 * 112 * 112 * 147
    assert by_name["googlenet-maxpool1"].y_shape == (8, 64, 56, 56)
    assert by_name["alexnet-conv1"].y_shape[2:] == (55, 55)
