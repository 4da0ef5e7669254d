#include "common/isa.h"

#include <atomic>

namespace taut {
namespace {

Isa best_isa() {
    if (isa_available(Isa::avx512_vnni)) return Isa::avx512_vnni;
    if (isa_available(Isa::avx2)) return Isa::avx2;
    return Isa::scalar;
}

std::atomic<Isa>& current() {
    static std::atomic<Isa> isa{best_isa()};
    return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512_vnni: return "avx512_vnni";
        default: return "scalar";
    }
}

// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool isa_available(Isa isa) {
    if (isa == Isa::scalar) return true;
#ifdef TAUT_X86
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == Isa::avx2) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

bool avx512_bf16_available() {
#ifdef TAUT_X86
    return isa_available(Isa::avx512_vnni) && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

Isa active_isa() { return current().load(std::memory_order_relaxed); }

void set_active_isa(Isa isa) { current().store(isa, std::memory_order_relaxed); }

}  // namespace taut
