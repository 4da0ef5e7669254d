// Between Python values and the virtual machine's.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "vm/program.h"

namespace taut::vm {

// A failure as Python sees it: GuardError, GraphError or KernelError.
struct CallError : std::exception {
    explicit CallError(Error error) : error(std::move(error)) {}
    const char* what() const noexcept override { return error.message.c_str(); }
    Error error;
};

// Tells which classes count as a tensor and as an object; throws CallError when tensors have no exchange table.
void bind_types(nanobind::handle tensor_type, nanobind::handle object_type);

// Throws CallError with that fault when the object is no integer of 64 bits.
std::int64_t read_integer(nanobind::handle object, const char* what, Fault fault = Fault::guard);

// Borrows a tensor's memory, which lives as long as the Python tensor; copies where the innermost dimension is not dense.
// Throws CallError naming the tensor.
void read_tensor(nanobind::handle object, const std::string& name, std::size_t memory_limit, Tensor& tensor);

// Fills a register with an argument of the program, checked against its parameter. Python tensors inside objects are
// added to `kept`, which must outlive the call.
void read_argument(nanobind::handle object, const Parameter& parameter, std::size_t memory_limit, Register& reg,
                   std::vector<nanobind::object>& kept);

// A Python value that owns its memory.
nanobind::object write_result(const Register& reg, std::size_t memory_limit);

// A torch tensor in the register's own memory, and back, for fallbacks; numbers as they are.
nanobind::object lend(const Register& reg);
void take_over(nanobind::handle object, Register& reg);

}  // namespace taut::vm
