#include "conv_select.h"

#include "tuning.h"
#include "vec.h"
#if defined(FC_AMX)
#include "conv_amx.h"
#include "conv_amx_weight.h"
#endif

namespace fastconv::cpu::FC_ISA {
namespace {

bool one_by_one(const ConvShape& s) {
  for (int d = 0; d < 3; d++)
    if (s.kernel[d] != 1 || s.stride[d] != 1 || s.pad[d] != 0 || s.in[d] != s.out[d]) return false;
  return true;
}

// A filter of so many taps on both axes with stride 1, and sums in float32.
bool square_filter(const ConvShape& s, int64_t taps) {
  if (s.depthwise() || s.dtype == DType::f64) return false;
  for (int d = 0; d < 3; d++)
    if (s.kernel[d] != (d ? taps : 1) || s.stride[d] != 1 || s.dilation[d] != 1) return false;
  return s.in[0] == 1 && s.out[0] == 1;
}
bool winograd_filter(const ConvShape& s) { return square_filter(s, 3); }

// What winograd.h has for tiles of m x m outputs. The weight gradient keeps sums at all positions for all input channels of a
// panel of two registers.
bool winograd_can(const ConvShape& s, ConvOp op, int64_t m) {
  const bool three = winograd_filter(s), five = m == 2 && square_filter(s, 5);
  const int64_t side = three ? m + 2 : 7, sums = side * side * s.group_in() * 2 * FC_VECTOR_BYTES;
  return (three || five) && (op != ConvOp::backward_weight || sums <= kWinogradWeightMostSums);
}

// Tiles of m x m outputs: whether products over so many terms, of one image, keep the error of a float32 sum (winograd.h).
bool exact_enough(const ConvShape& s, ConvOp op, int64_t m) {
  if (s.precision != Precision::highest || m == 2) return true;
  if (op == ConvOp::backward_weight) return s.out_space() >= kWinogradExactPixels[m - 3];
  return (op == ConvOp::forward ? s.group_in() : s.group_out()) >= kWinogradExactChannels[m - 3];
}

constexpr const char* kTooWasteful = "too much of the tiles is outside the image";
bool wasteful(int64_t tiles, int64_t m, int64_t outputs) { return double(tiles * m * m) > kWinogradWaste * double(outputs); }

const char* against_weight_tiles(const ConvShape& s, int64_t m) {
  const int64_t tiles = ceil_div(s.out[1], m) * ceil_div(s.out[2], m), weights = s.group_in() * s.group_out();
  if (min_of(s.group_in(), s.group_out()) < kWinogradWeightFewest || weights < kWinogradWeightLeastWeights)
    return "too few channels for the cost of the transforms";
  const bool large = m > 2 || s.kernel[1] == 5;
  if (tiles < kWinogradWeightLeastTiles || (large && s.out_space() < kWinogradWeightPixels))
    return "too few tiles in an image";
  if (wasteful(tiles, m, s.out_space())) return kTooWasteful;
  if (tiles * kWinogradWeightMostWeights < weights) return "too few tiles for so many weights to transform";
  return nullptr;
}

// What speaks against tiles of m x m outputs.
const char* against_tiles(const ConvShape& s, ConvOp op, int64_t m) {
  if (!exact_enough(s, op, m)) return "too few terms for the error that float32 precision 'highest' allows";
  if (op == ConvOp::backward_weight) return against_weight_tiles(s, m);
  const WinogradLimits& limits = s.kernel[1] == 5 ? kWinogradFive : kWinograd[m - 2];
  const int64_t *out = op == ConvOp::forward ? s.out : s.in, tiles = ceil_div(out[1], m) * ceil_div(out[2], m);
  const int64_t columns = op == ConvOp::forward ? s.group_out() : s.group_in();
  const int64_t channels = op == ConvOp::forward ? s.group_in() : s.group_out();
  if (channels < limits.channels || columns < limits.columns) return "too few channels for the cost of the transforms";
  const bool few = tiles < limits.tiles;
  if (few && (tiles < limits.fewer_tiles || min_of(channels, columns) < limits.fewer_channels))
    return "too few tiles in an image";
  if (wasteful(tiles, m, out[1] * out[2])) return kTooWasteful;
  if (tiles * limits.weights_per_tile < channels * columns) return "too few tiles for so many weights to transform";
  return nullptr;
}

bool float_sums(const ConvShape& s) { return s.dtype == DType::f32 || s.dtype == DType::f64; }

// Sources and results of one group: the input gradient takes them the other way round.
struct Sides {
  int64_t channels, columns, step;  // step: of the source, between neighbouring results
  bool source_last;                 // pixels of several channels each: must be transposed to rows of one channel
  double taps;                      // for one result
};
Sides sides(const ConvShape& s, ConvOp op) {
  const bool last = s.layout == Layout::channels_last;
  if (op == ConvOp::forward || op == ConvOp::backward_weight) return {s.group_in(), s.group_out(), s.stride[2], last && s.C > 1, double(s.taps())};
  return {s.group_out(), s.group_in(), 1, last && s.K > 1,
          double(s.taps()) / (double(s.stride[0]) * double(s.stride[1]) * double(s.stride[2]))};
}

// Whether one row of results has its source and its weights in scratch of the size that conv_narrow.h allows.
bool narrow_fits(const ConvShape& s, ConvOp op) {
  const Sides side = sides(s, op);
  const double item = s.dtype == DType::f64 ? 8 : 4, channels = op == ConvOp::backward_weight ? 1 : double(side.channels);
  const double high = double(s.kernel[1] - 1) * double(s.dilation[1]) + 1;
  const double wide = double(s.kernel[2] - 1) * double(s.dilation[2]) + 2 * kNarrowLanes * double(side.step);
  return channels * double(s.kernel[0]) * high * wide * item <= kNarrowMostSource &&
         double(s.K) * double(s.group_in()) * double(s.taps()) * item <= kNarrowMostWeights;
}

const char* against_narrow(const Sides& side) {
  if (side.source_last) {
    if (side.step > 1) return "pixels of several channels, not next to each other, would be transposed";
    if (side.taps < kNarrowLastTaps) return "too few taps for the pixels' transposition to pay";
    if (side.channels >= kNarrowManyLast ? side.columns > kNarrowColumnsLast : side.columns > kNarrowFewColumnsLast)
      return "too many output channels for the pixels' transposition to pay";
    return nullptr;
  }
  if (side.step > 2) return "its columns would be sorted one by one";
  if (side.taps == 1 && side.columns >= kPointwiseChannels) return "1x1 with enough output channels for a matrix product";
  if (side.channels <= kNarrowFewChannels) return nullptr;
  const bool remainder = side.columns > 16 && side.columns <= 24;  // a second register with a few output channels
  if (side.step == 2 ? side.columns > kNarrowColumnsStrided : side.columns > kNarrowColumns && !remainder)
    return "enough output channels to fill registers";
  return nullptr;
}

const char* against_narrow_weight(const ConvShape& s) {
  const std::int64_t pixels = s.out_space(), K = s.group_out();
  if (pixels < kNarrowWeightSmall) return "too few pixels for sums along them";
  const std::int64_t most = pixels < kNarrowWeightLarge               ? kNarrowWeightColumnsSmall
                            : s.group_in() <= kNarrowFewChannels      ? kNarrowColumns
                                                                      : kNarrowWeightColumns;
  return K > most ? "enough output channels to fill registers" : nullptr;
}

// One algorithm. `can` says whether it computes the problem at all, `against` why the rule would rather not (null: it
// would), `why` what it is good for.
struct Candidate {
  ConvAlgorithm algorithm;
  bool (*can)(const ConvShape&, ConvOp);
  const char* (*against)(const ConvShape&, ConvOp);
  const char* why;
};

const char* nothing(const ConvShape&, ConvOp) { return nullptr; }

#if defined(FC_AMX)
bool amx_can(const ConvShape& s, ConvOp op) {
  if (amx_parts(s) > kMostParts) return false;
  return op == ConvOp::backward_weight ? amx_computes_weight(s, amx_parts(s)) : amx_computes(s, op);
}

#if defined(FC_DOTS)
const char* against_amx(const ConvShape& s, ConvOp op) {
  if (op == ConvOp::backward_weight) {
    if (min_of(s.group_in(), s.group_out()) < kAmxWeightChannels) return "too few channels for tiles";
    if (winograd_filter(s) && !against_weight_tiles(s, 2)) return "Winograd on the FMA units is faster";
    return nullptr;
  }
  const int64_t columns = op == ConvOp::forward ? s.group_out() : s.group_in();
  if (columns < kDotLeastColumns) return "too few output channels to fill registers";
  if (run_length(op == ConvOp::forward ? forward_problem(s) : widest_phase(s)) < kDotLeastRun)
    return "too few neighbours to reduce over";
  if (!winograd_filter(s)) return nullptr;
  const int64_t pixels = op == ConvOp::forward ? s.out_space() : s.in_space();
  if (columns <= kAmxColumns && pixels <= kAmxFewPixels && !against_tiles(s, op, 2))
    return "a small image would be copied for one panel of output channels";
  if (pixels >= kDotBesideWinograd && (!against_tiles(s, op, 4) || !against_tiles(s, op, 3)))
    return "Winograd's larger tiles on the FMA units are faster";
  return nullptr;
}
#else
// The share of whole tiles' 32 that n fills.
double useful(int64_t n) { return double(n) / double(round_up(n, kAmxDepth)); }

const char* against_amx(const ConvShape& s, ConvOp op) {
#if defined(FC_AMX_EMULATED)
  return nullptr;  // the emulator is there to run the kernels
#endif
  const bool exact = amx_parts(s) == 3;
  if (op == ConvOp::backward_weight) {
    const int64_t fewer = min_of(s.group_in(), s.group_out());
    if (fewer < kAmxWeightChannels) return "too few channels for tiles";
    if (exact && s.taps() == 1 && fewer < kAmxPointwiseWeightChannels)
      return "a 1x1 filter on so few channels is bound by splitting and transposing";
    return nullptr;
  }
  const int64_t channels = op == ConvOp::forward ? s.group_in() : s.group_out();
  const int64_t columns = op == ConvOp::forward ? s.group_out() : s.group_in();
  if (one_by_one(s)) {
    // Not a word about pixels where there is one: those of a linear layer are its batch.
    if (exact && (s.linear || s.out_space() == 1)) return "all weights would be split for what may be a single row";
    if (channels < (amx_parts(s) == 1 ? kAmxHalfChannels : kAmxPointwiseChannels))
      return "a 1x1 filter on so few channels is bound by memory";
    if (exact && columns < kAmxPointwiseColumns) return "too few output channels for the cost of splitting";
    if (exact && s.layout == Layout::channels_first && s.out_space() > 1 &&
        columns < (s.out_space() < kAmxFewPixels ? 2 : 1) * kAmxTransposedColumns)
      return "too few output channels for the cost of transposing channels-first pixels";
    return nullptr;
  }
  if (s.N && s.flops() / double(s.N) < Context::kSerialFlops) return "too small for tiles and split weights to pay";
  if (exact && columns < kAmxLeastColumns) return "six products on so few output channels only tie the FMA units";
  const TapProblem p = op == ConvOp::forward ? forward_problem(s) : widest_phase(s);
  if (useful(run_length(p)) < (exact ? kAmxExactShare : kAmxShare)) return "most of a tile's reduction would be padding";
  if (exact && winograd_filter(s) && !against_tiles(s, op, 2)) {
    const int64_t pixels = op == ConvOp::forward ? s.out_space() : s.in_space();
    if (pixels >= kAmxBesideWinograd4 && !against_tiles(s, op, 4)) return "Winograd F(4x4) on the FMA units is faster";
    if (useful(run_length(p)) * useful(columns) < kAmxBesideWinograd ||
        (columns <= kAmxColumns && pixels <= kAmxFewPixels))
      return "six products on partly filled tiles are slower than Winograd on the FMA units";
  }
  return nullptr;
}
#endif
#endif

// In the order of preference; the last of them that can compute a problem takes it in any case.
constexpr Candidate kCandidates[] = {
    {ConvAlgorithm::depthwise, [](const ConvShape& s, ConvOp) { return s.depthwise(); }, nothing,
     "one input channel a group: no reduction over channels, bound by memory"},
#if defined(FC_AMX)
    {kTileAlgorithm, amx_can, against_amx, "products of bfloat16 pairs: the highest peak of this processor"},
#endif
    {ConvAlgorithm::winograd_4x4, [](const ConvShape& s, ConvOp op) { return winograd_can(s, op, 4); },
     [](const ConvShape& s, ConvOp op) { return against_tiles(s, op, 4); },
     "tiles of 4x4 outputs: 2.25 products an output instead of 9"},
    {ConvAlgorithm::winograd_3x3, [](const ConvShape& s, ConvOp op) { return winograd_can(s, op, 3); },
     [](const ConvShape& s, ConvOp op) { return against_tiles(s, op, 3); },
     "tiles of 3x3 outputs: 2.8 products an output instead of 9"},
    {ConvAlgorithm::winograd_2x2, [](const ConvShape& s, ConvOp op) { return winograd_can(s, op, 2); },
     [](const ConvShape& s, ConvOp op) { return against_tiles(s, op, 2); },
     "tiles of 2x2 outputs: 4 products an output instead of 9, 12 instead of 25 for a 5x5 filter"},
    {ConvAlgorithm::narrow,
     [](const ConvShape& s, ConvOp op) { return !s.depthwise() && narrow_fits(s, op); },
     [](const ConvShape& s, ConvOp op) {
       return op == ConvOp::backward_weight ? against_narrow_weight(s) : against_narrow(sides(s, op));
     },
     "few output channels: pixels as the vector dimension, and all output channels share each load of the source"},
    {ConvAlgorithm::tap_products, [](const ConvShape& s, ConvOp op) { return op == ConvOp::backward_weight && !s.depthwise(); },
     nothing, "a matrix product per kernel tap, reduced over pixels in blocks of fixed order"},
    {ConvAlgorithm::pointwise,
     [](const ConvShape& s, ConvOp op) {
       return op != ConvOp::backward_weight && !s.depthwise() && one_by_one(s) && s.out_space() > 1 && float_sums(s) &&
              s.layout == Layout::channels_first;
     },
     [](const ConvShape& s, ConvOp) -> const char* {
       if (s.group_in() < kPointwiseChannels || s.group_out() < kPointwiseChannels) return "too few channels";
       if (s.out_space() < kPointwisePixels) return "too few pixels for whole panels";
       return nullptr;
     },
     "1x1 on channels-first planes: a matrix product with pixels as the vector dimension, nothing transposed"},
    {ConvAlgorithm::direct, [](const ConvShape& s, ConvOp op) { return op != ConvOp::backward_weight && !s.depthwise(); },
     nothing, "computes every shape"},
};

}  // namespace

ConvChoice select_conv(const ConvShape& s, ConvOp op) {
  ConvChoice choice{};
  for (const Candidate& c : kCandidates) {
    if (!c.can(s, op)) continue;
    if (c.algorithm == s.algorithm) return {c.algorithm, "asked for by FASTCONV_ALGO or set_conv_algorithm"};
    if (choice.algorithm == ConvAlgorithm::automatic && !c.against(s, op)) choice = {c.algorithm, c.why};
  }
  return choice;
}

void list_others(const ConvShape& s, ConvOp op, ConvPlan* plan) {
  plan->others = 0;
  for (const Candidate& c : kCandidates) {
    if (c.algorithm == plan->algorithm || !c.can(s, op)) continue;
    const char* against = c.against(s, op);
    plan->other[plan->others++] = {c.algorithm, against ? against : "comes later in the order of preference"};
  }
}

}  // namespace fastconv::cpu::FC_ISA
