// Splits a call into row chunks and micro-tiles, and deals those to threads.
#include "int8_linear/int8_linear.h"

#include <algorithm>

#include "common/aligned_buffer.h"
#include "common/parallel.h"

namespace taut {
namespace {

// A chunk of quantised rows stays in the second-level cache while a thread's weights pass by once.
constexpr std::int64_t chunk_bytes = 512 * 1024;
// With weights to expand, fewer and larger chunks win, because each expands them all; this is with the expanded panel.
constexpr std::int64_t expanding_chunk_bytes = 1100 * 1024;
// Below this work per thread, waking another thread costs more than it gives.
constexpr std::int64_t multiply_adds_per_thread = 1 << 21;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Threads share nothing but inputs and never wait for each other. Each takes its part of the rows; or, where rows are
// few, its part of the channels, and then quantises all rows for itself, which is little work beside the product.
class Job {
   public:
    Job(const Int8LinearCall& call, const Int8LinearKernels& kernels, int threads)
        : call_(call),
          kernels_(kernels),
          groups_(call.groups),
          panel_stride_((groups_ + trailer_groups) * group_bytes),
          // Rows start on a cache line, and not a multiple of 4096 bytes apart, which would collide in the cache.
          x_stride_(ceil_div(groups_ * kernels.group_size, 64) * 64 + 64),
          element_bytes_(call.element == Element::float32 ? 4 : 2),
          blocks_(ceil_div(call.channels, block_channels)),
          least_chunk_(4 * kernels.tile_rows),
          by_rows_(call.rows >= threads * least_chunk_ || blocks_ < threads * kernels.tile_blocks),
          threads_(useful_threads(threads)),
          chunk_rows_(std::min(by_rows_ ? ceil_div(call.rows, threads_) : call.rows,
                               std::max(least_chunk_, most_chunk_bytes() / x_stride_))) {}

    void run() {
        static thread_local AlignedBuffer buffer;
        const std::int64_t scratch_bytes = panel_bytes() + ceil_div(chunk_rows_ * (x_stride_ + 4), 64) * 64;
        std::uint8_t* scratch = buffer.reserve(static_cast<std::size_t>(threads_ * scratch_bytes));
        parallel(threads_, [&](int thread, int count) {
            const Range rows = by_rows_ ? share(call_.rows, thread, count) : Range{0, call_.rows};
            const Range blocks = by_rows_ ? Range{0, blocks_} : share(blocks_, thread, count);
            for (std::int64_t first = rows.begin; first < rows.end; first += chunk_rows_) {
                const Range chunk{first, std::min(first + chunk_rows_, rows.end)};
                quantise_and_multiply(chunk, blocks, scratch + thread * scratch_bytes);
            }
        });
    }

   private:
    int useful_threads(int threads) const {
        const std::int64_t work = call_.rows * call_.channels * std::max<std::int64_t>(call_.depth, 1);
        const std::int64_t parts = by_rows_ ? ceil_div(call_.rows, kernels_.tile_rows) : blocks_;
        return static_cast<int>(
            std::clamp<std::int64_t>(std::min(work / multiply_adds_per_thread, parts), 1, threads));
    }

    std::int64_t most_chunk_bytes() const {
        return kernels_.expand == nullptr ? chunk_bytes : expanding_chunk_bytes - panel_bytes();
    }

    std::int64_t panel_bytes() const { return kernels_.expand == nullptr ? 0 : kernels_.tile_blocks * panel_stride_; }

    void quantise_and_multiply(Range chunk, Range blocks, std::uint8_t* scratch) const {
        const std::int64_t rows = chunk.end - chunk.begin;
        auto* panel = reinterpret_cast<std::int8_t*>(scratch);
        scratch += panel_bytes();
        float* row_scales = reinterpret_cast<float*>(scratch + chunk_rows_ * x_stride_);
        const auto* x = static_cast<const std::uint8_t*>(call_.x) + chunk.begin * call_.depth * element_bytes_;
        for (std::int64_t row = 0; row < rows; ++row) {
            row_scales[row] = kernels_.quantise(x + row * call_.depth * element_bytes_, call_.element, call_.depth,
                                                groups_, scratch + row * x_stride_);
        }

        Int8LinearTile tile{};
        tile.x_stride = x_stride_;
        tile.block_stride = kernels_.expand == nullptr ? call_.block_stride : panel_stride_;
        tile.groups = groups_;
        tile.y_stride = call_.channels * element_bytes_;
        tile.activation = call_.activation;
        tile.element = call_.element;
        // Rows are dealt evenly: 128 rows in tiles of 6 become 18 tiles of 6 and 4 of 5, never a thin last one.
        const int tiles = static_cast<int>(ceil_div(rows, kernels_.tile_rows));
        for (std::int64_t block = blocks.begin; block < blocks.end; block += kernels_.tile_blocks) {
            const std::int64_t channel = block * block_channels;
            tile.packed = call_.packed + block * call_.block_stride;
            tile.blocks = static_cast<int>(std::min<std::int64_t>(kernels_.tile_blocks, blocks.end - block));
            if (kernels_.expand != nullptr) {
                for (int i = 0; i < tile.blocks; ++i) {
                    kernels_.expand(tile.packed + i * call_.block_stride, groups_, panel + i * panel_stride_);
                }
                tile.packed = panel;
            }
            tile.channels = static_cast<int>(std::min(tile.blocks * block_channels, call_.channels - channel));
            tile.scales = call_.scales + channel;
            tile.bias = call_.bias == nullptr ? nullptr : call_.bias + channel;
            for (int index = 0; index < tiles; ++index) {
                const Range part = share(rows, index, tiles);
                tile.x = scratch + part.begin * x_stride_;
                tile.row_scales = row_scales + part.begin;
                tile.rows = static_cast<int>(part.end - part.begin);
                tile.y = static_cast<std::uint8_t*>(call_.y) +
                         ((chunk.begin + part.begin) * call_.channels + channel) * element_bytes_;
                kernels_.tile(tile);
            }
        }
    }

    const Int8LinearCall& call_;
    const Int8LinearKernels& kernels_;
    const std::int64_t groups_;
    const std::int64_t panel_stride_;
    const std::int64_t x_stride_;
    const std::int64_t element_bytes_;
    const std::int64_t blocks_;
    const std::int64_t least_chunk_;
    const bool by_rows_;
    const int threads_;
    const std::int64_t chunk_rows_;
};

}  // namespace

const Int8LinearKernels& int8_linear_kernels(Isa isa) {
#ifdef TAUT_X86
    if (isa == Isa::avx512_vnni) return int8_linear_avx512_vnni;
    if (isa == Isa::avx2) return int8_linear_avx2;
#endif
    (void)isa;
    return int8_linear_scalar;
}

void run_linear(const Int8LinearCall& call, const Int8LinearKernels& kernels, int threads) {
    if (call.rows == 0 || call.channels == 0) return;
    Job(call, kernels, threads).run();
}

void int8_linear(Int8LinearCall call, int threads) {
    call.groups = ceil_div(call.depth, group_depth);
    call.block_stride = (call.groups + trailer_groups) * group_bytes;
    run_linear(call, int8_linear_kernels(active_isa()), threads);
}

}  // namespace taut
