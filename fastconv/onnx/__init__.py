"""Networks from ONNX files, as layers that run, train and `optimize` like any other.

``net = fc.onnx.load("resnet50.onnx")`` reads one, ``fc.optimize(net, (1, 3, 224, 224))`` makes it fast. Reading needs
the package ``onnx`` (``pip install "fastconv[onnx]"``); running does not.
"""

from .network import OnnxNetwork, load
from .operators import operator_names

__all__ = ["OnnxNetwork", "load", "operator_names"]
