"""A program as text."""

from __future__ import annotations

from collections.abc import Iterator

from taut.runtime._program import DTYPES, Function, Instruction, Kernel, Opcode, Parameter, Program, ShapeCode

# One letter a word: r register, s slot, d dtype, i plain number, k kernel, f fallback, m message, c function, j
# instruction; R and S a list of registers or slots after its length, T two lists of slots of one length, P tasks, C
# cases.
_WORDS = {
    Opcode.SHAPE: "ii",
    Opcode.ARENA: "s",
    Opcode.ALLOC: "rdsS",
    Opcode.NEW: "rdS",
    Opcode.CONSTANT: "ri",
    Opcode.VIEW: "rrsT",
    Opcode.KERNEL: "kR",
    Opcode.FALLBACK: "fRR",
    Opcode.BIND: "sri",
    Opcode.ITEM: "sr",
    Opcode.LOAD: "sr",
    Opcode.STORE: "rs",
    Opcode.CHECK: "sm",
    Opcode.JUMP: "j",
    Opcode.BRANCH: "sj",
    Opcode.CALL: "cRR",
    Opcode.RETURN: "R",
    Opcode.MOVE: "rr",
    Opcode.CLEAR: "r",
    Opcode.MAKE: "riR",
    Opcode.FIELD: "rrs",
    Opcode.TAG: "sr",
    Opcode.LENGTH: "sr",
    Opcode.APPEND: "rrr",
    Opcode.COPY: "rr",
    Opcode.TRANSFER: "rri",
    Opcode.PLACE: "ri",
    Opcode.FILL: "rs",
    Opcode.PARALLEL: "P",
    Opcode.LEVELS: "rrsrC",
    Opcode.ELEMENT: "srs",
    Opcode.STACK: "rrsi",
}
_INFIX = {
    ShapeCode.ADD: "+",
    ShapeCode.SUB: "-",
    ShapeCode.MUL: "*",
    ShapeCode.FLOORDIV: "//",
    ShapeCode.MOD: "%",
    ShapeCode.EQ: "==",
    ShapeCode.NE: "!=",
    ShapeCode.LT: "<",
    ShapeCode.LE: "<=",
    ShapeCode.GT: ">",
    ShapeCode.GE: ">=",
    ShapeCode.AND: "and",
    ShapeCode.OR: "or",
}


def disassemble(program: Program) -> str:
    """A listing of a verified program.

    Args:
        program: the program.

    Returns:
        Several lines: parameters, kernels, constants, then each function with its instructions; registers are written
        r0, r1, ..., slots of the heap s0, s1, ....
    """
    return "\n".join(_lines(program))


def _lines(program: Program) -> Iterator[str]:
    yield f"program({', '.join(map(_parameter, program.parameters))})"
    for number, kernel in enumerate(program.kernels):
        yield f"  kernel {number} {_kernel(kernel)}"
    for number, graph in enumerate(program.fallbacks):
        operators = [node.op for node in graph.nodes if node.op not in ("input", "constant")]
        yield f"  fallback {number} {', '.join(operators)}"
    for number, tensor in enumerate(program.constants):
        yield f"  constant {number} {_short(tensor.dtype)}{list(tensor.shape)}"
    for number, function in enumerate(program.functions):
        yield f"function {number} {function.name}: {function.registers} registers, {function.slots} slots"
        for pc, instruction in enumerate(function.instructions):
            label = function.labels[pc] if function.labels else ""
            yield f"  {pc:4d}  {_instruction(program, function, instruction)}" + (f"  # {label}" if label else "")


def _instruction(program: Program, function: Function, instruction: Instruction) -> str:
    opcode = Opcode(instruction[0])
    words = iter(instruction[1:])
    if opcode is Opcode.SHAPE:
        return "SHAPE " + "; ".join(_assignments(function.shape_code[next(words) : next(words)]))
    parts = [_word(program, letter, words) for letter in _WORDS[opcode]]
    return " ".join([opcode.name, *filter(None, parts)])


def _word(program: Program, letter: str, words: Iterator[int]) -> str:
    value = next(words)
    match letter:
        case "r" | "s":
            return f"{letter}{value}"
        case "d":
            return _short(DTYPES[value])
        case "k":
            return program.kernels[value].name
        case "f":
            return f"fallback {value}"
        case "m":
            return repr(program.messages[value])
        case "c":
            return program.functions[value].name
        case "j":
            return f"-> {value}"
        case "R" | "S":
            return f"({', '.join(f'{letter.lower()}{next(words)}' for _ in range(value))})"
        case "P":
            return "; ".join(_task(number, words) for number in range(value))
        case "C":
            return "; ".join(_case(words) for _ in range(value))
        case "T":
            return " ".join(f"({', '.join(f's{next(words)}' for _ in range(value))})" for _ in range(2))
    return str(value)


def _task(number: int, words: Iterator[int]) -> str:
    length, worker, before = next(words), next(words), next(words)
    after = "".join(f" t{next(words)}" for _ in range(before))
    return f"t{number} {length} on {worker}" + (f" after{after}" if after else "")


def _case(words: Iterator[int]) -> str:
    tag, children = next(words), next(words)
    return f"{tag}: ({', '.join(str(next(words)) for _ in range(children))})"


def _assignments(code: tuple[int, ...]) -> list[str]:
    """The shape code as assignments to slots."""
    out: list[str] = []
    stack: list[str] = []
    words = iter(code)
    for word in words:
        operation = ShapeCode(word)
        if operation is ShapeCode.PUSH:
            stack.append(str(next(words)))
        elif operation is ShapeCode.LOAD:
            stack.append(f"s{next(words)}")
        elif operation is ShapeCode.STORE:
            out.append(f"s{next(words)} = {stack.pop()}")
        elif operation is ShapeCode.NOT:
            stack.append(f"not {stack.pop()}")
        elif operation is ShapeCode.SELECT:
            condition, then, otherwise = stack[-3:]
            stack[-3:] = [f"({then} if {condition} else {otherwise})"]
        else:
            left, right = stack[-2:]
            infix = _INFIX.get(operation)
            stack[-2:] = [f"({left} {infix} {right})" if infix else f"{operation.name.lower()}({left}, {right})"]
    return out


def _parameter(parameter: Parameter) -> str:
    if parameter.dtype is None:
        return f"{parameter.name}: {parameter.kind}"
    return f"{parameter.name}: {_short(parameter.dtype)}[{', '.join(map(str, parameter.shape))}]"


def _kernel(kernel: Kernel) -> str:
    operands = ", ".join(
        f"{'out ' if item.written else ''}{_short(item.dtype)}[{', '.join('?' * item.rank)}]"
        for item in kernel.operands
    )
    origin = "prebuilt" if kernel.recipe is None else kernel.recipe.template
    return f"{kernel.name}({operands}), {origin}"


def _short(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
