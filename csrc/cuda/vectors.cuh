// Sixteen bytes at a time: the widest that one thread moves. Arrays that do not begin at 16 bytes, or whose rows do not
// come in such pieces, are read value by value, by the same threads in the same order: bits do not depend on it.
#pragma once
#include "launch.h"

namespace fastconv::cuda {
namespace {

template <class T> constexpr int kVector = 16 / int(sizeof(T));

template <class T, int V> struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Pack {
  T v[V];
};
template <class T, int V> FC_DEVICE Pack<T, V> load_pack(const T* p) { return *reinterpret_cast<const Pack<T, V>*>(p); }
template <class T, int V> FC_DEVICE void store_pack(T* p, const Pack<T, V>& pack) {
  *reinterpret_cast<Pack<T, V>*>(p) = pack;
}
// The first `valid` of V values, zeros behind them; `whole`: all are valid, and they lie at a multiple of their size.
template <class T, int V> FC_DEVICE Pack<T, V> load_pack(const T* p, int valid, bool whole) {
  if (whole) return load_pack<T, V>(p);
  Pack<T, V> pack{};
#pragma unroll
  for (int i = 0; i < V; i++)
    if (i < valid) pack.v[i] = p[i];
  return pack;
}
template <class T, int V> FC_DEVICE void store_pack(T* p, const Pack<T, V>& pack, int valid, bool whole) {
  if (whole) return store_pack<T, V>(p, pack);
#pragma unroll
  for (int i = 0; i < V; i++)
    if (i < valid) p[i] = pack.v[i];
}

// Whether all of these begin at 16 bytes; null ones do.
template <class... P> bool all_aligned(const P*... p) {
  return ((reinterpret_cast<std::uintptr_t>(p) | ...) % 16) == 0;
}

// One thread for V neighbouring elements: the first of them, and how many there are.
template <int V> struct Share16 {
  int64_t first;
  int valid;
  FC_DEVICE explicit Share16(int64_t n) : first(element() * V) {
    valid = n - first >= V ? V : n > first ? int(n - first) : 0;
  }
};
template <int V, class... Parameters, class... Arguments>
void launch_packs(Context& ctx, const char* name, void (*kernel)(Parameters...), int64_t elements,
                  const Arguments&... arguments) {
  launch_elements(ctx, name, kernel, ceil_div(elements, V), arguments...);
}

}  // namespace
}  // namespace fastconv::cuda
