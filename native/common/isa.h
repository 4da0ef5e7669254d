// Instruction sets that a kernel family may have an implementation for, and their detection.
#pragma once

namespace taut {

enum class Isa : int { scalar = 0, avx2 = 1, avx512_vnni = 2 };

inline constexpr int isa_count = 3;

// The name that Python uses.
const char* isa_name(Isa isa);

// True when this build contains the instruction set and this processor and operating system support it.
bool isa_available(Isa isa);

// True when the bf16 dot product of AVX-512 can be used; only the peak measurement asks.
bool avx512_bf16_available();

// The instruction set that kernels use now: the best one at start, or the one set last.
Isa active_isa();
void set_active_isa(Isa isa);

}  // namespace taut
