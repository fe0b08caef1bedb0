#include "settings.h"

#include <atomic>

namespace fastconv {
namespace {

std::atomic<Precision> precision{Precision::highest};
std::atomic<ConvAlgorithm> algorithm{ConvAlgorithm::automatic};

}  // namespace

Precision float32_precision() { return precision.load(std::memory_order_relaxed); }
void set_float32_precision(Precision p) { precision.store(p); }
ConvAlgorithm conv_algorithm() { return algorithm.load(std::memory_order_relaxed); }
void set_conv_algorithm(ConvAlgorithm a) { algorithm.store(a); }

}  // namespace fastconv
