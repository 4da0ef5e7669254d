// Sizes of the data caches in bytes.
#pragma once

#include <cstddef>

namespace taut {

struct CacheSizes {
    std::size_t level1;
    std::size_t level2;
    std::size_t level3;
};

// From Linux' sysfs; a level that is not described there gets a common size (32 KiB, 512 KiB, 8 times level 2).
CacheSizes cache_sizes();

}  // namespace taut
