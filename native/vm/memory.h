// Memory of tensors: reference-counted blocks, and the stack from which activations take their arenas.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace taut::vm {

inline constexpr std::size_t alignment = 64;

inline constexpr std::size_t aligned(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// Bytes in blocks and arenas of all programs together.
std::size_t live_bytes();

// A reference-counted block, aligned to a cache line; or memory of someone else, given back when it is not used any more.
struct Storage {
    std::atomic<std::int64_t> references{1};
    std::uint8_t* data = nullptr;
    std::size_t bytes = 0;
    int size_class = -1;  // of a small block, which is kept for reuse
    void* foreign = nullptr;
    void (*release_foreign)(void* foreign) = nullptr;
};

// A block of at least `bytes`; null when memory, or the limit on `live_bytes`, is exhausted.
Storage* new_storage(std::size_t bytes, std::size_t limit);
// A reference to memory of someone else; null when memory is exhausted.
Storage* foreign_storage(void* foreign, void (*release)(void*));

inline void retain(Storage* storage) { storage->references.fetch_add(1, std::memory_order_relaxed); }
void destroy(Storage* storage);
inline void release(Storage* storage) {
    if (storage->references.load(std::memory_order_acquire) == 1 ||
        storage->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        destroy(storage);
    }
}

// Counts bytes that something else than a block takes; false when that exceeds the limit.
bool account(std::int64_t bytes, std::size_t limit);

// Takes memory in the order of a stack, from chunks that stay where they are.
class BumpStack {
   public:
    struct Mark {
        std::size_t chunk = 0;
        std::size_t used = 0;
    };

    BumpStack() = default;
    BumpStack(const BumpStack&) = delete;
    BumpStack& operator=(const BumpStack&) = delete;
    ~BumpStack();

    Mark mark() const { return {current_, used_}; }
    void release_to(Mark mark) {
        current_ = mark.chunk;
        used_ = mark.used;
    }
    // Aligned to a cache line; null when memory or the limit is exhausted.
    std::uint8_t* take(std::size_t bytes, std::size_t limit) {
        if (bytes > PTRDIFF_MAX - alignment) return nullptr;
        bytes = aligned(bytes);
        if (current_ < chunks_.size() && bytes <= chunks_[current_].bytes - used_) {
            std::uint8_t* data = chunks_[current_].data + used_;
            used_ += bytes;
            return data;
        }
        return take_from_another(bytes, limit);
    }

   private:
    struct Chunk {
        std::uint8_t* data;
        std::size_t bytes;
    };
    std::uint8_t* take_from_another(std::size_t bytes, std::size_t limit);
    void drop_chunks_after(std::size_t count);

    std::vector<Chunk> chunks_;
    std::size_t current_ = 0;
    std::size_t used_ = 0;
};

}  // namespace taut::vm
