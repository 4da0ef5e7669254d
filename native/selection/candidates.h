// The entries of a tensor that reach a bound, kept in passing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/parallel.h"
#include "selection/sample.h"
#include "selection/selection.h"

namespace taut {

class CandidateList {
   public:
    // Adds the gradient and keeps what reaches the bound. One thread fills the memory of the results first, up to the end of
    // it, and then its own; of several threads each has its own. Throws std::bad_alloc.
    CandidateList(const SelectionKernels& kernels, const TopKCall& call, const Bounds& bounds, int threads)
        : kernels_(kernels), call_(call), bounds_(bounds) {
        reserve(threads);
        parallel(threads, [&](int thread, int count) {
            for (int t = thread; t < threads; t += count) {
                threads == 1 ? fill(segments_.data(), segments_.data() + 1, {0, call_.size})
                             : fill(&segments_[t], &segments_[t], share(call_.size, t, threads));
            }
        });
    }

    // How many entries reach the bound, or -1 if there was no room for them.
    std::int64_t kept() const { return total(&Segment::kept); }

    // How many of them lie within the bounds, or -1 if there was no room for them or the bounds are open.
    std::int64_t undecided() const {
        return bounds_.certain == magnitude_end ? -1 : total(&Segment::undecided);
    }

    std::vector<Candidates> kept_runs() const { return runs(&Segment::kept); }
    std::vector<Candidates> undecided_runs() const { return runs(&Segment::undecided); }

   private:
    // Elements that stay in a near cache between adding the gradient and looking at the sum.
    static constexpr std::int64_t chunk = 1 << 14;
    // Entries that are kept before the undecided ones are looked for among them.
    static constexpr std::int64_t least_sorted = 1 << 11;

    struct Segment {
        Entries kept;
        Entries undecided;        // their values
        std::int64_t sorted = 0;  // kept entries of which the undecided ones are known
    };

    void reserve(int threads) {
        static thread_local AlignedBuffer buffer;
        const auto room = [&](std::int64_t expected) {
            return std::min(call_.size, expected * 3 / (2 * threads) + (1 << 14));
        };
        const std::int64_t kept = room(bounds_.kept);
        const std::int64_t undecided = bounds_.certain == magnitude_end ? 0 : room(bounds_.undecided);
        const std::int64_t segments = threads == 1 ? 2 : threads;
        std::uint8_t* memory = buffer.reserve(static_cast<std::size_t>(threads * kept * 8 + segments * undecided * 4));
        const auto values = [&](std::int64_t capacity) {
            return reinterpret_cast<float*>(std::exchange(memory, memory + capacity * 4));
        };
        const auto add = [&](Entries entries) { segments_.push_back({entries, {nullptr, values(undecided), undecided, 0}}); };
        if (threads == 1) add({call_.indices, call_.values, call_.k, 0});
        for (int t = 0; t < threads; ++t) {
            auto* indices = reinterpret_cast<std::int32_t*>(values(kept));
            add({indices, values(kept), kept, 0});
        }
    }

    void fill(Segment* segment, const Segment* last, Range range) {
        for (std::int64_t begin = range.begin; begin < range.end; begin += chunk) {
            const std::int64_t size = std::min(chunk, range.end - begin);
            if (segment != last && segment->kept.count + size > segment->kept.capacity) sort_out(*segment++);
            const bool adds = call_.gradient != nullptr;
            if (adds) kernels_.add(call_.gradient + begin, call_.x + begin, size);
            kernels_.collect({call_.x + begin, nullptr, begin, size, adds}, at_least(bounds_.least), segment->kept);
            if (segment->kept.count - segment->sorted >= least_sorted) sort_out(*segment);
        }
        sort_out(*segment);
    }

    // Finds what is undecided among the entries kept last, which are still in a cache.
    void sort_out(Segment& segment) const {
        const std::int64_t end = std::min(segment.kept.count, segment.kept.capacity);
        if (bounds_.certain != magnitude_end && segment.sorted < end) {
            const std::int64_t begin = segment.sorted;
            kernels_.collect({segment.kept.values + begin, nullptr, 0, end - begin}, bounds_.band(),
                             segment.undecided);
        }
        segment.sorted = end;
    }

    std::int64_t total(Entries Segment::* entries) const {
        std::int64_t sum = 0;
        for (const Segment& segment : segments_) {
            if ((segment.*entries).count > (segment.*entries).capacity) return -1;
            sum += (segment.*entries).count;
        }
        return sum;
    }

    std::vector<Candidates> runs(Entries Segment::* entries) const {
        std::vector<Candidates> all;
        for (const Segment& segment : segments_) {
            const Entries& part = segment.*entries;
            all.push_back({part.values, part.indices, 0, part.count});
        }
        return all;
    }

    const SelectionKernels& kernels_;
    const TopKCall& call_;
    const Bounds bounds_;
    std::vector<Segment> segments_;
};

}  // namespace taut
