"""Looking inside a network: what its layers see, what excites them, and what an answer rests on.

The functions take a model and arrays and return arrays; those called ``plot_...`` draw them with matplotlib
(``pip install "fastconv[visualize]"``). A layer is named as in ``model.named_modules()``, a unit is a class of the
output or a channel of a layer. Models run in evaluation mode, and are left as they were.
"""

from fastconv.visualize.attribution import (
    deconvnet,
    grad_cam,
    guided_backprop,
    input_gradient,
    occlusion_map,
    saliency,
)
from fastconv.visualize.excitation import Excitation, strongest_inputs
from fastconv.visualize.images import filter_grid, resize, tile
from fastconv.visualize.layers import activations
from fastconv.visualize.receptive import ReceptiveField, ReceptiveFields, receptive_field
from fastconv.visualize.style import StyleTransfer, gram_matrix, style_transfer
from fastconv.visualize.synthesis import deep_dream, maximize_unit

__all__ = [
    "Excitation",
    "ReceptiveField",
    "ReceptiveFields",
    "StyleTransfer",
    "activations",
    "deconvnet",
    "deep_dream",
    "filter_grid",
    "grad_cam",
    "gram_matrix",
    "guided_backprop",
    "input_gradient",
    "maximize_unit",
    "occlusion_map",
    "receptive_field",
    "resize",
    "saliency",
    "strongest_inputs",
    "style_transfer",
    "tile",
]
