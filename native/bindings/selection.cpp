// Checks the arguments of the selection kernels and calls them.
#include "selection/selection.h"

#include <limits>
#include <string>

#include "bindings/bindings.h"
#include "bindings/kernel_error.h"
#include "bindings/tensor_view.h"
#include "selection/entry_message.h"

namespace nb = nanobind;

namespace taut {
namespace {

constexpr std::int64_t most_elements = std::numeric_limits<std::int32_t>::max();

TensorView read(nb::handle object, const char* name, DataType dtype) {
    const TensorView view = view_tensor(object, name);
    view.require_dtype(dtype);
    view.require_contiguous();
    if (view.elements() > most_elements) {
        throw KernelError(std::string(name) + ": has " + std::to_string(view.elements()) + " elements",
                          "at most 2147483647, so that an index fits 32 bits", "split the tensor");
    }
    return view;
}

float* read_floats(nb::handle object, const char* name, std::int64_t& size) {
    const TensorView view = read(object, name, DataType::float32);
    size = view.elements();
    return static_cast<float*>(view.data);
}

// A tensor that has to be as long as another one.
template <class Element>
Element* read_sized(nb::handle object, const char* name, DataType dtype, std::int64_t size, const char* other) {
    const TensorView view = read(object, name, dtype);
    if (view.elements() != size) {
        throw KernelError(std::string(name) + ": has " + std::to_string(view.elements()) + " elements",
                          std::to_string(size) + ", as " + other + " needs", "pass tensors that belong together");
    }
    return static_cast<Element*>(view.data);
}

void require_threshold(double threshold) {
    if (!(threshold >= 0.0)) {
        throw KernelError("threshold: got " + std::to_string(threshold), "a number, 0 or more",
                          "magnitudes are compared with it");
    }
}

void require_bits(int bits) {
    if (bits != 2 && bits != 4 && bits != 8) {
        throw KernelError("bits: got " + std::to_string(bits), "2, 4 or 8", "choose one of these");
    }
}

void run_top_k(nb::handle gradient, nb::handle x, nb::handle indices, nb::handle values, bool clear, int threads) {
    TopKCall call{};
    call.x = read_floats(x, gradient.is_none() ? "x" : "residual", call.size);
    if (!gradient.is_none()) {
        call.gradient = read_sized<float>(gradient, "gradient", DataType::float32, call.size, "residual");
    }
    call.values = read_floats(values, "values", call.k);
    call.indices = read_sized<std::int32_t>(indices, "indices", DataType::int32, call.k, "values");
    call.clear = clear;
    if (call.k > call.size) {
        throw KernelError("k: got " + std::to_string(call.k), "0 to " + std::to_string(call.size) + ", the elements",
                          "ask for fewer");
    }
    const nb::gil_scoped_release released;
    top_k(call, threads);
}

nb::tuple to_tuple(const Moments& moments) {
    return nb::make_tuple(moments.count, moments.mean, moments.second, moments.mean_log, moments.maximum,
                          moments.nonzero);
}

nb::tuple run_accumulate_moments(nb::handle gradient_object, nb::handle residual, bool log, nb::handle histogram,
                                 int threads) {
    std::int64_t size = 0;
    float* x = read_floats(residual, "residual", size);
    const auto* gradient = read_sized<float>(gradient_object, "gradient", DataType::float32, size, "residual");
    auto* bins = histogram.is_none() ? nullptr
                                     : read_sized<std::int32_t>(histogram, "histogram", DataType::int32, magnitude_bins,
                                                                "a bin for each 16 bits");
    Moments moments;
    {
        const nb::gil_scoped_release released;
        moments = accumulate_moments(gradient, x, size, log, bins, threads);
    }
    return to_tuple(moments);
}

nb::tuple run_exceedance_moments(nb::handle x_object, double threshold, bool log, int threads) {
    std::int64_t size = 0;
    const float* x = read_floats(x_object, "x", size);
    require_threshold(threshold);
    Moments moments;
    {
        const nb::gil_scoped_release released;
        moments = exceedance_moments(x, size, threshold, log, threads);
    }
    return to_tuple(moments);
}

std::int64_t run_select_above(nb::handle x_object, double threshold, nb::handle indices_object,
                              nb::handle values_object, bool clear, int threads) {
    std::int64_t size = 0, capacity = 0;
    float* x = read_floats(x_object, "residual", size);
    require_threshold(threshold);
    float* values = read_floats(values_object, "values", capacity);
    auto* indices = read_sized<std::int32_t>(indices_object, "indices", DataType::int32, capacity, "values");
    const nb::gil_scoped_release released;
    return select_above(x, size, threshold, clear, capacity, indices, values, threads);
}

void run_scatter_add(nb::handle dense_object, nb::handle indices_object, nb::handle values_object, float scale) {
    std::int64_t size = 0, count = 0;
    float* dense = read_floats(dense_object, "dense", size);
    const float* values = read_floats(values_object, "values", count);
    const auto* indices = read_sized<std::int32_t>(indices_object, "indices", DataType::int32, count, "values");
    std::int64_t bad = 0;
    {
        const nb::gil_scoped_release released;
        bad = first_outside(indices, count, size);
        if (bad == count) return scatter_add(dense, indices, values, count, scale);
    }
    throw KernelError("indices: entry " + std::to_string(bad) + " is " + std::to_string(indices[bad]),
                      "0 to " + std::to_string(size - 1) + ", the elements of dense",
                      "nothing was added; check that both sides mean the same tensor");
}

void run_pack_signs(nb::handle x_object, nb::handle packed_object, int threads) {
    std::int64_t size = 0;
    const float* x = read_floats(x_object, "x", size);
    auto* packed = read_sized<std::uint8_t>(packed_object, "packed", DataType::uint8, (size + 7) / 8, "x");
    const nb::gil_scoped_release released;
    pack_signs(x, size, packed, threads);
}

void run_unpack_majority(nb::handle packed_object, float scale, nb::handle y_object, int threads) {
    std::int64_t size = 0;
    float* y = read_floats(y_object, "out", size);
    const TensorView packed = read(packed_object, "packed", DataType::uint8);
    const std::int64_t rows = packed.dimensions == 2 ? packed.shape[0] : 0;
    packed.require_shape({rows, (size + 7) / 8});
    const nb::gil_scoped_release released;
    unpack_majority(static_cast<const std::uint8_t*>(packed.data), rows, (size + 7) / 8, size, scale, y, threads);
}

std::int64_t step_count(std::int64_t size) { return (size + quantise_block - 1) / quantise_block; }

void run_quantise_stochastic(nb::handle x_object, int bits, std::uint64_t seed, nb::handle codes_object,
                             nb::handle steps_object, int threads) {
    std::int64_t size = 0;
    const float* x = read_floats(x_object, "x", size);
    require_bits(bits);
    auto* codes = read_sized<std::uint8_t>(codes_object, "codes", DataType::uint8, (size * bits + 7) / 8, "x");
    auto* steps = read_sized<float>(steps_object, "steps", DataType::float32, step_count(size), "x");
    const nb::gil_scoped_release released;
    quantise_stochastic(x, size, bits, seed, codes, steps, threads);
}

void run_dequantise_add(nb::handle dense_object, nb::handle codes_object, nb::handle steps_object, int bits,
                        float scale, int threads) {
    std::int64_t size = 0;
    float* dense = read_floats(dense_object, "dense", size);
    require_bits(bits);
    const auto* codes =
        read_sized<std::uint8_t>(codes_object, "codes", DataType::uint8, (size * bits + 7) / 8, "dense");
    const auto* steps = read_sized<float>(steps_object, "steps", DataType::float32, step_count(size), "dense");
    const nb::gil_scoped_release released;
    dequantise_add(codes, steps, size, bits, scale, dense, threads);
}

[[noreturn]] void refuse_code(const std::string& what) {
    throw KernelError("encoded: " + what, "what was encoded, for a tensor of this length and so many entries",
                      "the message was damaged, or the ranks disagree about the tensor");
}

void refuse(IndexFault fault, std::int64_t length) {
    switch (fault) {
        case IndexFault::none: return;
        case IndexFault::truncated: refuse_code("ends within a block of indices");
        case IndexFault::parameter: refuse_code("a block of indices has an unknown parameter");
        case IndexFault::unary: refuse_code("a block does not hold as many indices as it should");
        case IndexFault::range: refuse_code("an index is not below " + std::to_string(length));
        case IndexFault::trailing: refuse_code("goes on behind its last block of indices");
    }
}

void refuse(ValueFault fault) {
    switch (fault) {
        case ValueFault::none: return;
        case ValueFault::truncated: refuse_code("ends within a block of values");
        case ValueFault::width: refuse_code("a block of values has an unknown width");
        case ValueFault::exponent: refuse_code("an exponent is too large");
        case ValueFault::trailing: refuse_code("goes on behind its last block of values");
    }
}

void require_ascending(const std::int32_t* indices, std::int64_t count, std::int64_t length) {
    const std::int64_t bad = first_unordered(indices, count, length);
    if (bad == count) return;
    throw KernelError("indices: entry " + std::to_string(bad) + " is " + std::to_string(indices[bad]),
                      "ascending indices from 0 to " + std::to_string(length - 1), "sort them, without duplicates");
}

std::int64_t run_encode_indices(nb::handle indices_object, std::int64_t length, nb::handle code_object) {
    const TensorView indices = read(indices_object, "indices", DataType::int32);
    const std::int64_t count = indices.elements();
    const auto* data = static_cast<const std::int32_t*>(indices.data);
    auto* code = read_sized<std::uint8_t>(code_object, "code", DataType::uint8, index_code_bound(count), "indices");
    const nb::gil_scoped_release released;
    require_ascending(data, count, length);
    return encode_indices(data, count, code);
}

std::int64_t run_index_count(nb::handle code_object) {
    const TensorView code = read(code_object, "encoded", DataType::uint8);
    const std::int64_t count = index_count(static_cast<const std::uint8_t*>(code.data), code.elements());
    if (count < 0) refuse_code("is shorter than the number of indices that it claims");
    return count;
}

void run_decode_indices(nb::handle code_object, std::int64_t length, nb::handle indices_object) {
    const std::int64_t count = run_index_count(code_object);
    const TensorView code = read(code_object, "encoded", DataType::uint8);
    auto* indices = read_sized<std::int32_t>(indices_object, "indices", DataType::int32, count, "encoded");
    const nb::gil_scoped_release released;
    refuse(decode_indices(static_cast<const std::uint8_t*>(code.data), code.elements(), length, count, indices), length);
}

// Of any length, since a value has several of them.
TensorView read_bytes(nb::handle object, const char* name) {
    const TensorView view = view_tensor(object, name);
    view.require_dtype(DataType::uint8);
    view.require_contiguous();
    return view;
}

// Two-byte or four-byte floats, by the number of their bytes.
void require_width(int width) {
    if (width != 2 && width != 4) {
        throw KernelError("width: got " + std::to_string(width), "2 or 4 bytes a value", "choose one of these");
    }
}

std::int64_t value_count(const TensorView& values, int width) {
    if (values.elements() % width == 0) return values.elements() / width;
    throw KernelError("values: has " + std::to_string(values.elements()) + " bytes",
                      "a multiple of " + std::to_string(width), "pass whole values");
}

std::int64_t run_encode_values(nb::handle values_object, int width, nb::handle code_object) {
    require_width(width);
    const TensorView values = read_bytes(values_object, "values");
    const TensorView code_view = read_bytes(code_object, "code");
    const std::int64_t count = value_count(values, width);
    code_view.require_shape({value_code_bound(count, width)});
    auto* code = static_cast<std::uint8_t*>(code_view.data);
    const nb::gil_scoped_release released;
    return encode_values(static_cast<const std::uint8_t*>(values.data), count, width, code);
}

void run_decode_values(nb::handle code_object, int width, nb::handle values_object) {
    require_width(width);
    const TensorView code = read_bytes(code_object, "encoded");
    const TensorView values = read_bytes(values_object, "values");
    const std::int64_t count = value_count(values, width);
    const nb::gil_scoped_release released;
    refuse(decode_values(static_cast<const std::uint8_t*>(code.data), code.elements(), count, width,
                         static_cast<std::uint8_t*>(values.data)));
}

EntryForm entry_form(int width, bool compact, bool coded_values) {
    require_width(width);
    return {width, compact, compact && coded_values};
}

// Values: float32, or bfloat16 in place of any float of two bytes.
struct Values {
    std::uint8_t* data;
    std::int64_t count;
    EntryForm form;
};

Values read_values(nb::handle object, bool compact, bool coded) {
    const TensorView view = view_tensor(object, "values");
    if (view.dtype != DataType::float32) view.require_dtype(DataType::bfloat16);
    view.require_contiguous();
    const int width = view.dtype == DataType::float32 ? 4 : 2;
    return {static_cast<std::uint8_t*>(view.data), view.elements(), entry_form(width, compact, coded)};
}

std::int64_t run_entry_message_bound(std::int64_t count, int width, bool compact, bool coded_values) {
    return entry_message_bound(count, entry_form(width, compact, coded_values));
}

std::int64_t run_pack_entries(nb::handle indices_object, nb::handle values_object, bool compact, bool coded_values,
                              std::int64_t length, std::int64_t number, nb::handle out_object) {
    const Values values = read_values(values_object, compact, coded_values);
    const auto* indices = read_sized<std::int32_t>(indices_object, "indices", DataType::int32, values.count, "values");
    const TensorView out = read_bytes(out_object, "out");
    const std::int64_t bound = entry_message_bound(values.count, values.form);
    if (out.elements() < bound) {
        throw KernelError("out: has " + std::to_string(out.elements()) + " bytes", std::to_string(bound) + " or more",
                          "ask entry_message_bound");
    }
    auto* message = static_cast<std::uint8_t*>(out.data);
    const nb::gil_scoped_release released;
    if (compact) require_ascending(indices, values.count, length);
    return pack_entries(indices, values.data, values.count, values.form, number, message);
}

TensorView read_message(nb::handle object) {
    const TensorView message = read_bytes(object, "message");
    if (message.elements() < message_header) {
        throw KernelError("message: has " + std::to_string(message.elements()) + " bytes",
                          std::to_string(message_header) + " or more", "pass a message with its header");
    }
    return message;
}

void run_write_message_header(nb::handle message_object, std::int64_t size, std::int64_t entries, std::int64_t number) {
    const TensorView message = read_message(message_object);
    write_header({size, entries, number}, static_cast<std::uint8_t*>(message.data));
}

nb::tuple run_read_message_header(nb::handle message_object) {
    const TensorView message = read_message(message_object);
    const MessageHeader header = read_header(static_cast<const std::uint8_t*>(message.data));
    return nb::make_tuple(header.bytes, header.entries, header.number);
}

void run_unpack_entries(nb::handle message_object, bool compact, bool coded_values, std::int64_t length,
                        nb::handle indices_object, nb::handle values_object) {
    const TensorView message = read_bytes(message_object, "message");
    const Values values = read_values(values_object, compact, coded_values);
    auto* indices = read_sized<std::int32_t>(indices_object, "indices", DataType::int32, values.count, "values");
    const nb::gil_scoped_release released;
    const EntryFault fault = unpack_entries(static_cast<const std::uint8_t*>(message.data), message.elements(), length,
                                            values.count, values.form, indices, values.data);
    if (fault.length) refuse_code("does not hold the bytes that it should");
    refuse(fault.values);
    if (fault.count) refuse_code("does not hold as many indices as values");
    refuse(fault.indices, length);
}

}  // namespace

void bind_selection(nb::module_& module) {
    module.def("top_k", &run_top_k, nb::arg("gradient").none(), nb::arg("x").none(), nb::arg("indices"),
               nb::arg("values"), nb::arg("clear"), nb::arg("threads"));
    module.def("accumulate_moments", &run_accumulate_moments, nb::arg("gradient").none(), nb::arg("residual").none(),
               nb::arg("log"), nb::arg("histogram").none(), nb::arg("threads"));
    module.def("exceedance_moments", &run_exceedance_moments, nb::arg("x").none(), nb::arg("threshold"),
               nb::arg("log"), nb::arg("threads"));
    module.def("select_above", &run_select_above, nb::arg("residual").none(), nb::arg("threshold"), nb::arg("indices"),
               nb::arg("values"), nb::arg("clear"), nb::arg("threads"));
    module.def("scatter_add", &run_scatter_add, nb::arg("dense").none(), nb::arg("indices").none(),
               nb::arg("values").none(), nb::arg("scale"));
    module.def("pack_signs", &run_pack_signs, nb::arg("x").none(), nb::arg("packed"), nb::arg("threads"));
    module.def("unpack_majority", &run_unpack_majority, nb::arg("packed").none(), nb::arg("scale"), nb::arg("out").none(),
               nb::arg("threads"));
    module.def("quantise_stochastic", &run_quantise_stochastic, nb::arg("x").none(), nb::arg("bits"), nb::arg("seed"),
               nb::arg("codes"), nb::arg("steps"), nb::arg("threads"));
    module.def("dequantise_add", &run_dequantise_add, nb::arg("dense").none(), nb::arg("codes").none(),
               nb::arg("steps").none(), nb::arg("bits"), nb::arg("scale"), nb::arg("threads"));
    module.def("index_code_bound", &index_code_bound, nb::arg("count"));
    module.def("encode_indices", &run_encode_indices, nb::arg("indices").none(), nb::arg("length"), nb::arg("code"));
    module.def("index_count", &run_index_count, nb::arg("encoded").none());
    module.def("decode_indices", &run_decode_indices, nb::arg("encoded").none(), nb::arg("length"), nb::arg("indices"));
    module.def("value_code_bound", &value_code_bound, nb::arg("count"), nb::arg("width"));
    module.def("encode_values", &run_encode_values, nb::arg("values"), nb::arg("width"), nb::arg("code"));
    module.def("decode_values", &run_decode_values, nb::arg("encoded"), nb::arg("width"), nb::arg("values"));
    module.attr("message_header") = message_header;
    module.def("entry_message_bound", &run_entry_message_bound, nb::arg("count"), nb::arg("width"), nb::arg("compact"),
               nb::arg("coded_values"));
    module.def("pack_entries", &run_pack_entries, nb::arg("indices").none(), nb::arg("values").none(), nb::arg("compact"),
               nb::arg("coded_values"), nb::arg("length"), nb::arg("number"), nb::arg("out").none());
    module.def("write_message_header", &run_write_message_header, nb::arg("message").none(), nb::arg("size"),
               nb::arg("entries"), nb::arg("number"));
    module.def("read_message_header", &run_read_message_header, nb::arg("message").none());
    module.def("unpack_entries", &run_unpack_entries, nb::arg("message").none(), nb::arg("compact"),
               nb::arg("coded_values"), nb::arg("length"), nb::arg("indices"), nb::arg("values"));
    module.attr("magnitude_bins") = magnitude_bins;
    module.attr("quantise_block") = quantise_block;
}

}  // namespace taut
