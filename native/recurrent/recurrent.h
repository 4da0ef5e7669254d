// Recurrent layers and small linear layers in float32.
//
// Packed weights: panels of `panel_lanes * vectors` output channels; a panel holds for each input feature one run of 16
// channels for each of its vectors, so that one pass over it gives complete cells. Panel p, vector v, lane l is
//   LSTM (4 vectors) and GRU (3): gate v of cell 16 p + l, gates in the order of torch (i, f, g, o and r, z, n);
//   plain recurrence and linear (4 vectors): channel 64 p + 16 v + l.
// Biases have the same order. Missing channels are zero. The layout is the same for every instruction set.
//
// A sum starts at the bias, or at the projection of the input, and takes its terms in order, each with one fused
// multiply-add: results have the same bits for every instruction set, batch and number of threads.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace taut {

inline constexpr std::int64_t panel_lanes = 16;

enum class Cell : int { lstm = 0, gru = 1, tanh = 2, relu = 3 };
inline constexpr int cell_count = 4;

enum class LinearActivation : int { none = 0, relu = 1, tanh = 2, sigmoid = 3 };
inline constexpr int linear_activation_count = 4;

// How many vectors a panel has, and how many cells it completes.
constexpr int panel_vectors(Cell cell) { return cell == Cell::gru ? 3 : 4; }
constexpr std::int64_t panel_cells(Cell cell) {
    return cell == Cell::lstm || cell == Cell::gru ? panel_lanes : 4 * panel_lanes;
}
constexpr std::int64_t panel_count(Cell cell, std::int64_t hidden) {
    return (hidden + panel_cells(cell) - 1) / panel_cells(cell);
}

struct RecurrentCall {
    Cell cell;
    std::int64_t steps;
    std::int64_t batch;
    std::int64_t inputs;
    std::int64_t hidden;
    const float* x;               // (steps, batch, inputs)
    const float* input_weights;   // (panels, inputs, vectors, 16)
    const float* hidden_weights;  // (panels, hidden, vectors, 16), finite
    const float* bias;            // (panels, vectors, 16), of the input and, but for a GRU, the hidden part together
    const float* hidden_bias;     // (panels, vectors, 16), of the hidden part; only for a GRU
    const float* h0;              // (batch, hidden), or null for zero
    const float* c0;              // (batch, hidden), or null for zero; only for an LSTM
    float* y;                     // (steps, batch, hidden) with rows y_stride apart
    std::int64_t y_stride;        // 2 * hidden where two directions write side by side
    float* h;                     // (batch, hidden), the state at the end
    float* c;                     // (batch, hidden), only for an LSTM
    bool reverse;                 // from the last step to the first
};

struct SmallLinearCall {
    std::int64_t rows;
    std::int64_t depth;
    std::int64_t channels;
    const float* x;       // (rows, depth)
    const float* packed;  // (panels, depth, 4, 16)
    const float* bias;    // (panels, 4, 16)
    float* y;             // (rows, channels) with rows y_stride apart
    std::int64_t y_stride;
    LinearActivation activation;
};

// Rows times one panel: out[row] = start[row] + x[row] @ panel, each `vectors * 16` long.
struct PanelProduct {
    const float* x;
    std::int64_t x_stride;
    const float* panel;
    std::int64_t depth;
    const float* start;
    std::int64_t start_stride;  // 0 where all rows start from the same bias
    float* out;
    std::int64_t out_stride;
    int rows;  // at most RecurrentKernels::tile_rows
};

// The cells of one panel, from their sums.
struct PanelCells {
    const float* gates;  // sums of the hidden part, which for all but a GRU include the input part
    std::int64_t gates_stride;
    const float* projected;  // sums of the input part, for a GRU
    std::int64_t projected_stride;
    const float* previous;  // h before this step or null for zero, for a GRU
    std::int64_t previous_stride;
    float* c;  // read and written, for an LSTM
    std::int64_t c_stride;
    float* h;
    std::int64_t h_stride;
    int rows;
    int cells;
};

// What one instruction set implements.
struct RecurrentKernels {
    int tile_rows;
    void (*product3)(const PanelProduct& product);
    void (*product4)(const PanelProduct& product);
    void (*finish[cell_count])(const PanelCells& cells);
    // Applies an activation to the sums in `gates` and writes them to `h`.
    void (*activate[linear_activation_count])(const PanelCells& cells);
};

extern const RecurrentKernels recurrent_scalar;
extern const RecurrentKernels recurrent_avx2;
extern const RecurrentKernels recurrent_avx512_vnni;

// Runs a layer in one direction on at most `threads` threads, with the active instruction set. Throws std::bad_alloc.
void recurrent(const RecurrentCall& call, int threads);

// y = activation(x @ W^T + bias) for few rows, where reading the weights dominates.
void small_linear(const SmallLinearCall& call);

}  // namespace taut
