"""no_grad, enable_grad and set_grad_enabled, as blocks, decorators and statements."""

import threading

import pytest

import fastconv as fc


def test_grad_modes_as_decorators_with_and_without_parentheses():
    w = fc.tensor([1.0], requires_grad=True)
    for mode, expected in ((fc.no_grad, False), (fc.enable_grad, True)):
        for decorator in (mode, mode()):

            @decorator
            def double(x):
                """Twice."""
                return (x * 2).requires_grad

            with fc.no_grad():
                assert double(w) is expected and double(w) is expected
            assert double.__name__ == "double" and double(w) is expected
    with pytest.raises(TypeError, match="no_grad takes a function to decorate, or nothing, got bool"):
        fc.no_grad(True)


def test_inference_mode():
    @fc.inference_mode
    def plain():
        return fc.is_grad_enabled()

    @fc.inference_mode()
    def called():
        return fc.is_grad_enabled()

    @fc.inference_mode(False)
    def recording():
        return fc.is_grad_enabled()

    assert not plain() and not called() and recording() and fc.is_grad_enabled()
    with fc.inference_mode():
        assert not fc.is_grad_enabled() and recording()
        with fc.inference_mode(mode=False):
            assert fc.is_grad_enabled()
    with pytest.raises(TypeError, match="inference_mode takes a function to decorate, or nothing, got int"):
        fc.inference_mode(1)


def test_setting_the_mode_by_a_value():
    assert fc.is_grad_enabled()
    for value in (False, True, 0, 1):
        with fc.set_grad_enabled(value):
            assert fc.is_grad_enabled() is bool(value)
            with fc.set_grad_enabled(True):
                assert fc.is_grad_enabled()
            assert fc.is_grad_enabled() is bool(value)
        assert fc.is_grad_enabled()
    with pytest.raises(KeyError), fc.set_grad_enabled(False):
        raise KeyError
    assert fc.is_grad_enabled()
    fc.set_grad_enabled(False)  # a statement: until further notice
    try:
        assert not fc.is_grad_enabled()
        seen = []
        thread = threading.Thread(target=lambda: seen.append(fc.is_grad_enabled()))
        thread.start()
        thread.join()
        assert seen == [True]
    finally:
        fc.set_grad_enabled(True)


def test_a_decorator_sets_the_mode_in_calls_alone():
    @fc.set_grad_enabled(False)
    def inside():
        return fc.is_grad_enabled()

    assert fc.is_grad_enabled() and not inside() and fc.is_grad_enabled() and not inside()
    with fc.no_grad():

        @fc.set_grad_enabled(True)
        def recording():
            return fc.is_grad_enabled()

        assert not fc.is_grad_enabled() and recording() and not fc.is_grad_enabled()
