// Numbers for sets, in the order in which they are first seen.
#pragma once

#include <cstdint>
#include <vector>

#include "schedule/bits.h"

namespace taut::schedule {

template <int W>
class SetTable {
public:
    // The number of `set`; it is size() before the call if the set is new.
    std::uint32_t number(const Bits<W>& set) {
        if (2 * (sets.size() + 1) > slots.size()) grow();
        std::uint32_t& slot = find(set);
        if (slot == 0) {
            sets.push_back(set);
            slot = static_cast<std::uint32_t>(sets.size());
        }
        return slot - 1;
    }

    const Bits<W>& operator[](std::uint32_t number) const { return sets[number]; }
    std::size_t size() const { return sets.size(); }

private:
    std::uint32_t& find(const Bits<W>& set) {
        const std::size_t mask = slots.size() - 1;
        std::size_t place = set.hash() & mask;
        while (slots[place] != 0 && !(sets[slots[place] - 1] == set)) place = (place + 1) & mask;
        return slots[place];
    }

    void grow() {
        slots.assign(slots.empty() ? 64 : 2 * slots.size(), 0);
        for (std::uint32_t i = 0; i < sets.size(); ++i) find(sets[i]) = i + 1;
    }

    std::vector<Bits<W>> sets;
    std::vector<std::uint32_t> slots;  // one more than a number, 0 when free; a power of two of them, at most half full
};

}  // namespace taut::schedule
