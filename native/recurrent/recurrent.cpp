// Splits a layer into chunks of steps, panels and tiles of rows, and deals the panels to threads.
#include "recurrent/recurrent.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "common/aligned_buffer.h"
#include "common/parallel.h"

#ifdef TAUT_X86
#include <immintrin.h>
#endif

namespace taut {
namespace {

// Projections of a chunk of steps; they pass through the second-level cache beside the weights.
constexpr std::int64_t chunk_bytes = 256 * 1024;
// Below this work per thread and step, waiting for each other costs more than the second thread gives.
constexpr std::int64_t multiply_adds_per_thread = 1 << 16;
// Beyond this a waiting thread gives up its processor: the other may need it.
constexpr int spins_before_yield = 1 << 12;

const RecurrentKernels& recurrent_kernels(Isa isa) {
#ifdef TAUT_X86
    if (isa == Isa::avx512_vnni) return recurrent_avx512_vnni;
    if (isa == Isa::avx2) return recurrent_avx2;
#endif
    (void)isa;
    return recurrent_scalar;
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Calls body(rows) for tiles of at most `tile_rows` rows, dealt evenly.
template <class Body>
void for_each_tile(std::int64_t rows, int tile_rows, const Body& body) {
    const int tiles = static_cast<int>(ceil_div(rows, tile_rows));
    for (int tile = 0; tile < tiles; ++tile) body(share(rows, tile, tiles));
}

// Each thread passes when all have arrived as often as it.
class SpinBarrier {
   public:
    void wait(std::int64_t round, int threads) {
        arrived_.fetch_add(1, std::memory_order_acq_rel);
        for (int spins = 0; arrived_.load(std::memory_order_acquire) < round * threads; ++spins) {
            if (spins > spins_before_yield) {
                std::this_thread::yield();
                continue;
            }
#ifdef TAUT_X86
            _mm_pause();
#endif
        }
    }

   private:
    alignas(64) std::atomic<std::int64_t> arrived_{0};
};

// Each thread keeps its panels through all steps, projects the input for them alone, and waits for the others once a
// step, when the state is complete.
class Job {
   public:
    Job(const RecurrentCall& call, const RecurrentKernels& kernels, int threads)
        : call_(call),
          kernels_(kernels),
          product_(panel_vectors(call.cell) == 3 ? kernels.product3 : kernels.product4),
          width_(panel_vectors(call.cell) * panel_lanes),
          panels_(panel_count(call.cell, call.hidden)),
          chunk_steps_(std::clamp<std::int64_t>(chunk_bytes / (panels_ * width_ * 4 * call.batch), 1, call.steps)),
          threads_(useful_threads(threads)),
          h0_(is_zero(call.h0) ? nullptr : call.h0) {}

    void run() {
        static thread_local AlignedBuffer buffer;
        const std::int64_t projected_floats = chunk_steps_ * call_.batch * panels_ * width_;
        const std::int64_t gates_floats = kernels_.tile_rows * width_;
        const std::int64_t floats = projected_floats + threads_ * gates_floats;
        float* scratch = reinterpret_cast<float*>(buffer.reserve(static_cast<std::size_t>(floats * 4)));
        if (call_.cell == Cell::lstm) copy_or_clear(call_.c0, call_.c);
        parallel(threads_, [&](int thread, int count) {
            float* gates = scratch + projected_floats + thread * gates_floats;
            run_panels(share(panels_, thread, count), count, scratch, gates);
        });
        copy_rows(state_after(call_.steps - 1), call_.y_stride, call_.h);
    }

   private:
    int useful_threads(int threads) const {
        const std::int64_t work = call_.batch * panels_ * width_ * call_.hidden / multiply_adds_per_thread;
        return static_cast<int>(std::clamp<std::int64_t>(std::min(work, panels_), 1, threads));
    }

    bool is_zero(const float* state) const {
        return state == nullptr ||
               std::all_of(state, state + call_.batch * call_.hidden, [](float value) { return value == 0.0f; });
    }

    void copy_or_clear(const float* from, float* to) const {
        const auto count = static_cast<std::size_t>(call_.batch * call_.hidden);
        if (from == nullptr) {
            std::fill_n(to, count, 0.0f);
        } else if (from != to) {
            std::memmove(to, from, count * sizeof(float));
        }
    }

    void copy_rows(const float* from, std::int64_t stride, float* to) const {
        for (std::int64_t row = 0; row < call_.batch; ++row) {
            std::copy_n(from + row * stride, call_.hidden, to + row * call_.hidden);
        }
    }

    std::int64_t place(std::int64_t step) const { return call_.reverse ? call_.steps - 1 - step : step; }

    float* state_after(std::int64_t step) const { return call_.y + place(step) * call_.batch * call_.y_stride; }

    void run_panels(Range panels, int threads, float* projected, float* gates) {
        for (std::int64_t first = 0; first < call_.steps; first += chunk_steps_) {
            const Range chunk{first, std::min(first + chunk_steps_, call_.steps)};
            project(chunk, panels, projected);
            for (std::int64_t step = chunk.begin; step < chunk.end; ++step) {
                advance(step, chunk, panels, projected, gates);
                if (threads > 1) barrier_.wait(step + 1, threads);
            }
        }
    }

    // Where the projections of a step stand; those of a chunk are in the order of x.
    float* projection(std::int64_t step, Range chunk, std::int64_t panel, float* projected) const {
        const std::int64_t index = call_.reverse ? chunk.end - 1 - step : step - chunk.begin;
        return projected + (index * call_.batch * panels_ + panel) * width_;
    }

    void project(Range chunk, Range panels, float* projected) const {
        const std::int64_t first = std::min(place(chunk.begin), place(chunk.end - 1));
        const float* x = call_.x + first * call_.batch * call_.inputs;
        const std::int64_t rows = (chunk.end - chunk.begin) * call_.batch;
        const std::int64_t stride = panels_ * width_;
        for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
            for_each_tile(rows, kernels_.tile_rows, [&](Range tile) {
                product_({x + tile.begin * call_.inputs, call_.inputs,
                          call_.input_weights + panel * call_.inputs * width_, call_.inputs,
                          call_.bias + panel * width_, 0, projected + tile.begin * stride + panel * width_, stride,
                          static_cast<int>(tile.end - tile.begin)});
            });
        }
    }

    void advance(std::int64_t step, Range chunk, Range panels, float* projected, float* gates) const {
        const float* previous = step == 0 ? h0_ : state_after(step - 1);
        const std::int64_t previous_stride = step == 0 ? call_.hidden : call_.y_stride;
        const std::int64_t stride = panels_ * width_;
        const std::int64_t cells = panel_cells(call_.cell);
        for (std::int64_t i = panels.begin; i < panels.end; ++i) {
            // Back and forth, so that each step begins with the panels that the last one left in the cache.
            const std::int64_t panel = step % 2 == 0 ? i : panels.begin + panels.end - 1 - i;
            const float* projected_panel = projection(step, chunk, panel, projected);
            for_each_tile(call_.batch, kernels_.tile_rows, [&](Range tile) {
                const std::int64_t row = tile.begin;
                PanelCells finish{};
                finish.projected = projected_panel + row * stride;
                finish.projected_stride = stride;
                PanelProduct product{};
                product.start = finish.projected;
                product.start_stride = stride;
                if (call_.cell == Cell::gru) {
                    product.start = call_.hidden_bias + panel * width_;
                    product.start_stride = 0;
                }
                finish.gates = product.start;
                finish.gates_stride = product.start_stride;
                finish.rows = product.rows = static_cast<int>(tile.end - tile.begin);
                if (previous != nullptr) {
                    product.x = previous + row * previous_stride;
                    product.x_stride = previous_stride;
                    product.panel = call_.hidden_weights + panel * call_.hidden * width_;
                    product.depth = call_.hidden;
                    product.out = gates;
                    product.out_stride = width_;
                    product_(product);
                    finish.gates = gates;
                    finish.gates_stride = width_;
                    finish.previous = product.x + panel * cells;
                    finish.previous_stride = previous_stride;
                }
                if (call_.cell == Cell::lstm) finish.c = call_.c + row * call_.hidden + panel * cells;
                finish.c_stride = call_.hidden;
                finish.h = state_after(step) + row * call_.y_stride + panel * cells;
                finish.h_stride = call_.y_stride;
                finish.cells = static_cast<int>(std::min(cells, call_.hidden - panel * cells));
                kernels_.finish[static_cast<int>(call_.cell)](finish);
            });
        }
    }

    const RecurrentCall& call_;
    const RecurrentKernels& kernels_;
    void (*const product_)(const PanelProduct&);
    const std::int64_t width_;
    const std::int64_t panels_;
    const std::int64_t chunk_steps_;
    const int threads_;
    const float* const h0_;
    SpinBarrier barrier_;
};

}  // namespace

void recurrent(const RecurrentCall& call, int threads) {
    if (call.batch == 0 || call.hidden == 0) return;
    if (call.steps == 0) {
        const auto bytes = static_cast<std::size_t>(call.batch * call.hidden) * sizeof(float);
        const auto copy = [bytes](const float* from, float* to) {
            if (from == nullptr) {
                std::memset(to, 0, bytes);
            } else {
                std::memmove(to, from, bytes);
            }
        };
        copy(call.h0, call.h);
        if (call.cell == Cell::lstm) copy(call.c0, call.c);
        return;
    }
    Job(call, recurrent_kernels(active_isa()), threads).run();
}

void small_linear(const SmallLinearCall& call) {
    const RecurrentKernels& kernels = recurrent_kernels(active_isa());
    constexpr std::int64_t width = 4 * panel_lanes;
    static thread_local AlignedBuffer buffer;
    float* sums = reinterpret_cast<float*>(buffer.reserve(static_cast<std::size_t>(kernels.tile_rows * width * 4)));
    for (std::int64_t panel = 0; panel * width < call.channels; ++panel) {
        for_each_tile(call.rows, kernels.tile_rows, [&](Range tile) {
            const int rows = static_cast<int>(tile.end - tile.begin);
            kernels.product4({call.x + tile.begin * call.depth, call.depth, call.packed + panel * call.depth * width,
                              call.depth, call.bias + panel * width, 0, sums, width, rows});
            PanelCells cells{};
            cells.gates = sums;
            cells.gates_stride = width;
            cells.h = call.y + tile.begin * call.y_stride + panel * width;
            cells.h_stride = call.y_stride;
            cells.rows = rows;
            cells.cells = static_cast<int>(std::min(width, call.channels - panel * width));
            kernels.activate[static_cast<int>(call.activation)](cells);
        });
    }
}

}  // namespace taut
