// What differs between the versions of llama.cpp that the door compiles against. libmtmd is
// experimental upstream and has no version macro, so the differences are found by overload: the
// first of each pair exists only where the expression in its return type compiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "llama.h"
#include "mipruner_llama/positions.hpp"
#include "mtmd.h"

namespace mipruner::llama::detail {

// Whether attention is causal depends on the chunk; in older trees on the context alone, which was
// not const.
template <class Context>
auto use_non_causal(Context* context, const mtmd_input_chunk* chunk, int)
    -> decltype(mtmd_decode_use_non_causal(context, chunk)) {
  return mtmd_decode_use_non_causal(context, chunk);
}
template <class Context>
auto use_non_causal(Context* context, const mtmd_input_chunk*, long)
    -> decltype(mtmd_decode_use_non_causal(context)) {
  return mtmd_decode_use_non_causal(context);
}

// The fourth section, for HunyuanVL, came later than the three others.
template <class Position>
auto fourth_section(const Position& position, int) -> decltype(static_cast<int32_t>(position.z)) {
  return static_cast<int32_t>(position.z);
}
template <class Position>
int32_t fourth_section(const Position&, long) {
  return 0;
}

template <class Position>
SectionPosition sections(const Position& position, int32_t shift) {
  return {static_cast<int32_t>(position.t) + shift, static_cast<int32_t>(position.y) + shift,
          static_cast<int32_t>(position.x) + shift, fourth_section(position, 0)};
}

// Positions were relative to the image at first; now the call adds n_past where it belongs.
template <class Tokens>
auto row_position(const Tokens* tokens, int32_t n_past, size_t row, int)
    -> decltype(sections(mtmd_image_tokens_get_decoder_pos(tokens, n_past, row), 0)) {
  return sections(mtmd_image_tokens_get_decoder_pos(tokens, n_past, row), 0);
}
template <class Tokens>
auto row_position(const Tokens* tokens, int32_t n_past, size_t row, long)
    -> decltype(sections(mtmd_image_tokens_get_decoder_pos(tokens, row), n_past)) {
  return sections(mtmd_image_tokens_get_decoder_pos(tokens, row), n_past);
}

}  // namespace mipruner::llama::detail
