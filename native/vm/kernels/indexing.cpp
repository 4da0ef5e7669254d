// embedding, nonzero, argmax.
#include <cmath>
#include <cstring>
#include <string>

#include "vm/kernel_message.h"
#include "vm/kernels/operands.h"
#include "vm/kernels/prebuilt.h"

namespace taut::vm {
namespace {

int embedding(void** arguments) {
    const Buffer& table = operand(arguments, 0);
    const Buffer& index = operand(arguments, 1);
    const Buffer& out = operand(arguments, 2);
    const std::int64_t rows = table.dim[1].extent;
    const std::int64_t width = table.dim[0].extent;
    if (!equal_extents(index, out, 0, 1) || out.dim[0].extent != width) {
        return report_kernel_error("the result does not have the shape of the index and the width of the table");
    }
    const std::int64_t bytes = traits(dtype_of(table)).bytes;
    const bool dense = table.dim[0].stride == 1 && out.dim[0].stride == 1;
    return for_each(index, out, 0, 1, [&](std::int64_t from, std::int64_t to, const std::int64_t*) {
        const std::int64_t row = at<std::int64_t>(index, from);
        if (row < 0 || row >= rows) {
            const std::string text = "index " + std::to_string(row) + " is outside a table of " + std::to_string(rows);
            return report_kernel_error(text.c_str());
        }
        const std::uint8_t* source = table.host + row * table.dim[1].stride * bytes;
        std::uint8_t* target = out.host + to * bytes;
        if (dense) {
            std::memcpy(target, source, static_cast<std::size_t>(width * bytes));
        } else {
            for (std::int64_t i = 0; i < width; ++i) {
                std::memcpy(target + i * out.dim[0].stride * bytes, source + i * table.dim[0].stride * bytes,
                            static_cast<std::size_t>(bytes));
            }
        }
        return 0;
    });
}

bool embedding_fits(const std::vector<OperandType>& operands) {
    return operands.size() == 3 && operands[0].rank == 2 && operands[1].dtype == DType::int64 &&
           operands[2].rank == operands[1].rank + 1 && operands[2].dtype == operands[0].dtype && operands[2].written;
}

bool is_zero(const std::uint8_t* element, DType dtype) {
    switch (dtype) {
        case DType::float32: return *reinterpret_cast<const float*>(element) == 0;
        case DType::float64: return *reinterpret_cast<const double*>(element) == 0;
        case DType::bfloat16:
        case DType::float16: return (*reinterpret_cast<const std::uint16_t*>(element) & 0x7fff) == 0;
        case DType::int64: return *reinterpret_cast<const std::int64_t*>(element) == 0;
        case DType::int32: return *reinterpret_cast<const std::int32_t*>(element) == 0;
        case DType::int16: return *reinterpret_cast<const std::int16_t*>(element) == 0;
        default: return *element == 0;
    }
}

int nonzero(void** arguments) {
    const Buffer& x = operand(arguments, 0);
    const Buffer& out = operand(arguments, 1);
    const Buffer& count = operand(arguments, 2);
    const std::int64_t capacity = out.dim[1].extent;
    if (out.dim[0].extent != x.dimensions || count.dim[0].extent != 1) {
        return report_kernel_error("the results do not have the shapes (capacity, rank) and (1,)");
    }
    const DType dtype = dtype_of(x);
    const std::int64_t bytes = traits(dtype).bytes;
    std::int64_t found = 0;
    const int code = for_each(x, x, 0, 0, [&](std::int64_t offset, std::int64_t, const std::int64_t* index) {
        if (is_zero(x.host + offset * bytes, dtype)) return 0;
        if (found == capacity) return report_kernel_error("there are more elements than the result has rows");
        for (int i = 0; i < x.dimensions; ++i) {
            at<std::int64_t>(out, found * out.dim[1].stride + i * out.dim[0].stride) = index[x.dimensions - 1 - i];
        }
        ++found;
        return 0;
    });
    at<std::int64_t>(count, 0) = found;
    return code;
}

bool nonzero_fits(const std::vector<OperandType>& operands) {
    return operands.size() == 3 && operands[1].dtype == DType::int64 && operands[1].rank == 2 &&
           operands[1].written && operands[2].dtype == DType::int64 && operands[2].rank == 1 && operands[2].written;
}

int argmax(void** arguments) {
    const Buffer& x = operand(arguments, 0);
    const Buffer& out = operand(arguments, 1);
    if (!equal_extents(x, out, 1, 0)) return report_kernel_error("the result does not have the shape of the rows");
    const std::int64_t width = x.dim[0].extent;
    if (width == 0) return elements(out) == 0 ? 0 : report_kernel_error("a row without elements has no largest one");
    return for_each(x, out, 1, 0, [&](std::int64_t from, std::int64_t to, const std::int64_t*) {
        const float* row = &at<float>(x, from);
        std::int64_t best = 0;
        for (std::int64_t i = 1; i < width && !std::isnan(row[best * x.dim[0].stride]); ++i) {
            const float value = row[i * x.dim[0].stride];
            if (value > row[best * x.dim[0].stride] || std::isnan(value)) best = i;
        }
        at<std::int64_t>(out, to) = best;
        return 0;
    });
}

bool argmax_fits(const std::vector<OperandType>& operands) {
    return operands.size() == 2 && operands[0].dtype == DType::float32 && operands[0].rank >= 1 &&
           operands[1].dtype == DType::int64 && operands[1].rank == operands[0].rank - 1 && operands[1].written;
}

}  // namespace

const Prebuilt embedding_kernel{"embedding", &embedding, &embedding_fits,
                                "table (N, D), index int64, out of the table's dtype with one dimension more than index"};
const Prebuilt nonzero_kernel{"nonzero", &nonzero, &nonzero_fits, "x, out int64 (capacity, rank), count int64 (1)"};
const Prebuilt argmax_kernel{"argmax", &argmax, &argmax_fits, "x float32 (..., N), out int64 (...)"};

}  // namespace taut::vm
