// Scratch memory aligned to a cache line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace taut {

class AlignedBuffer {
   public:
    static constexpr std::size_t alignment = 64;

    AlignedBuffer() = default;
    AlignedBuffer(const AlignedBuffer&) = delete;
    AlignedBuffer& operator=(const AlignedBuffer&) = delete;
    ~AlignedBuffer() { release(); }

    // Grows to at least `size` bytes; the content is lost when it grows. Throws std::bad_alloc.
    std::uint8_t* reserve(std::size_t size) {
        if (size > size_) {
            release();
            data_ = static_cast<std::uint8_t*>(::operator new(size, std::align_val_t{alignment}));
            size_ = size;
        }
        return data_;
    }

   private:
    void release() {
        ::operator delete(data_, std::align_val_t{alignment});
        data_ = nullptr;
        size_ = 0;
    }

    std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace taut
