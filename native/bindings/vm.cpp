// The Python module taut.runtime._vm.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>

#include "bindings/vm_values.h"
#include "vm/kernels/prebuilt.h"
#include "vm/library.h"
#include "vm/machine.h"
#include "vm/pool.h"

namespace nb = nanobind;

namespace taut::vm {
namespace {

void set_python_error(const Error& error) {
    const char* name = error.fault == Fault::guard                                       ? "GuardError"
                       : error.fault == Fault::kernel || error.fault == Fault::memory ? "KernelError"
                                                                                         : "GraphError";
    const nb::object type = nb::module_::import_("taut.errors").attr(name);
    const auto text = [](const std::string& part) { return part.empty() ? nb::object(nb::none()) : nb::object(nb::str(part.c_str())); };
    const nb::object value = type(nb::str(error.message.c_str()), nb::arg("expected") = text(error.expected),
                                  nb::arg("fix") = text(error.fix));
    PyErr_SetObject(type.ptr(), value.ptr());
}

void translate(const std::exception_ptr& exception, void*) {
    try {
        std::rethrow_exception(exception);
    } catch (const CallError& error) {
        set_python_error(error.error);
    } catch (const LoadError& error) {
        set_python_error(error.error);
    } catch (const std::bad_alloc&) {
        set_python_error({Fault::memory, "memory is exhausted", "enough memory", "close other programs"});
    }
}

// A loaded program with the Python objects whose memory it uses.
struct Executable {
    Executable() = default;
    Executable(const Executable&) = delete;
    Executable& operator=(const Executable&) = delete;
    ~Executable() {
        for (Storage* storage : copies) release(storage);
    }

    Program program;
    std::vector<nb::object> kept;
    std::vector<Storage*> copies;  // of constants that were not dense
    nb::object fallback;  // callable: number of the fallback, list of inputs -> sequence of results
};

std::vector<std::int64_t> read_words(nb::handle sequence) {
    std::vector<std::int64_t> words;
    for (const nb::handle word : sequence) words.push_back(read_integer(word, "a word of the program", Fault::program));
    return words;
}

RawFunction read_function(nb::handle tuple) {
    RawFunction made;
    made.name = nb::cast<std::string>(tuple[0]);
    made.parameters = read_integer(nb::object(tuple[1]), "parameters", Fault::program);
    made.results = read_integer(nb::object(tuple[2]), "results", Fault::program);
    made.registers = read_integer(nb::object(tuple[3]), "registers", Fault::program);
    made.slots = read_integer(nb::object(tuple[4]), "slots", Fault::program);
    for (const nb::handle instruction : nb::object(tuple[5])) made.instructions.push_back(read_words(instruction));
    made.shape_code = read_words(nb::object(tuple[6]));
    for (const nb::handle label : nb::object(tuple[7])) made.labels.push_back(nb::cast<std::string>(label));
    return made;
}

DType read_dtype(nb::handle number) { return static_cast<DType>(nb::cast<std::uint8_t>(number) % dtype_count); }

Parameter read_parameter(nb::handle tuple) {
    const auto kind = nb::cast<std::string>(tuple[1]);
    return {nb::cast<std::string>(tuple[0]),
            kind == "tensor" ? Kind::tensor : kind == "int" ? Kind::integer : Kind::object,
            read_dtype(nb::object(tuple[2])), read_words(nb::object(tuple[3])), nb::cast<std::string>(tuple[4])};
}

// (name, ((dtype, rank, written), ...), address or None for a prebuilt kernel)
Kernel read_kernel(nb::handle tuple) {
    Kernel made{nb::cast<std::string>(tuple[0]), {}, nullptr};
    for (const nb::handle operand : nb::object(tuple[1])) {
        made.operands.push_back({read_dtype(nb::object(operand[0])), nb::cast<std::uint8_t>(operand[1]),
                                 nb::cast<bool>(operand[2])});
    }
    const nb::object address(tuple[2]);
    if (!address.is_none()) {
        made.function = reinterpret_cast<KernelFunction>(static_cast<std::uintptr_t>(read_integer(address, "address")));
        return made;
    }
    const Prebuilt* prebuilt = find_prebuilt(made.name);
    if (prebuilt == nullptr) throw LoadError({Fault::program, "there is no prebuilt kernel " + made.name, {}, {}});
    if (!prebuilt->fits(made.operands)) {
        throw LoadError({Fault::program, "the prebuilt kernel " + made.name + " does not take such operands",
                         prebuilt->expected, {}});
    }
    made.function = prebuilt->function;
    return made;
}

std::shared_ptr<Executable> load(nb::handle functions, nb::handle parameters, nb::handle constants, nb::handle kernels,
                                 nb::handle fallbacks, const std::vector<std::string>& messages, nb::object fallback) {
    auto made = std::make_shared<Executable>();
    Program& program = made->program;
    for (const nb::handle parameter : parameters) program.parameters.push_back(read_parameter(parameter));
    for (const nb::handle kernel : kernels) program.kernels.push_back(read_kernel(kernel));
    for (const nb::handle item : fallbacks) {
        program.fallbacks.push_back({"", nb::cast<std::uint32_t>(item[0]), nb::cast<std::uint32_t>(item[1])});
    }
    program.messages = messages;
    // Tensors point into themselves: they may not move once they are filled in.
    program.constants.resize(nb::len(constants));
    std::size_t index = 0;
    for (const nb::handle constant : constants) {
        Tensor& tensor = program.constants[index];
        read_tensor(constant, "constant " + std::to_string(index++), SIZE_MAX, tensor);
        // Results that are constants are copied, so no register needs a reference.
        if (tensor.source == Source::storage) made->copies.push_back(tensor.storage);
        tensor.source = Source::borrowed;
        made->kept.push_back(nb::borrow(constant));
    }
    std::vector<RawFunction> raw;
    for (const nb::handle function : functions) raw.push_back(read_function(function));
    decode_functions(raw, program);
    made->fallback = std::move(fallback);
    return made;
}

class PythonHost final : public Host {
   public:
    explicit PythonHost(const Executable& executable) : executable_(executable) {}

    bool fallback(std::uint32_t index, Register* const* inputs, std::uint32_t input_count, Register* const* results,
                  std::uint32_t result_count, Error& error) override {
        const nb::gil_scoped_acquire acquired;
        try {
            nb::list arguments;
            for (std::uint32_t i = 0; i < input_count; ++i) arguments.append(lend(*inputs[i]));
            const nb::object given = executable_.fallback(index, arguments);
            if (nb::len(given) != result_count) {
                return error.set(Fault::program, "a fallback gives " + std::to_string(nb::len(given)) + " results",
                                 std::to_string(result_count));
            }
            for (std::uint32_t i = 0; i < result_count; ++i) take_over(nb::object(given[i]), *results[i]);
            return true;
        } catch (nb::python_error& raised) {
            raised_.emplace(std::move(raised));
            return error.set(Fault::host, "a fallback failed");
        } catch (const CallError& refused) {
            error = refused.error;
            return false;
        }
    }

    bool poll(Error& error) override {
        const nb::gil_scoped_acquire acquired;
        if (PyErr_CheckSignals() == 0) return true;
        raised_.emplace();
        return error.set(Fault::host, "interrupted");
    }

    [[noreturn]] void raise(Error error) {
        if (error.fault == Fault::host && raised_) throw nb::python_error(std::move(*raised_));
        throw CallError(std::move(error));
    }

   private:
    const Executable& executable_;
    std::optional<nb::python_error> raised_;
};

class Session {
   public:
    Session(std::shared_ptr<Executable> executable, std::int64_t memory, std::int64_t depth, std::int64_t steps,
            bool poison, unsigned workers)
        : executable_(std::move(executable)),
          limits_{static_cast<std::size_t>(memory), depth, steps, poison, std::min(workers, usable_cpus())} {}

    nb::list call(nb::args arguments) {
        Lease lease(*this);
        lease.bind(arguments);
        lease.run(nullptr);
        return lease.results();
    }

    // Entries by instruction, and spans from the start of the call on.
    nb::tuple profile(nb::args arguments) {
        Lease lease(*this);
        lease.bind(arguments);
        Profile profile;
        for (const Function& function : program().functions) profile.entries.emplace_back(function.instructions.size());
        const std::int64_t start = now();
        lease.run(&profile);
        nb::list entries;
        for (std::size_t function = 0; function < profile.entries.size(); ++function) {
            for (std::size_t pc = 0; pc < profile.entries[function].size(); ++pc) {
                const ProfileEntry& entry = profile.entries[function][pc];
                if (entry.calls > 0) entries.append(nb::make_tuple(function, pc, entry.calls, entry.nanoseconds));
            }
        }
        nb::list spans;
        for (const Span& span : profile.spans) {
            spans.append(nb::make_tuple(span.worker, span.function, span.instruction, span.begin - start,
                                        span.end - start));
        }
        return nb::make_tuple(entries, spans);
    }

    double time(std::int64_t repeats, nb::args arguments) {
        Lease lease(*this);
        lease.bind(arguments);
        const auto start = std::chrono::steady_clock::now();
        lease.run(nullptr, repeats);
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        return taken.count() / static_cast<double>(repeats);
    }

   private:
    // A machine for one call.
    class Lease {
       public:
        explicit Lease(Session& session) : session_(session), host_(*session.executable_) {
            const std::scoped_lock lock(session_.mutex_);
            if (session_.idle_.empty()) {
                machine_ = std::make_unique<Machine>(session_.program(), session_.limits_);
            } else {
                machine_ = std::move(session_.idle_.back());
                session_.idle_.pop_back();
            }
        }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() {
            machine_->clear();
            const std::scoped_lock lock(session_.mutex_);
            session_.idle_.push_back(std::move(machine_));
        }

        void bind(nb::handle arguments) {
            const std::vector<Parameter>& parameters = session_.program().parameters;
            const auto given = static_cast<std::size_t>(PyTuple_GET_SIZE(arguments.ptr()));
            if (given != parameters.size()) {
                throw CallError({Fault::guard, "the program is given " + std::to_string(given) + " inputs",
                                 std::to_string(parameters.size()), {}});
            }
            for (std::size_t i = 0; i < given; ++i) {
                read_argument(PyTuple_GET_ITEM(arguments.ptr(), static_cast<Py_ssize_t>(i)), parameters[i],
                              session_.limits_.memory, machine_->inputs()[i], kept_);
            }
        }

        void run(Profile* profile, std::int64_t repeats = 1) {
            Error error;
            bool done = true;
            {
                const nb::gil_scoped_release released;
                for (std::int64_t i = 0; done && i < repeats; ++i) done = machine_->run(host_, error, profile);
            }
            if (!done) host_.raise(std::move(error));
        }

        nb::list results() const {
            nb::list out;
            for (const Register& reg : machine_->results()) out.append(write_result(reg, session_.limits_.memory));
            return out;
        }

       private:
        Session& session_;
        PythonHost host_;
        std::unique_ptr<Machine> machine_;
        std::vector<nb::object> kept_;
    };

    const Program& program() const { return executable_->program; }

    std::shared_ptr<Executable> executable_;
    const Limits limits_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Machine>> idle_;
};

std::uintptr_t library_address(const std::string& path, const std::string& symbol) {
    return reinterpret_cast<std::uintptr_t>(find_symbol(open_library(path), symbol));
}

}  // namespace
}  // namespace taut::vm

NB_MODULE(_vm, module) {
    using taut::vm::Executable;
    using taut::vm::Session;
    module.doc() = "The virtual machine of taut.";
    nb::register_exception_translator(taut::vm::translate);
    module.def("bind_types", &taut::vm::bind_types, nb::arg("tensor_type"), nb::arg("object_type"));
    module.def("refused_leases", &taut::vm::refused_leases);
    module.def("worker_nanoseconds", &taut::vm::worker_nanoseconds, nb::call_guard<nb::gil_scoped_release>());
    module.def("library_address", &taut::vm::library_address, nb::arg("path"), nb::arg("symbol"));
    module.def("live_bytes", &taut::vm::live_bytes);
    nb::class_<Executable>(module, "Executable");
    module.def("load", &taut::vm::load, nb::arg("functions"), nb::arg("parameters"), nb::arg("constants"),
               nb::arg("kernels"), nb::arg("fallbacks"), nb::arg("messages"), nb::arg("fallback"));
    nb::class_<Session>(module, "Session")
        .def(nb::init<std::shared_ptr<Executable>, std::int64_t, std::int64_t, std::int64_t, bool, unsigned>(),
             nb::arg("executable"), nb::arg("memory_limit"), nb::arg("recursion_limit"), nb::arg("step_limit"),
             nb::arg("poison"), nb::arg("workers"))
        .def("__call__", &Session::call)
        .def("profile", &Session::profile)
        .def("time", &Session::time);
}
