"""The case table of `fastconv verify`: complete, reproducible, passed by the reference, and able to fail."""

import numpy as np
import pytest

from fastconv import reference, testing
from fastconv.cases import GROUPS, all_cases, available_dtypes

CASES = all_cases(random_cases=2)
ONE_OF_EACH = list({case.op: case for case in reversed(CASES) if case.group == "edge"}.values())


def test_every_operation_has_cases():
    assert {case.op for case in CASES} == set(reference.__all__)
    assert {case.group for case in CASES} == set(GROUPS)
    assert len({case.name for case in CASES}) == len(CASES)


def test_seed_draws_the_random_shapes_and_the_numbers():
    names = [case.name for case in CASES]
    assert [case.name for case in all_cases(random_cases=2)] == names
    assert [case.name for case in all_cases(seed=1, random_cases=2)] != names
    case, float32 = CASES[0], np.dtype(np.float32)
    np.testing.assert_array_equal(case.arguments(3, float32)[0], case.arguments(3, float32)[0])
    assert not np.array_equal(case.arguments(3, float32)[0], case.arguments(4, float32)[0])


def test_dtypes_of_one_width_share_their_values():
    case, dtypes = CASES[0], available_dtypes()
    arrays = {name: case.arguments(0, dtype)[0].astype(np.float64) for name, dtype in dtypes.items()}
    np.testing.assert_array_equal(arrays["float32"], arrays["float64"])
    if "bfloat16" in arrays:
        np.testing.assert_array_equal(arrays["float16"], arrays["bfloat16"])


@pytest.mark.parametrize("dtype", available_dtypes().values(), ids=str)
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.op)
def test_reference_passes_and_a_changed_element_fails(case, dtype):
    expected = case.expected(0, dtype)
    outputs = case.run(reference, case.arguments(0, dtype))
    assert case.compare(outputs, expected, dtype).passed
    for number, y in enumerate(outputs):
        wrong = np.array(y)
        wrong.flat[-1] += 1
        changed = (*outputs[:number], wrong, *outputs[number + 1 :])
        assert not case.compare(changed, expected, dtype).passed
        assert not case.compare((*outputs[:number], y[..., :0], *outputs[number + 1 :]), expected, dtype).passed
    assert not case.compare(outputs + outputs[:1], expected, dtype).passed
    assert not case.compare((outputs[0].astype(np.int64), *outputs[1:]), expected, dtype).passed


def test_one_missing_term_is_beyond_the_bound():
    rng = np.random.default_rng(0)
    for dtype in available_dtypes().values():
        x = (np.round(rng.uniform(0.5, 1, 100) * 128) / 128).astype(dtype)
        exact = x.astype(np.float64).sum()
        magnitude = np.abs(x.astype(np.float64)).sum()
        testing.assert_bound(np.asarray(exact, dtype), exact, magnitude, x.size)
        less = np.asarray(exact - 0.5, dtype) if dtype.itemsize > 2 else np.asarray(exact * 0.98, dtype)
        with pytest.raises(AssertionError, match="beyond the"):
            testing.assert_bound(less, exact, magnitude, x.size)


def test_special_values_have_to_be_in_the_same_places():
    y64 = np.array([np.nan, np.inf, -np.inf, 1.0])
    testing.assert_bound(y64.astype(np.float32), y64, np.abs(y64), 1)
    for wrong in ([1.0, np.inf, -np.inf, 1.0], [np.nan, -np.inf, -np.inf, 1.0], [np.nan, np.inf, -np.inf, np.nan]):
        with pytest.raises(AssertionError):
            testing.assert_bound(np.float32(wrong), y64, np.abs(y64), 1)
    testing.assert_bound(np.float16([np.inf]), np.array([1e6]), 1e6, 1)
    with pytest.raises(AssertionError):
        testing.assert_bound(np.float16([-np.inf]), np.array([1e6]), 1e6, 1)
    with pytest.raises(AssertionError, match="shape"):
        testing.assert_bound(np.float32([1, 2]), np.array([1.0]), 1, 1)


def test_bound_arguments():
    with pytest.raises(TypeError, match="dtype"):
        testing.unit_roundoff(np.int32)
    with pytest.raises(ValueError, match="terms"):
        testing.error_bound(1.0, 1.0, -1, np.float32)
