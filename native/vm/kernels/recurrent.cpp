// Recurrent layers and small linear layers: what native/recurrent computes, for the machine.
#include "recurrent/recurrent.h"

#include <cstddef>
#include <initializer_list>
#include <new>

#include "vm/kernel_message.h"
#include "vm/kernels/operands.h"
#include "vm/kernels/prebuilt.h"

namespace taut::vm {
namespace {

// Whether a buffer has these sizes, outermost first.
bool has_shape(const Buffer& buffer, std::initializer_list<std::int64_t> sizes) {
    int dim = buffer.dimensions;
    for (const std::int64_t size : sizes) {
        if (--dim < 0 || buffer.dim[dim].extent != size) return false;
    }
    return dim == 0;
}

// Whether elements follow each other without gaps; rows (..., N) of a matrix may be `row_stride` apart.
bool is_dense(const Buffer& buffer, std::int64_t row_stride = 0) {
    if (elements(buffer) == 0) return true;
    std::int64_t stride = 1;
    for (int i = 0; i < buffer.dimensions; ++i) {
        if (buffer.dim[i].extent != 1 && buffer.dim[i].stride != stride) return false;
        stride = i == 0 && row_stride != 0 ? row_stride : stride * buffer.dim[i].extent;
    }
    return true;
}

// Whether a buffer shows one zero at every place.
bool is_one_zero(const Buffer& buffer) {
    for (int i = 0; i < buffer.dimensions; ++i) {
        if (buffer.dim[i].extent != 1 && buffer.dim[i].stride != 0) return false;
    }
    return elements(buffer) > 0 && at<float>(buffer, 0) == 0.0f;
}

float* data(const Buffer& buffer) { return reinterpret_cast<float*>(buffer.host); }

// The operands of a layer in their order, with null for those that its cell does not have.
struct Layer {
    const Buffer* x;  // (steps, batch, inputs)
    const Buffer* input_weights;
    const Buffer* hidden_weights;
    const Buffer* bias;
    const Buffer* hidden_bias = nullptr;
    const Buffer* h0;  // as c0 dense, or one zero at every place
    const Buffer* c0 = nullptr;
    const Buffer* y;
    const Buffer* h;
    const Buffer* c = nullptr;

    Layer(Cell cell, void** arguments) {
        int position = 0;
        const auto next = [&] { return &operand(arguments, position++); };
        x = next();
        input_weights = next();
        hidden_weights = next();
        bias = next();
        if (cell == Cell::gru) hidden_bias = next();
        h0 = next();
        if (cell == Cell::lstm) c0 = next();
        y = next();
        h = next();
        if (cell == Cell::lstm) c = next();
    }
};

template <Cell cell, bool reverse>
int run_recurrent(void** arguments) {
    const Layer layer(cell, arguments);
    RecurrentCall call{};
    call.cell = cell;
    call.reverse = reverse;
    call.steps = layer.x->dim[2].extent;
    call.batch = layer.x->dim[1].extent;
    call.inputs = layer.x->dim[0].extent;
    call.hidden = layer.h->dim[0].extent;
    const std::int64_t panels = panel_count(cell, call.hidden);
    const std::int64_t vectors = panel_vectors(cell);
    const bool one_row = call.steps * call.batch <= 1;
    call.y_stride = one_row ? call.hidden : layer.y->dim[call.batch == 1 ? 2 : 1].stride;
    bool fits = has_shape(*layer.input_weights, {panels, call.inputs, vectors, panel_lanes}) &&
                has_shape(*layer.hidden_weights, {panels, call.hidden, vectors, panel_lanes}) &&
                has_shape(*layer.bias, {panels, vectors, panel_lanes}) &&
                has_shape(*layer.y, {call.steps, call.batch, call.hidden}) && is_dense(*layer.y, call.y_stride) &&
                call.y_stride >= call.hidden;
    for (const Buffer* state : {layer.h0, layer.c0, layer.h, layer.c}) {
        fits = fits && (state == nullptr || has_shape(*state, {call.batch, call.hidden}));
    }
    for (const Buffer* buffer :
         {layer.x, layer.input_weights, layer.hidden_weights, layer.bias, layer.hidden_bias, layer.h, layer.c}) {
        fits = fits && (buffer == nullptr || is_dense(*buffer));
    }
    const bool no_h0 = is_one_zero(*layer.h0);
    const bool no_c0 = layer.c0 == nullptr || is_one_zero(*layer.c0);
    fits = fits && (no_h0 || is_dense(*layer.h0)) && (no_c0 || is_dense(*layer.c0));
    if (layer.hidden_bias != nullptr) fits = fits && has_shape(*layer.hidden_bias, {panels, vectors, panel_lanes});
    if (!fits) return report_kernel_error("the shapes of a recurrent layer do not fit each other");
    call.x = data(*layer.x);
    call.input_weights = data(*layer.input_weights);
    call.hidden_weights = data(*layer.hidden_weights);
    call.bias = data(*layer.bias);
    call.hidden_bias = layer.hidden_bias == nullptr ? nullptr : data(*layer.hidden_bias);
    call.h0 = no_h0 ? nullptr : data(*layer.h0);
    call.c0 = no_c0 ? nullptr : data(*layer.c0);
    call.y = data(*layer.y);
    call.h = data(*layer.h);
    call.c = layer.c == nullptr ? nullptr : data(*layer.c);
    try {
        recurrent(call, 1);
    } catch (const std::bad_alloc&) {
        return report_kernel_error("memory is exhausted");
    }
    return 0;
}

template <LinearActivation activation>
int run_small_linear(void** arguments) {
    const Buffer& x = operand(arguments, 0);
    const Buffer& packed = operand(arguments, 1);
    const Buffer& bias = operand(arguments, 2);
    const Buffer& y = operand(arguments, 3);
    SmallLinearCall call{};
    call.rows = x.dim[1].extent;
    call.depth = x.dim[0].extent;
    call.channels = y.dim[0].extent;
    call.activation = activation;
    call.y_stride = call.rows == 1 ? call.channels : y.dim[1].stride;
    const std::int64_t panels = panel_count(Cell::tanh, call.channels);
    if (!has_shape(packed, {panels, call.depth, 4, panel_lanes}) || !has_shape(bias, {panels, 4, panel_lanes}) ||
        y.dim[1].extent != call.rows || !is_dense(x) || !is_dense(packed) || !is_dense(bias) ||
        !is_dense(y, call.y_stride) || (call.rows > 1 && call.y_stride < call.channels)) {
        return report_kernel_error("the shapes of a linear layer do not fit each other");
    }
    call.x = data(x);
    call.packed = data(packed);
    call.bias = data(bias);
    call.y = data(y);
    try {
        small_linear(call);
    } catch (const std::bad_alloc&) {
        return report_kernel_error("memory is exhausted");
    }
    return 0;
}

bool all_fit(const std::vector<OperandType>& operands, std::initializer_list<int> ranks, std::size_t outputs) {
    if (operands.size() != ranks.size()) return false;
    std::size_t i = 0;
    for (const int rank : ranks) {
        const OperandType& type = operands[i];
        if (type.dtype != DType::float32 || type.rank != rank || type.written != (i + outputs >= operands.size())) {
            return false;
        }
        ++i;
    }
    return true;
}

bool lstm_fits(const std::vector<OperandType>& operands) { return all_fit(operands, {3, 4, 4, 3, 2, 2, 3, 2, 2}, 3); }
bool gru_fits(const std::vector<OperandType>& operands) { return all_fit(operands, {3, 4, 4, 3, 3, 2, 3, 2}, 2); }
bool plain_fits(const std::vector<OperandType>& operands) { return all_fit(operands, {3, 4, 4, 3, 2, 3, 2}, 2); }
bool linear_fits(const std::vector<OperandType>& operands) { return all_fit(operands, {2, 4, 3, 2}, 1); }

constexpr const char* lstm_operands =
    "x (T, B, I), input weights, hidden weights, bias, h0 (B, H), c0 (B, H), y (T, B, H), h (B, H), c (B, H), float32";
constexpr const char* gru_operands =
    "x (T, B, I), input weights, hidden weights, bias, hidden bias, h0 (B, H), y (T, B, H), h (B, H), float32";
constexpr const char* plain_operands =
    "x (T, B, I), input weights, hidden weights, bias, h0 (B, H), y (T, B, H), h (B, H), float32";
constexpr const char* linear_operands = "x (M, K), weights, bias, y (M, N), float32";

}  // namespace

const Prebuilt recurrent_kernels[recurrent_kernel_count] = {
    {"lstm", &run_recurrent<Cell::lstm, false>, &lstm_fits, lstm_operands},
    {"lstm_reverse", &run_recurrent<Cell::lstm, true>, &lstm_fits, lstm_operands},
    {"gru", &run_recurrent<Cell::gru, false>, &gru_fits, gru_operands},
    {"gru_reverse", &run_recurrent<Cell::gru, true>, &gru_fits, gru_operands},
    {"rnn_tanh", &run_recurrent<Cell::tanh, false>, &plain_fits, plain_operands},
    {"rnn_tanh_reverse", &run_recurrent<Cell::tanh, true>, &plain_fits, plain_operands},
    {"rnn_relu", &run_recurrent<Cell::relu, false>, &plain_fits, plain_operands},
    {"rnn_relu_reverse", &run_recurrent<Cell::relu, true>, &plain_fits, plain_operands},
    {"small_linear", &run_small_linear<LinearActivation::none>, &linear_fits, linear_operands},
    {"small_linear_relu", &run_small_linear<LinearActivation::relu>, &linear_fits, linear_operands},
    {"small_linear_tanh", &run_small_linear<LinearActivation::tanh>, &linear_fits, linear_operands},
    {"small_linear_sigmoid", &run_small_linear<LinearActivation::sigmoid>, &linear_fits, linear_operands},
};

}  // namespace taut::vm
