#include "vm/memory.h"

#include <bit>
#include <cstdlib>
#include <new>

namespace taut::vm {
namespace {

std::atomic<std::int64_t> live{0};

constexpr int smallest_class_bits = 6;  // 64 bytes
constexpr int class_count = 11;         // up to 64 KiB
constexpr int blocks_kept = 32;         // of each class in each thread

std::size_t class_bytes(int size_class) { return std::size_t{1} << (size_class + smallest_class_bits); }

void free_block(Storage* storage) {
    account(-static_cast<std::int64_t>(storage->bytes), SIZE_MAX);
    storage->~Storage();
    std::free(storage);
}

struct FreeLists {
    Storage* blocks[class_count][blocks_kept];
    int counts[class_count] = {};
    bool closed = false;  // the thread ends; what it still releases is freed at once

    ~FreeLists() {
        closed = true;
        for (int i = 0; i < class_count; ++i) {
            while (counts[i] > 0) free_block(blocks[i][--counts[i]]);
        }
    }
};
thread_local FreeLists free_lists;

}  // namespace

std::size_t live_bytes() { return static_cast<std::size_t>(live.load(std::memory_order_relaxed)); }

bool account(std::int64_t bytes, std::size_t limit) {
    const std::int64_t before = live.fetch_add(bytes, std::memory_order_relaxed);
    if (bytes <= 0 || static_cast<std::size_t>(before) + static_cast<std::size_t>(bytes) <= limit) return true;
    live.fetch_sub(bytes, std::memory_order_relaxed);
    return false;
}

Storage* new_storage(std::size_t bytes, std::size_t limit) {
    if (bytes > PTRDIFF_MAX - 2 * alignment) return nullptr;
    int size_class = -1;
    if (bytes <= class_bytes(class_count - 1)) {
        const std::size_t rounded = std::bit_ceil(bytes < alignment ? alignment : bytes);
        size_class = std::countr_zero(rounded) - smallest_class_bits;
        FreeLists& lists = free_lists;
        if (lists.counts[size_class] > 0) {
            Storage* storage = lists.blocks[size_class][--lists.counts[size_class]];
            storage->references.store(1, std::memory_order_relaxed);
            return storage;
        }
        bytes = rounded;
    } else {
        bytes = aligned(bytes);
    }
    if (!account(static_cast<std::int64_t>(bytes), limit)) return nullptr;
    static_assert(sizeof(Storage) <= alignment);
    void* memory = std::aligned_alloc(alignment, alignment + bytes);
    if (memory == nullptr) {
        account(-static_cast<std::int64_t>(bytes), SIZE_MAX);
        return nullptr;
    }
    Storage* storage = new (memory) Storage;
    storage->data = static_cast<std::uint8_t*>(memory) + alignment;
    storage->bytes = bytes;
    storage->size_class = size_class;
    return storage;
}

Storage* foreign_storage(void* foreign, void (*release)(void*)) {
    void* memory = std::aligned_alloc(alignment, alignment);
    if (memory == nullptr) return nullptr;
    Storage* storage = new (memory) Storage;
    storage->foreign = foreign;
    storage->release_foreign = release;
    return storage;
}

void destroy(Storage* storage) {
    if (storage->release_foreign != nullptr) storage->release_foreign(storage->foreign);
    const int size_class = storage->size_class;
    if (size_class >= 0) {
        FreeLists& lists = free_lists;
        if (!lists.closed && lists.counts[size_class] < blocks_kept) {
            lists.blocks[size_class][lists.counts[size_class]++] = storage;
            return;
        }
    }
    free_block(storage);
}

BumpStack::~BumpStack() { drop_chunks_after(0); }

void BumpStack::drop_chunks_after(std::size_t count) {
    while (chunks_.size() > count) {
        std::free(chunks_.back().data);
        account(-static_cast<std::int64_t>(chunks_.back().bytes), SIZE_MAX);
        chunks_.pop_back();
    }
}

std::uint8_t* BumpStack::take_from_another(std::size_t bytes, std::size_t limit) {
    constexpr std::size_t smallest_chunk = 64 << 10;
    const std::size_t next = chunks_.empty() ? 0 : current_ + 1;
    if (next >= chunks_.size() || chunks_[next].bytes < bytes) {
        drop_chunks_after(next);
        // Doubling keeps the number of chunks small; the limit counts what is asked for, not what doubling adds.
        std::size_t size = chunks_.empty() ? smallest_chunk : chunks_.back().bytes * 2;
        if (size < bytes || size > (std::size_t{64} << 20)) size = bytes < smallest_chunk ? smallest_chunk : bytes;
        if (!account(static_cast<std::int64_t>(size), limit)) return nullptr;
        auto* data = static_cast<std::uint8_t*>(std::aligned_alloc(alignment, size));
        if (data == nullptr) {
            account(-static_cast<std::int64_t>(size), SIZE_MAX);
            return nullptr;
        }
        chunks_.push_back({data, size});
    }
    current_ = next;
    used_ = bytes;
    return chunks_[next].data;
}

}  // namespace taut::vm
