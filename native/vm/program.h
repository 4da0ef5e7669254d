// A program as the machine runs it: verified and decoded.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <string>
#include <vector>

#include "vm/abi.h"
#include "vm/error.h"
#include "vm/shape_code.h"
#include "vm/value.h"

namespace taut::vm {

// As taut.runtime.Opcode, which describes them.
enum class Opcode : std::uint8_t {
    shape, arena, alloc, new_, constant, view, kernel, fallback, bind, item, load, store, check, jump, branch, call,
    return_, move, clear, make, field, tag, length, append, copy, transfer, place, fill, parallel,
    levels, element, stack,
};
inline constexpr int opcode_count = 32;
inline constexpr int device_count = 2;

struct Kernel;

// Instructions that several workers run at once, in runs that follow each other in the code. The order of the code is one
// of the orders that the tasks allow.
struct Region {
    struct Task {
        std::uint32_t begin;  // instructions
        std::uint32_t end;
        std::uint32_t worker;
        std::vector<std::uint32_t> before;  // earlier tasks that must be done
    };
    std::vector<Task> tasks;
    std::uint32_t workers = 1;
    std::uint32_t size = 0;    // instructions of all tasks
    std::uint32_t number = 0;  // in the program
};

// Which fields of the nodes of one tag are children.
struct NodeCase {
    std::int64_t tag;
    std::vector<std::uint32_t> children;
};

// The meaning of a, b and c follows the words of the opcode; `list` has n, then m entries.
struct Instruction {
    Opcode opcode;
    DType dtype = DType::float32;
    std::uint8_t rank = 0;  // or a dimension, or a device
    std::uint32_t a = 0;
    std::uint32_t b = 0;
    std::uint32_t c = 0;
    std::uint32_t n = 0;
    std::uint32_t m = 0;
    std::uint32_t number = 0;  // in the function
    std::int64_t value = 0;
    const std::uint32_t* list = nullptr;
    const ShapeStep* steps = nullptr;
    const Kernel* kernel = nullptr;
    const Region* region = nullptr;
    const std::vector<NodeCase>* cases = nullptr;
};

struct OperandType {
    DType dtype;
    std::uint8_t rank;
    bool written;
};

struct Kernel {
    std::string name;
    std::vector<OperandType> operands;
    KernelFunction function = nullptr;
};

struct Function {
    std::string name;
    std::uint32_t parameters = 0;
    std::uint32_t results = 0;
    std::uint32_t registers = 0;
    std::uint32_t slots = 0;
    std::vector<Instruction> instructions;
    std::vector<std::string> labels;
    std::deque<std::vector<std::uint32_t>> lists;
    std::deque<std::vector<ShapeStep>> shapes;
    std::deque<Region> regions;
    std::deque<std::vector<NodeCase>> cases;
};

struct Fallback {
    std::string name;
    std::uint32_t inputs;
    std::uint32_t results;
};

struct Parameter {
    std::string name;
    Kind kind;
    DType dtype;
    // -1 where the program checks the size itself.
    std::vector<std::int64_t> sizes;
    std::string expected;
};

// What a call of function 0 still has to do when the sizes of its arguments are those of the last call: sizes, views and
// places in the arena are as they were.
struct Repeat {
    // A slot that holds a size of an argument, or all of an integer.
    struct Size {
        static constexpr std::uint8_t whole = 255;
        std::uint32_t slot;
        std::uint32_t parameter;
        std::uint8_t dimension;
    };
    std::vector<Instruction> instructions;  // none where that would be all of them
    std::vector<Size> sizes;
    std::vector<std::uint32_t> registers;  // that hold something of one call only
    std::vector<std::uint32_t> slots;      // likewise
};

struct Program {
    std::vector<Function> functions;
    Repeat repeat;
    std::vector<Parameter> parameters;
    std::vector<Tensor> constants;  // borrowed; fixed once the program is loaded
    std::vector<Kernel> kernels;
    std::vector<Fallback> fallbacks;
    std::vector<std::string> messages;
    std::uint32_t regions = 0;
    std::size_t task_edges = 0;
};

// A function as it stands in a file.
struct RawFunction {
    std::string name;
    std::int64_t parameters, results, registers, slots;
    std::vector<std::vector<std::int64_t>> instructions;
    std::vector<std::int64_t> shape_code;
    std::vector<std::string> labels;
};

// A refusal while a program is loaded.
struct LoadError : std::exception {
    explicit LoadError(Error error) : error(std::move(error)) {}
    const char* what() const noexcept override { return error.message.c_str(); }
    Error error;
};

// Verifies and decodes the functions of a program whose other parts are there; throws LoadError.
void decode_functions(const std::vector<RawFunction>& functions, Program& program);

// Looks through function 0.
Repeat find_repeat(const Program& program);

// The name of an instruction, e.g. "ALLOC".
const char* opcode_name(Opcode opcode);

}  // namespace taut::vm
