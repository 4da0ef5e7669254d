// The rates that this host can reach: arithmetic peaks and read bandwidth of each level of memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace taut {

// One arithmetic loop: run(rounds) performs rounds * operations_per_round operations on registers alone.
struct ArithmeticLoop {
    void (*run)(std::int64_t rounds);
    double operations_per_round;
};

// What one instruction set implements; a multiply-add counts as two operations.
struct PeakLoops {
    ArithmeticLoop float32;
    ArithmeticLoop int8;
    // Reads `bytes` (a multiple of 1024) once.
    void (*read)(const std::uint8_t* data, std::size_t bytes);
};

extern const PeakLoops peak_loops_scalar;
extern const PeakLoops peak_loops_avx2;
extern const PeakLoops peak_loops_avx512_vnni;
extern const ArithmeticLoop peak_bfloat16_avx512;

// Operations per second and bytes per second; bfloat16 is 0 where the processor has no bf16 dot product.
struct Peaks {
    double float32;
    double bfloat16;
    double int8;
    double level1;
    double level2;
    double level3;
    double memory;
};

// Measures with the active instruction set on `threads` threads, for about a second.
Peaks measure_peaks(int threads);

}  // namespace taut
