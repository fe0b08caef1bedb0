"""ONNX Runtime and OpenVINO, where they are installed: inference of whole networks, from ONNX files by torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[], np.ndarray]


def export(torch: Any, model: Any, shape: tuple[int, ...]) -> bytes:
    """`model`, a torch module in evaluation mode, as an ONNX file for inputs of this shape with any batch size."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter by tracing is deprecated; the other one needs one package more
        torch.onnx.export(
            model,
            (torch.zeros(shape),),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )
    return file.getvalue()


class OnnxRuntime:
    """ONNX Runtime's processor provider with all its graph optimisations."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.name = f"onnxruntime {module.__version__}"

    def call(self, model: bytes, x: np.ndarray, threads: int) -> Run:
        options = self.module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = self.module.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: x})[0]


class OpenVino:
    """OpenVINO's processor plugin, for latency, in float32, compiled for the shape that is run."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.name = f"openvino {module.__version__.split('-')[0]}"

    def call(self, model: bytes, x: np.ndarray, threads: int) -> Run:
        core = self.module.Core()
        network = core.read_model(io.BytesIO(model))
        network.reshape(list(x.shape))
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(network, "CPU", options)
        return lambda: compiled(x)[0]


def load() -> dict[str, OnnxRuntime | OpenVino]:
    """Those that can be imported, and nothing without the package onnx, which torch writes files with."""
    found: dict[str, OnnxRuntime | OpenVino] = {}
    try:
        import onnx  # noqa: F401
    except ImportError:
        return found
    try:
        import onnxruntime

        found["onnxruntime"] = OnnxRuntime(onnxruntime)
    except ImportError:
        pass
    try:
        import openvino

        found["openvino"] = OpenVino(openvino)
    except ImportError:
        pass
    return found
