// arange, cast, fill.
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "vm/float16.h"
#include "vm/kernel_message.h"
#include "vm/kernels/operands.h"
#include "vm/kernels/prebuilt.h"

namespace taut::vm {
namespace {

struct BFloat16 {
    std::uint16_t bits;
};
struct Float16 {
    std::uint16_t bits;
};
enum class Boolean : std::uint8_t {};

// Calls function with a value of the type that holds elements of the dtype.
template <class Function>
int with_type(DType dtype, const Function& function) {
    switch (dtype) {
        case DType::float32: return function(float{});
        case DType::float64: return function(double{});
        case DType::bfloat16: return function(BFloat16{});
        case DType::float16: return function(Float16{});
        case DType::int64: return function(std::int64_t{});
        case DType::int32: return function(std::int32_t{});
        case DType::int16: return function(std::int16_t{});
        case DType::int8: return function(std::int8_t{});
        case DType::uint8: return function(std::uint8_t{});
        case DType::boolean: return function(Boolean{});
    }
    return 1;
}

template <class From>
auto widen(From value) {
    if constexpr (std::is_same_v<From, BFloat16>) {
        return from_bfloat16(value.bits);
    } else if constexpr (std::is_same_v<From, Float16>) {
        return from_float16(value.bits);
    } else if constexpr (std::is_same_v<From, Boolean>) {
        return static_cast<std::int64_t>(value != Boolean{});
    } else if constexpr (std::is_integral_v<From>) {
        return static_cast<std::int64_t>(value);
    } else {
        return value;
    }
}

template <class To, class From>
To narrow(From value) {
    if constexpr (std::is_same_v<To, BFloat16>) {
        return {to_bfloat16(static_cast<float>(value))};
    } else if constexpr (std::is_same_v<To, Float16>) {
        return {to_float16(static_cast<float>(value))};
    } else if constexpr (std::is_same_v<To, Boolean>) {
        return static_cast<Boolean>(value != 0);
    } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
        // Beyond the range there is no right answer; this one is defined.
        constexpr double limit = 9223372036854775808.0;
        if (!(value >= -limit && value < limit)) return static_cast<To>(std::numeric_limits<std::int64_t>::min());
        return static_cast<To>(static_cast<std::int64_t>(value));
    } else {
        return static_cast<To>(value);
    }
}

int cast(void** arguments) {
    const Buffer& x = operand(arguments, 0);
    const Buffer& out = operand(arguments, 1);
    if (!equal_extents(x, out)) return report_kernel_error("the result does not have the shape of the operand");
    return with_type(dtype_of(x), [&](auto from_element) {
        return with_type(dtype_of(out), [&](auto to_element) {
            using From = decltype(from_element);
            using To = decltype(to_element);
            if (x.dimensions == 0) {
                at<To>(out, 0) = narrow<To>(widen(at<From>(x, 0)));
                return 0;
            }
            const std::int64_t count = x.dim[0].extent;
            const std::int64_t in = x.dim[0].stride;
            const std::int64_t step = out.dim[0].stride;
            return for_each(x, out, 1, 1, [&](std::int64_t from, std::int64_t to, const std::int64_t*) {
                if (count == 0) return 0;
                const From* source = &at<From>(x, from);
                To* target = &at<To>(out, to);
                for (std::int64_t i = 0; i < count; ++i) target[i * step] = narrow<To>(widen(source[i * in]));
                return 0;
            });
        });
    });
}

bool cast_fits(const std::vector<OperandType>& operands) {
    return operands.size() == 2 && operands[0].rank == operands[1].rank && operands[1].written;
}

int fill(void** arguments) {
    const Buffer& value = operand(arguments, 0);
    const Buffer& out = operand(arguments, 1);
    const auto bytes = static_cast<std::size_t>(traits(dtype_of(out)).bytes);
    return for_each(out, out, 0, 0, [&](std::int64_t offset, std::int64_t, const std::int64_t*) {
        std::memcpy(out.host + offset * static_cast<std::int64_t>(bytes), value.host, bytes);
        return 0;
    });
}

bool fill_fits(const std::vector<OperandType>& operands) {
    return operands.size() == 2 && operands[0].rank == 0 && operands[0].dtype == operands[1].dtype &&
           operands[1].written;
}

template <class Element>
int arange_of(void** arguments) {
    const Buffer& out = operand(arguments, 2);
    const Element start = at<Element>(operand(arguments, 0), 0);
    const Element step = at<Element>(operand(arguments, 1), 0);
    for (std::int64_t i = 0; i < out.dim[0].extent; ++i) {
        Element& target = at<Element>(out, i * out.dim[0].stride);
        if constexpr (std::is_integral_v<Element>) {
            // Wraps instead of overflowing.
            using Unsigned = std::make_unsigned_t<Element>;
            target = static_cast<Element>(static_cast<Unsigned>(start) + static_cast<Unsigned>(i) * static_cast<Unsigned>(step));
        } else {
            target = static_cast<Element>(start + static_cast<double>(i) * step);
        }
    }
    return 0;
}

int arange(void** arguments) {
    switch (dtype_of(operand(arguments, 2))) {
        case DType::float32: return arange_of<float>(arguments);
        case DType::int32: return arange_of<std::int32_t>(arguments);
        default: return arange_of<std::int64_t>(arguments);
    }
}

bool arange_fits(const std::vector<OperandType>& operands) {
    if (operands.size() != 3) return false;
    const DType dtype = operands[2].dtype;
    return operands[0].rank == 0 && operands[1].rank == 0 && operands[2].rank == 1 && operands[2].written &&
           operands[0].dtype == dtype && operands[1].dtype == dtype &&
           (dtype == DType::float32 || dtype == DType::int32 || dtype == DType::int64);
}

}  // namespace

const Prebuilt cast_kernel{"cast", &cast, &cast_fits, "x and out of one rank"};
const Prebuilt fill_kernel{"fill", &fill, &fill_fits, "value () and out of one dtype"};
const Prebuilt arange_kernel{"arange", &arange, &arange_fits,
                             "start (), step () and out (N) of one dtype: float32, int32 or int64"};

}  // namespace taut::vm
