// A weight that nobody can write to any more, and what convolutions have packed of it: panels for the direct kernels,
// transformed filters for Winograd, parts for AMX. A form is packed by the first call that needs it and read by all
// later ones, from any thread; a call that finds it half done packs for itself alone, in its workspace.
#pragma once
#include <cstddef>
#include <cstdint>

#include "shapes.h"

namespace fastconv {

// What the contents of a packed form depend on, beside the weight's values.
struct PackedForm {
  ConvAlgorithm algorithm;
  DType dtype;
  std::int32_t lanes, width, parts;  // of a register, of a panel; of a split operand, Winograd's positions, else 1
  std::int64_t groups, columns, channels, kernel[3], step;  // step: between the taps along the width

  bool operator==(const PackedForm& o) const {
    return algorithm == o.algorithm && dtype == o.dtype && lanes == o.lanes && width == o.width && parts == o.parts &&
           groups == o.groups && columns == o.columns && channels == o.channels && kernel[0] == o.kernel[0] &&
           kernel[1] == o.kernel[1] && kernel[2] == o.kernel[2] && step == o.step;
  }
};

class PackedWeight {
 public:
  explicit PackedWeight(void* block) : block_(block) {}  // of the pool, with the weight's values; taken over
  ~PackedWeight();
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;

  const void* data() const { return block_; }
  // Memory of this form. `filled`: it holds the form; else the caller must fill it and say so by finish(). Null:
  // another call is about to, or memory is short.
  void* form(const PackedForm&, std::size_t bytes, bool* filled);
  void finish(void* form, bool filled);  // not filled: it is given back
  std::size_t bytes() const;             // of all filled forms

 private:
  struct Entry;
  void* block_;
  Entry* entries_ = nullptr;
};

}  // namespace fastconv
