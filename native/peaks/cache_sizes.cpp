#include "peaks/cache_sizes.h"

#include <fstream>
#include <string>

namespace taut {
namespace {

std::string read_word(const std::string& path) {
    std::ifstream file(path);
    std::string word;
    file >> word;
    return word;
}

std::size_t parse_size(const std::string& text) {
    std::size_t size = 0;
    for (const char c : text) {
        if (c >= '0' && c <= '9') size = size * 10 + static_cast<std::size_t>(c - '0');
        if (c == 'K') size *= 1024;
        if (c == 'M') size *= 1024 * 1024;
    }
    return size;
}

}  // namespace

CacheSizes cache_sizes() {
    std::size_t sizes[4] = {};
    for (int index = 0; index < 8; ++index) {
        const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
        const std::string type = read_word(folder + "type");
        const std::size_t level = parse_size(read_word(folder + "level"));
        if ((type == "Data" || type == "Unified") && level < 4) sizes[level] = parse_size(read_word(folder + "size"));
    }
    if (sizes[1] == 0) sizes[1] = 32 * 1024;
    if (sizes[2] <= sizes[1]) sizes[2] = 16 * sizes[1];
    if (sizes[3] <= sizes[2]) sizes[3] = 8 * sizes[2];
    return {sizes[1], sizes[2], sizes[3]};
}

}  // namespace taut
