// One collective call of a warp, as its implementation sees it.
#pragma once

#include "emu/machine.h"

namespace emu {

// The arguments of all lanes of the mask; they live on the lanes' own stacks.
template <class Argument>
struct WarpCall {
  Site site;
  uint32_t mask;
  void* const* arguments;
  Argument& operator[](int lane) { return *static_cast<Argument*>(arguments[lane]); }
};

using RunWarpCall = void (*)(const void* function, Site site, uint32_t mask,
                             void* const* arguments);

// Waits until all lanes of the mask have called; the last one calls `run`. `operation` must be the
// same pointer for all lanes of a call.
void warp_call(Site site, const char* operation, uint32_t mask, void* argument, RunWarpCall run,
               const void* function);

template <class Argument>
void warp_call(Site site, const char* operation, uint32_t mask, Argument& argument,
               void (*function)(WarpCall<Argument>&)) {
  using Function = void (*)(WarpCall<Argument>&);
  const RunWarpCall run = [](const void* f, Site s, uint32_t m, void* const* arguments) {
    WarpCall<Argument> call{s, m, arguments};
    (*static_cast<const Function*>(f))(call);
  };
  warp_call(site, operation, mask, &argument, run, &function);
}

}  // namespace emu
