// The instructions that write tensors only; several threads may run them at once.
#include "vm/kernel_message.h"
#include "vm/machine.h"

namespace taut::vm {

bool Machine::run_kernel(const Instruction& instruction, Register* registers, Error& error) const {
    const Kernel& kernel = *instruction.kernel;
    void* arguments[64];
    const std::uint8_t device = instruction.n > 0 ? registers[instruction.list[0]].tensor.device : 0;
    for (std::uint32_t i = 0; i < instruction.n; ++i) {
        Register& reg = registers[instruction.list[i]];
        const OperandType& type = kernel.operands[i];
        if (reg.kind != Kind::tensor || reg.tensor.dtype != type.dtype || reg.tensor.rank() != type.rank ||
            (type.written && reg.read_only) || reg.tensor.device != device) [[unlikely]] {
            return refuse_operand(instruction, i, registers, error);
        }
        arguments[i] = &reg.tensor.buffer;
    }
    if (const int code = kernel.function(arguments); code != 0) [[unlikely]] {
        std::string said = take_kernel_error();
        if (said.empty()) said = "error " + std::to_string(code);
        return error.set(Fault::kernel, "kernel " + kernel.name + " failed: " + said);
    }
    return true;
}

bool Machine::run_copy(const Instruction& instruction, Register* registers, Error& error) const {
    Register& to = registers[instruction.a];
    const Register& from = registers[instruction.b];
    for (const std::uint32_t number : {instruction.a, instruction.b}) {
        const Register& reg = registers[number];
        if (reg.kind == Kind::tensor) continue;
        return error.set(Fault::program, "register " + std::to_string(number) + " holds " + kind_name(reg.kind),
                         "a tensor");
    }
    if (to.read_only) {
        return error.set(Fault::program, "register " + std::to_string(instruction.a) + " may not be written");
    }
    if (!same_type(to.tensor, from.tensor)) {
        return error.set(Fault::program, "copies " + from.tensor.text() + " to " + to.tensor.text(),
                         "equal dtypes, shapes and devices");
    }
    copy_elements(from.tensor, to.tensor);
    return true;
}

}  // namespace taut::vm
