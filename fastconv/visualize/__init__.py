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
from fastconv.visualize.confusion import confusion_matrix
from fastconv.visualize.descent import beale, descend, descent_frames, rosenbrock, saddle, save_gif
from fastconv.visualize.excitation import Excitation, strongest_inputs
from fastconv.visualize.images import filter_grid, resize, tile
from fastconv.visualize.layers import activations
from fastconv.visualize.plots import (
    plot_activations,
    plot_confusion_matrix,
    plot_descent,
    plot_excitations,
    plot_filters,
    plot_heatmap,
    plot_image,
    plot_receptive_field,
)
from fastconv.visualize.receptive import ReceptiveField, ReceptiveFields, receptive_field
from fastconv.visualize.style import StyleTransfer, gram_matrix, style_transfer
from fastconv.visualize.synthesis import deep_dream, maximize_unit

__all__ = [
    "Excitation",
    "ReceptiveField",
    "ReceptiveFields",
    "StyleTransfer",
    "activations",
    "beale",
    "confusion_matrix",
    "deconvnet",
    "deep_dream",
    "descend",
    "descent_frames",
    "filter_grid",
    "grad_cam",
    "gram_matrix",
    "guided_backprop",
    "input_gradient",
    "maximize_unit",
    "occlusion_map",
    "plot_activations",
    "plot_confusion_matrix",
    "plot_descent",
    "plot_excitations",
    "plot_filters",
    "plot_heatmap",
    "plot_image",
    "plot_receptive_field",
    "receptive_field",
    "resize",
    "rosenbrock",
    "saddle",
    "saliency",
    "save_gif",
    "strongest_inputs",
    "style_transfer",
    "tile",
]
