#include "cpu/dispatch.h"

#if defined(MIPRUNER_HAVE_AVX2)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/operations.h"

namespace mipruner::cpu {
namespace {

struct Level {
  const Kernels& (*kernels)();
  bool (*supported)();
};

bool always() { return true; }

#if defined(MIPRUNER_HAVE_AVX2)
// clang 14 has no __builtin_cpu_supports("f16c").
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
#endif
#if defined(MIPRUNER_HAVE_AVX512)
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
#if defined(MIPRUNER_HAVE_AVX512_BF16)
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

// Lowest first. The last entry is for tests and is never chosen by itself.
constexpr Level kLevels[] = {
    {kernels_baseline, always},
#if defined(MIPRUNER_HAVE_AVX2)
    {kernels_avx2, has_avx2},
#endif
#if defined(MIPRUNER_HAVE_AVX512)
    {kernels_avx512, has_avx512},
#endif
#if defined(MIPRUNER_HAVE_AVX512_BF16)
    {kernels_avx512_bf16, has_avx512_bf16},
#endif
    {kernels_emulated, always},
};
constexpr size_t kLevelCount = sizeof(kLevels) / sizeof(kLevels[0]);

const Kernels* find(const char* name) {
  for (const Level& level : kLevels) {
    if (level.supported() && std::strcmp(level.kernels().level, name) == 0) return &level.kernels();
  }
  return nullptr;
}

const Kernels* newest() {
  const Kernels* found = &kernels_baseline();
  for (size_t i = 0; i + 1 < kLevelCount; ++i) {
    if (kLevels[i].supported()) found = &kLevels[i].kernels();
  }
  return found;
}

Status choose(const char* name, const char* source, const Kernels** kernels) {
  *kernels = name && *name ? find(name) : newest();
  if (*kernels) return {};
  return error(StatusCode::kInvalidArgument, "%s: got \"%.40s\", allowed on this machine are %s",
               source, name, available_levels());
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

Status active_kernels(const Kernels** kernels) {
  *kernels = active.load(std::memory_order_acquire);
  if (*kernels) return {};
  if (Status status = choose(std::getenv("MIPRUNER_CPU_LEVEL"), "MIPRUNER_CPU_LEVEL", kernels);
      !status.ok()) {
    return status;
  }
  active.store(*kernels, std::memory_order_release);
  return {};
}

Status set_level(const char* level) {
  const Kernels* kernels = nullptr;
  if (Status status = choose(level, "level", &kernels); !status.ok()) return status;
  active.store(kernels, std::memory_order_release);
  return {};
}

const char* available_levels() {
  static const std::string names = [] {
    std::string list;
    for (const Level& level : kLevels) {
      if (!level.supported()) continue;
      if (!list.empty()) list += ",";
      list += level.kernels().level;
    }
    return list;
  }();
  return names.c_str();
}

}  // namespace mipruner::cpu

namespace mipruner {

const char* cpu_level() {
  const cpu::Kernels* kernels = nullptr;
  return cpu::active_kernels(&kernels).ok() ? kernels->level : "none";
}

const char* cpu_levels() { return cpu::available_levels(); }

Status set_cpu_level(const char* level) { return cpu::set_level(level); }

}  // namespace mipruner
