// Splits a call into bands of output rows, panels of output channels and micro-tiles, and deals those to threads.
#include "convolution/convolution.h"

#include <algorithm>
#include <cstring>

#include "common/aligned_buffer.h"
#include "common/parallel.h"

namespace taut {
namespace {

// A band of quantised input stays in the second-level cache while a thread's weights pass by once.
constexpr std::int64_t band_bytes = 384 * 1024;
// Below this work per thread, waking another thread costs more than it gives.
constexpr std::int64_t multiply_adds_per_thread = 1 << 21;
// What quantising and spreading may touch past the end of a row.
constexpr std::int64_t slack_bytes = 64;

const ConvolutionKernels& kernels_of(Isa isa) {
#ifdef TAUT_X86
    if (isa == Isa::avx512_vnni) return convolution_avx512_vnni;
    if (isa == Isa::avx2) return convolution_avx2;
#endif
    (void)isa;
    return convolution_scalar;
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t align(std::int64_t bytes) { return ceil_div(bytes, 64) * 64; }

int most_blocks(const ConvolutionKernels& kernels) {
    int blocks = 1;
    while (blocks < max_tile_blocks && kernels.tile_rows[blocks + 1] > 0) ++blocks;
    return blocks;
}

// What one thread works in.
struct Scratch {
    std::uint8_t* image;       // the quantised band
    std::uint8_t* line;        // an input row without gaps
    std::int64_t* row_offset;  // of each output row of the band: bytes to its first pixel's first tap
    float* row_scale;          // of each output row of the band
    std::int64_t* runs;
    std::int8_t* panel;  // expanded weights
    std::int64_t measured = -1;  // the image whose scale is `scale`
    RowScale scale;
};

// Output rows of all images are numbered through. Threads share nothing but inputs and never wait for each other: each
// takes its part of the rows; or, where the weights outweigh the image, its part of the output channels, and then
// quantises the whole input for itself. The scale of an image needs all of it, so every thread that has a part of an
// image reads it once whole.
class Job {
   public:
    Job(const ConvolutionCall& call, const ConvolutionKernels& kernels, int threads)
        : call_(call),
          kernels_(kernels),
          out_height_(call.vertical.out()),
          out_width_(call.horizontal.out()),
          rows_(call.images * out_height_),
          taps_(call.vertical.kernel * call.horizontal.kernel),
          tap_groups_(ceil_div(call.channels, group_depth)),
          blocks_(ceil_div(call.out_channels, block_channels)),
          tile_blocks_(most_blocks(kernels)),
          block_bytes_((taps_ * tap_groups_ + trailer_groups) * group_bytes),
          element_bytes_(call.element == Element::float32 ? 4 : 2),
          pixel_bytes_(tap_groups_ * group_depth * kernels.value_bytes),
          row_bytes_(call.horizontal.padded() * pixel_bytes_),
          side_by_side_(call.horizontal.dilation == 1 || call.horizontal.kernel == 1),
          run_count_(side_by_side_ ? call.vertical.kernel : taps_),
          by_rows_(rows_ >= threads && (blocks_ < threads * tile_blocks_ || blocks_ * block_bytes_ < image_bytes())),
          threads_(useful_threads(threads)),
          band_rows_(std::clamp<std::int64_t>(band_bytes * out_height_ / image_bytes(), 1,
                                              by_rows_ ? ceil_div(rows_, threads_) : rows_)) {}

    void run() {
        static thread_local AlignedBuffer buffer;
        const std::int64_t parts = ceil_div(band_rows_, out_height_) + 1;  // images that a band may touch
        const std::int64_t image = align(
            (band_rows_ * call_.vertical.stride + parts * call_.vertical.extent()) * row_bytes_ + slack_bytes);
        const std::int64_t line = align(call_.horizontal.size * pixel_bytes_ + slack_bytes);
        const std::int64_t offsets = align(band_rows_ * sizeof(std::int64_t));
        const std::int64_t scales = align(band_rows_ * sizeof(float));
        const std::int64_t runs = align(run_count_ * sizeof(std::int64_t));
        const std::int64_t panel =
            call_.coding == WeightCoding::int8 ? 0 : tile_blocks_ * block_bytes_ + vector_groups * group_bytes;
        const std::int64_t total = image + line + offsets + scales + runs + align(panel);
        std::uint8_t* base = buffer.reserve(static_cast<std::size_t>(threads_ * total));
        parallel(threads_, [&](int thread, int count) {
            std::uint8_t* p = base + thread * total;
            Scratch scratch{};
            scratch.image = p;
            scratch.line = (p += image);
            scratch.row_offset = reinterpret_cast<std::int64_t*>(p += line);
            scratch.row_scale = reinterpret_cast<float*>(p += offsets);
            scratch.runs = reinterpret_cast<std::int64_t*>(p += scales);
            scratch.panel = reinterpret_cast<std::int8_t*>(p + runs);
            list_runs(scratch.runs);
            const Range rows = by_rows_ ? share(rows_, thread, count) : Range{0, rows_};
            const Range blocks = by_rows_ ? Range{0, blocks_} : share(blocks_, thread, count);
            if (blocks.begin == blocks.end) return;
            const int bands = static_cast<int>(ceil_div(rows.end - rows.begin, band_rows_));
            for (int index = 0; index < bands; ++index) {
                const Range part = share(rows.end - rows.begin, index, bands);
                const Range band{rows.begin + part.begin, rows.begin + part.end};
                quantise(band, scratch);
                multiply(band, blocks, scratch);
            }
        });
    }

   private:
    // Bytes of the part of a quantised image that outputs are made of.
    std::int64_t image_bytes() const {
        return ((out_height_ - 1) * call_.vertical.stride + call_.vertical.extent()) * row_bytes_;
    }

    int useful_threads(int threads) const {
        const double outputs = static_cast<double>(rows_ * out_width_) * static_cast<double>(call_.out_channels);
        const double parts = static_cast<double>(by_rows_ ? rows_ : blocks_);
        const double work = outputs * static_cast<double>(taps_ * tap_groups_ * group_depth);
        return static_cast<int>(std::clamp<double>(std::min(work / multiply_adds_per_thread, parts), 1, threads));
    }

    void list_runs(std::int64_t* runs) const {
        for (std::int64_t i = 0; i < call_.vertical.kernel; ++i) {
            const std::int64_t row = i * call_.vertical.dilation * row_bytes_;
            for (std::int64_t j = 0; j < (side_by_side_ ? 1 : call_.horizontal.kernel); ++j) {
                *runs++ = row + j * call_.horizontal.dilation * pixel_bytes_;
            }
        }
    }

    // Quantises what the output rows of a band need, image by image, with the padding around it.
    void quantise(Range band, Scratch& scratch) const {
        const std::int64_t image_elements = call_.vertical.size * call_.horizontal.size * call_.channels;
        std::uint8_t* out = scratch.image;
        for (std::int64_t row = band.begin; row < band.end;) {
            const std::int64_t image = row / out_height_;
            const Range part{row - image * out_height_,
                             std::min(band.end - image * out_height_, out_height_)};  // of the image's output rows
            const auto* x = static_cast<const std::uint8_t*>(call_.x) + image * image_elements * element_bytes_;
            if (image != scratch.measured) scratch.scale = kernels_.measure(x, call_.element, image_elements);
            scratch.measured = image;
            for (std::int64_t i = part.begin; i < part.end; ++i, ++row) {
                scratch.row_scale[row - band.begin] = scratch.scale.scale;
                scratch.row_offset[row - band.begin] =
                    (out - scratch.image) + (i - part.begin) * call_.vertical.stride * row_bytes_;
            }
            out = quantise_rows(x, part, scratch, out);
        }
    }

    std::uint8_t* quantise_rows(const std::uint8_t* x, Range part, const Scratch& scratch, std::uint8_t* out) const {
        const Axis& axis = call_.vertical;
        const std::int64_t first = part.begin * axis.stride;
        const std::int64_t end = (part.end - 1) * axis.stride + axis.extent();
        const std::int64_t x_row_bytes = call_.horizontal.size * call_.channels * element_bytes_;
        for (std::int64_t padded_row = first; padded_row < end; ++padded_row, out += row_bytes_) {
            if (padded_row % axis.stride >= axis.extent()) continue;  // between the kernels
            const std::int64_t row = padded_row - axis.padding;
            if (row < 0 || row >= axis.size || scratch.scale.inverse == 0.0f) {
                std::memset(out, kernels_.zero, row_bytes_);
            } else {
                quantise_row(x + row * x_row_bytes, scratch.scale.inverse, out, scratch.line);
            }
        }
        return out;
    }

    void quantise_row(const std::uint8_t* x, float inverse, std::uint8_t* out, std::uint8_t* line) const {
        const Axis& axis = call_.horizontal;
        std::memset(out, kernels_.zero, axis.padding * pixel_bytes_);
        out += axis.padding * pixel_bytes_;
        if (call_.channels % group_depth == 0) {
            kernels_.quantise(x, call_.element, axis.size * call_.channels, inverse, out);
        } else {
            kernels_.quantise(x, call_.element, axis.size * call_.channels, inverse, line);
            if (kernels_.value_bytes == 1) {
                spread<std::uint32_t>(line, out);
            } else {
                spread<std::uint64_t>(line, out);
            }
        }
        std::memset(out + axis.size * pixel_bytes_, kernels_.zero, axis.padding * pixel_bytes_);
    }

    // Gives pixels whose channels are no multiple of four room for one. `Group` holds four values.
    template <class Group>
    void spread(const std::uint8_t* line, std::uint8_t* out) const {
        const std::int64_t value_bytes = sizeof(Group) / group_depth;
        const auto zero = static_cast<Group>(0x0101010101010101u * kernels_.zero);
        const Group kept = (Group{1} << (call_.channels % group_depth * value_bytes * 8)) - 1;  // lowest bytes first
        for (std::int64_t i = 0; i < call_.horizontal.size; ++i, out += pixel_bytes_) {
            const std::uint8_t* pixel = line + i * call_.channels * value_bytes;
            for (std::int64_t group = 0; group < tap_groups_; ++group) {
                Group values;
                std::memcpy(&values, pixel + group * sizeof(Group), sizeof(Group));
                if (group == tap_groups_ - 1) values = (values & kept) | (zero & ~kept);
                std::memcpy(out + group * sizeof(Group), &values, sizeof(Group));
            }
        }
    }

    void multiply(Range band, Range blocks, const Scratch& scratch) const {
        const std::int64_t pixels = (band.end - band.begin) * out_width_;
        ConvolutionTile tile{};
        tile.runs = scratch.runs;
        tile.run_count = run_count_;
        tile.run_bytes = (side_by_side_ ? call_.horizontal.kernel : 1) * pixel_bytes_;
        tile.linear.block_stride = block_bytes_;
        tile.linear.groups = taps_ * tap_groups_;
        tile.linear.y_stride = call_.out_channels * element_bytes_;
        tile.linear.activation = call_.activation;
        tile.linear.element = call_.element;
        // Blocks are dealt evenly to panels, and pixels to tiles: never a thin last one.
        const int panels = static_cast<int>(ceil_div(blocks.end - blocks.begin, tile_blocks_));
        for (int panel = 0; panel < panels; ++panel) {
            const Range part = share(blocks.end - blocks.begin, panel, panels);
            const std::int64_t block = blocks.begin + part.begin;
            const std::int64_t channel = block * block_channels;
            tile.linear.blocks = static_cast<int>(part.end - part.begin);
            tile.linear.channels =
                static_cast<int>(std::min(tile.linear.blocks * block_channels, call_.out_channels - channel));
            tile.linear.packed = weights(block, tile.linear.blocks, scratch);
            tile.linear.scales = call_.scales + channel;
            tile.linear.bias = call_.bias == nullptr ? nullptr : call_.bias + channel;
            tile.linear.y = static_cast<std::uint8_t*>(call_.y) +
                            (band.begin * out_width_ * call_.out_channels + channel) * element_bytes_;
            multiply_panel(tile, pixels, scratch);
        }
    }

    void multiply_panel(ConvolutionTile& tile, std::int64_t pixels, const Scratch& scratch) const {
        const int tiles = static_cast<int>(ceil_div(pixels, kernels_.tile_rows[tile.linear.blocks]));
        const std::int64_t step = call_.horizontal.stride * pixel_bytes_;
        tile.linear.row_scales = tile.row_scales;
        std::int64_t row = 0;
        std::int64_t column = 0;
        for (int index = 0; index < tiles; ++index) {
            const Range part = share(pixels, index, tiles);
            tile.linear.rows = static_cast<int>(part.end - part.begin);
            for (int i = 0; i < tile.linear.rows; ++i) {
                tile.pixels[i] = scratch.image + scratch.row_offset[row] + column * step;
                tile.row_scales[i] = scratch.row_scale[row];
                if (++column == out_width_) {
                    column = 0;
                    ++row;
                }
            }
            kernels_.tile(tile);
            tile.linear.y += tile.linear.rows * tile.linear.y_stride;
        }
    }

    // The weights of a panel as the tiles read them.
    const std::int8_t* weights(std::int64_t first, int blocks, const Scratch& scratch) const {
        if (call_.coding == WeightCoding::int8) return call_.packed + first * block_bytes_;
        const std::int64_t vectors = ceil_div(call_.channels, vector_channels);
        const std::int64_t values = taps_ * vectors * (vector_code_bytes + vector_scale_bytes);
        const std::int64_t trailer = trailer_groups * group_bytes;
        for (int i = 0; i < blocks; ++i) {
            const std::int8_t* packed = call_.packed + (first + i) * (values + trailer);
            std::int8_t* out = scratch.panel + i * block_bytes_;
            kernels_.expand({packed, taps_, vectors, tap_groups_, out});
            std::memcpy(out + block_bytes_ - trailer, packed + values, trailer);
        }
        return scratch.panel;
    }

    const ConvolutionCall& call_;
    const ConvolutionKernels& kernels_;
    const std::int64_t out_height_;
    const std::int64_t out_width_;
    const std::int64_t rows_;
    const std::int64_t taps_;
    const std::int64_t tap_groups_;
    const std::int64_t blocks_;
    const int tile_blocks_;
    const std::int64_t block_bytes_;
    const std::int64_t element_bytes_;
    const std::int64_t pixel_bytes_;
    const std::int64_t row_bytes_;
    const bool side_by_side_;
    const std::int64_t run_count_;
    const bool by_rows_;
    const int threads_;
    const std::int64_t band_rows_;
};

}  // namespace

void convolution(const ConvolutionCall& call, int threads) {
    if (call.images == 0 || call.out_channels == 0) return;
    Job(call, kernels_of(active_isa()), threads).run();
}

}  // namespace taut
