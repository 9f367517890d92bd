// The only place that opens an OpenMP region.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace pyxai {

// Below this many element operations per thread a region costs more than it saves.
constexpr std::int64_t kGrain = 32768;

// How many threads `items` pieces of `work_per_item` element operations deserve.
inline int useful_threads(std::int64_t items, std::int64_t work_per_item, int num_threads) {
    const std::int64_t by_work = items * std::max<std::int64_t>(work_per_item, 1) / kGrain;
    return static_cast<int>(std::max<std::int64_t>(
        1, std::min<std::int64_t>({static_cast<std::int64_t>(num_threads), items, by_work})));
}

// Calls f(begin, end, thread) on contiguous, disjoint ranges that cover [0, items). With one useful
// thread no region is opened: a forked worker of a threaded parent would hang in one.
template <class Function>
void parallel_for(std::int64_t items, std::int64_t work_per_item, int num_threads,
                  const Function& f) {
    if (items <= 0) {
        return;
    }
    const int threads = useful_threads(items, work_per_item, num_threads);
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            // The runtime may grant fewer threads than asked for.
            const std::int64_t count = omp_get_num_threads();
            const std::int64_t index = omp_get_thread_num();
            const std::int64_t begin = items * index / count;
            const std::int64_t end = items * (index + 1) / count;
            if (begin < end) {
                f(begin, end, static_cast<int>(index));
            }
        }
        return;
    }
#endif
    f(std::int64_t{0}, items, 0);
}

} // namespace pyxai
