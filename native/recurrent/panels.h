// The kernels over one panel, one text for every instruction set (see int8_linear/epilogue.h). Included once per
// translation unit; everything depends on V, so nothing is shared between them.
#pragma once

#include "recurrent/functions.h"
#include "recurrent/recurrent.h"

namespace taut {

// Weights are asked for this far ahead, where a pass is bound by their arrival.
inline constexpr std::int64_t prefetch_floats = 1024;

template <class V, int vectors, int rows>
inline void multiply_rows(const PanelProduct& product) {
    constexpr std::int64_t width = vectors * panel_lanes;
    for (int lane = 0; lane < panel_lanes; lane += V::width) {
        typename V::Float sums[rows][vectors];
        for (int row = 0; row < rows; ++row) {
            for (int v = 0; v < vectors; ++v) {
                sums[row][v] = V::load(product.start + row * product.start_stride + v * panel_lanes + lane);
            }
        }
        const float* weights = product.panel + lane;
        for (std::int64_t k = 0; k < product.depth; ++k, weights += width) {
            typename V::Float parts[vectors];
            for (int v = 0; v < vectors; ++v) {
                parts[v] = V::load(weights + v * panel_lanes);
                if constexpr (rows <= 2) __builtin_prefetch(weights + v * panel_lanes + prefetch_floats);
            }
            for (int row = 0; row < rows; ++row) {
                const auto value = V::set(product.x[row * product.x_stride + k]);
                for (int v = 0; v < vectors; ++v) sums[row][v] = V::fma(parts[v], value, sums[row][v]);
            }
        }
        for (int row = 0; row < rows; ++row) {
            for (int v = 0; v < vectors; ++v) {
                V::store(product.out + row * product.out_stride + v * panel_lanes + lane, sums[row][v]);
            }
        }
    }
}

template <class V, int vectors, int rows>
void multiply(const PanelProduct& product) {
    if (product.rows == rows) return multiply_rows<V, vectors, rows>(product);
    if constexpr (rows > 1) multiply<V, vectors, rows - 1>(product);
}

// Calls body(row, first lane, load, store) for each vector of the 16 cells whose gates are `vectors` apart.
template <class V, class Body>
inline void for_each_cell(const PanelCells& cells, const Body& body) {
    const auto load = [&cells](const float* p, int lane) {
        const int count = cells.cells - lane;
        return count >= V::width ? V::load(p + lane) : V::load_part(p + lane, count);
    };
    const auto store = [&cells](float* p, int lane, typename V::Float value) {
        const int count = cells.cells - lane;
        if (count >= V::width) return V::store(p + lane, value);
        V::store_part(p + lane, count, value);
    };
    for (int row = 0; row < cells.rows; ++row) {
        for (int lane = 0; lane < cells.cells; lane += V::width) body(row, lane, load, store);
    }
}

template <class V>
void finish_lstm(const PanelCells& cells) {
    for_each_cell<V>(cells, [&](int row, int lane, const auto& load, const auto& store) {
        const float* gates = cells.gates + row * cells.gates_stride + lane;
        float* c = cells.c + row * cells.c_stride;
        const auto input = sigmoid<V>(V::load(gates));
        const auto forget = sigmoid<V>(V::load(gates + panel_lanes));
        const auto candidate = hyperbolic_tangent<V>(V::load(gates + 2 * panel_lanes));
        const auto output = sigmoid<V>(V::load(gates + 3 * panel_lanes));
        const auto state = V::fma(forget, load(c, lane), V::mul(input, candidate));
        store(c, lane, state);
        store(cells.h + row * cells.h_stride, lane, V::mul(output, hyperbolic_tangent<V>(state)));
    });
}

template <class V>
void finish_gru(const PanelCells& cells) {
    for_each_cell<V>(cells, [&](int row, int lane, const auto& load, const auto& store) {
        const float* gates = cells.gates + row * cells.gates_stride + lane;
        const float* projected = cells.projected + row * cells.projected_stride + lane;
        const auto sum = [&](int v) {
            return V::add(V::load(gates + v * panel_lanes), V::load(projected + v * panel_lanes));
        };
        const auto reset = sigmoid<V>(sum(0));
        const auto update = sigmoid<V>(sum(1));
        const auto candidate = hyperbolic_tangent<V>(
            V::fma(reset, V::load(gates + 2 * panel_lanes), V::load(projected + 2 * panel_lanes)));
        const auto previous = cells.previous == nullptr
                                  ? V::set(0.0f)
                                  : load(cells.previous + row * cells.previous_stride, lane);
        const auto change = V::fma(candidate, V::set(-1.0f), previous);
        store(cells.h + row * cells.h_stride, lane, V::fma(update, change, candidate));
    });
}

template <class V, LinearActivation activation>
void activate(const PanelCells& cells) {
    for_each_cell<V>(cells, [&](int row, int lane, const auto&, const auto& store) {
        auto value = V::load(cells.gates + row * cells.gates_stride + lane);
        if constexpr (activation == LinearActivation::relu) value = V::max(V::set(0.0f), value);
        if constexpr (activation == LinearActivation::tanh) value = hyperbolic_tangent<V>(value);
        if constexpr (activation == LinearActivation::sigmoid) value = sigmoid<V>(value);
        store(cells.h + row * cells.h_stride, lane, value);
    });
}

template <class V, int tile_rows>
constexpr RecurrentKernels recurrent_kernels() {
    return {
        tile_rows,
        multiply<V, 3, tile_rows>,
        multiply<V, 4, tile_rows>,
        {finish_lstm<V>, finish_gru<V>, activate<V, LinearActivation::tanh>, activate<V, LinearActivation::relu>},
        {activate<V, LinearActivation::none>, activate<V, LinearActivation::relu>, activate<V, LinearActivation::tanh>,
         activate<V, LinearActivation::sigmoid>},
    };
}

}  // namespace taut
