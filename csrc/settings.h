// What the process chose beside the arguments of its calls. Read once a call, when its shape object is made.
#pragma once
#include "shapes.h"

namespace fastconv {

Precision float32_precision();
void set_float32_precision(Precision);

// For tests and measurements: the algorithm of every convolution that it can compute; others keep the rule's choice.
ConvAlgorithm conv_algorithm();
void set_conv_algorithm(ConvAlgorithm);

}  // namespace fastconv
