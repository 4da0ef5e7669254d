// The instructions for folds over trees.
#include "vm/machine.h"

namespace taut::vm {
namespace {

bool set_words(Register& reg, std::size_t count, std::size_t limit) {
    reg.clear();
    reg.tensor.start(DType::int64, 1, nullptr);
    const auto size = static_cast<std::int64_t>(count);
    std::size_t bytes = 0;
    if (!set_contiguous(reg.tensor, &size, bytes)) return false;
    Storage* storage = new_storage(bytes, limit);
    if (storage == nullptr) return false;
    reg.tensor.storage = storage;
    reg.tensor.buffer.host = storage->data;
    reg.tensor.device = 0;
    reg.tensor.source = Source::storage;
    reg.read_only = false;
    reg.kind = Kind::tensor;
    return true;
}

bool wrong_kind(Error& error, std::uint32_t number, const Register& reg, const char* expected) {
    return error.set(Fault::program, "register " + std::to_string(number) + " holds " + kind_name(reg.kind), expected);
}

}  // namespace

bool Machine::run_levels(const Instruction& instruction, Register* registers, std::int64_t* slots, Host& host,
                         Error& error) {
    const Register& tree = registers[instruction.n];
    if (tree.kind != Kind::object) return wrong_kind(error, instruction.n, tree, "an object");
    if (!levels_.start(tree.object, *instruction.cases, error)) return false;
    while (levels_.more()) {
        if (--budget_ < 0 && !refill(host, error)) return false;
        if (!levels_.visit(error)) return false;
        if (levels_.bytes() > limits_.memory) return out_of_memory(error);
    }
    slots[instruction.c] = static_cast<std::int64_t>(levels_.sort());
    Object* nodes = new_object(0, levels_.count(), limits_.memory);
    if (nodes == nullptr) return out_of_memory(error);
    for (std::size_t row = 0; row < levels_.count(); ++row) {
        Value& field = nodes->fields.emplace_back();
        field.object = levels_.object(row);
        field.kind = Kind::object;
        retain(field.object);
    }
    // The tree's own register may be among those that are written: it is not read any more.
    registers[instruction.b].set_object(nodes);
    Register& words = registers[instruction.a];
    if (!set_words(words, levels_.word_count(), limits_.memory)) return out_of_memory(error);
    levels_.write(reinterpret_cast<std::int64_t*>(words.tensor.buffer.host));
    return true;
}

bool Machine::run_stack(const Instruction& instruction, Register* registers, const std::int64_t* slots,
                        Error& error) const {
    Register& to = registers[instruction.a];
    const Register& nodes = registers[instruction.b];
    if (to.kind != Kind::tensor) return wrong_kind(error, instruction.a, to, "a tensor");
    if (nodes.kind != Kind::object) return wrong_kind(error, instruction.b, nodes, "an object");
    if (to.read_only || to.tensor.rank() == 0) {
        return error.set(Fault::program, "register " + std::to_string(instruction.a) + " may not be written",
                         "a tensor of its own with rows");
    }
    Tensor row;
    row.share(to.tensor);
    const std::int64_t rows = row.size(0);
    const std::int64_t step = row.stride(0) * traits(row.dtype).bytes;
    row.buffer.dimensions -= 1;
    const bool done = [&] {
        const std::int64_t first = slots[instruction.c];
        const auto count = static_cast<std::int64_t>(nodes.object->fields.size());
        if (first < 0 || first > count || rows > count - first) {
            return error.set(Fault::program,
                             "fields " + std::to_string(first) + " + " + std::to_string(rows) + " do not exist",
                             std::to_string(count) + " fields");
        }
        for (std::int64_t i = 0; i < rows; ++i, row.buffer.host += step) {
            const Value& node = nodes.object->fields[static_cast<std::size_t>(first + i)];
            if (!stack_row(instruction.n, node, row, error)) return false;
        }
        return true;
    }();
    row.drop();
    return done;
}

bool Machine::stack_row(std::uint32_t position, const Value& node, Tensor& row, Error& error) {
    if (node.kind != Kind::object) {
        return error.set(Fault::program, std::string("the object holds ") + kind_name(node.kind), "objects only");
    }
    const std::vector<Value>& fields = node.object->fields;
    const bool exists = position < fields.size();
    if (exists && fields[position].kind == Kind::tensor && same_type(fields[position].box->tensor, row)) {
        copy_elements(fields[position].box->tensor, row);
        return true;
    }
    std::string found = "missing";
    if (exists) {
        const Value& field = fields[position];
        found = field.kind == Kind::tensor ? field.box->tensor.text() : kind_name(field.kind);
    }
    return error.set(Fault::guard,
                     "field " + std::to_string(position) + " of a node with the tag " +
                         std::to_string(node.object->tag) + " is " + found,
                     row.text());
}

}  // namespace taut::vm
