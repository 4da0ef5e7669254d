// Non-maximum suppression.
#include <algorithm>
#include <cmath>
#include <new>
#include <numeric>
#include <vector>

#include "vm/kernel_message.h"
#include "vm/kernels/operands.h"
#include "vm/kernels/prebuilt.h"

namespace taut::vm {
namespace {

struct Box4 {
    float x1, y1, x2, y2;

    float area() const { return (x2 - x1) * (y2 - y1); }
    float overlap(const Box4& other) const {
        const float width = std::max(0.0f, std::min(x2, other.x2) - std::max(x1, other.x1));
        const float height = std::max(0.0f, std::min(y2, other.y2) - std::max(y1, other.y1));
        const float common = width * height;
        return common / (area() + other.area() - common);
    }
};

int suppress(const Buffer& boxes, const Buffer& scores, float threshold, const Buffer& out, const Buffer& count) {
    const std::int64_t total = scores.dim[0].extent;
    std::vector<Box4> all(static_cast<std::size_t>(total));
    std::vector<float> keys(static_cast<std::size_t>(total));
    for (std::int64_t i = 0; i < total; ++i) {
        const std::int64_t row = i * boxes.dim[1].stride;
        const std::int64_t step = boxes.dim[0].stride;
        all[static_cast<std::size_t>(i)] = {at<float>(boxes, row), at<float>(boxes, row + step),
                                            at<float>(boxes, row + 2 * step), at<float>(boxes, row + 3 * step)};
        keys[static_cast<std::size_t>(i)] = at<float>(scores, i * scores.dim[0].stride);
    }
    std::vector<std::size_t> order(all.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        // NaN first, which keeps this an order.
        if (std::isnan(keys[a]) || std::isnan(keys[b])) return std::isnan(keys[a]) && !std::isnan(keys[b]);
        return keys[a] > keys[b];
    });
    std::vector<bool> suppressed(all.size());
    std::int64_t kept = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
        if (suppressed[order[i]]) continue;
        at<std::int64_t>(out, kept++ * out.dim[0].stride) = static_cast<std::int64_t>(order[i]);
        for (std::size_t j = i + 1; j < order.size(); ++j) {
            if (!suppressed[order[j]] && all[order[i]].overlap(all[order[j]]) > threshold) suppressed[order[j]] = true;
        }
    }
    at<std::int64_t>(count, 0) = kept;
    return 0;
}

int nms(void** arguments) {
    const Buffer& boxes = operand(arguments, 0);
    const Buffer& scores = operand(arguments, 1);
    const Buffer& out = operand(arguments, 3);
    const Buffer& count = operand(arguments, 4);
    const std::int32_t total = scores.dim[0].extent;
    if (boxes.dim[0].extent != 4 || boxes.dim[1].extent != total || out.dim[0].extent != total ||
        count.dim[0].extent != 1) {
        return report_kernel_error("the shapes are not (N, 4), (N,), (), (N,) and (1,)");
    }
    try {
        return suppress(boxes, scores, at<float>(operand(arguments, 2), 0), out, count);
    } catch (const std::bad_alloc&) {
        return report_kernel_error("memory is exhausted");
    }
}

bool nms_fits(const std::vector<OperandType>& operands) {
    if (operands.size() != 5) return false;
    for (int i = 0; i < 3; ++i) {
        if (operands[i].dtype != DType::float32) return false;
    }
    for (int i = 3; i < 5; ++i) {
        if (operands[i].dtype != DType::int64 || operands[i].rank != 1 || !operands[i].written) return false;
    }
    return operands[0].rank == 2 && operands[1].rank == 1 && operands[2].rank == 0;
}

}  // namespace

const Prebuilt nms_kernel{"nms", &nms, &nms_fits,
                          "boxes (N, 4), scores (N) and threshold () in float32, out (N) and count (1) in int64"};

}  // namespace taut::vm
