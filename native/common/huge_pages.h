// Large pages under large results.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace taut {

// Asks for large pages under memory that may be written for the first time, since the allocator gives large blocks back
// to the system: to get it page by page takes longer than to fill it.
inline void prefer_huge_pages(void* data, std::size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::size_t least = std::size_t{4} << 20;
    constexpr std::uintptr_t page = std::uintptr_t{2} << 20;
    if (size < least) return;
    const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
    const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(data) + size) / page * page;
    // A system without them refuses, which changes nothing.
    static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
#else
    static_cast<void>(data);
    static_cast<void>(size);
#endif
}

}  // namespace taut
