// The compiler calls these functions before each access of the units that it compiles with
// -fsanitize=thread; this unit stands in for its runtime library.
#include "cuda_runtime.h"
#include "watch.h"

namespace {

bool is_within(const void* address, const void* begin, const void* end) {
    return address >= begin && address < end;
}

bool is_built_in(const void* address) {
    return is_within(address, &threadIdx, &threadIdx + 1) ||
           is_within(address, &blockIdx, &blockIdx + 1) ||
           is_within(address, &blockDim, &blockDim + 1) ||
           is_within(address, &gridDim, &gridDim + 1);
}

void passed(const void* address, std::size_t size, bool writes, const void* from) {
    const cuda_host::Watched& now = cuda_host::watched;
    if (now.running && !is_within(address, now.stack_begin, now.stack_end) &&
        !is_within(address, now.callers_begin, now.callers_end) && !is_built_in(address)) {
        cuda_host::access(address, size, writes, from);
    }
}

} // namespace

#define WATCH(size)                                                                                \
    void __tsan_read##size(void* at) {                                                             \
        passed(at, size, false, __builtin_return_address(0));                                      \
    }                                                                                              \
    void __tsan_write##size(void* at) {                                                            \
        passed(at, size, true, __builtin_return_address(0));                                       \
    }

extern "C" {

WATCH(1)
WATCH(2)
WATCH(4)
WATCH(8)
WATCH(16)

void __tsan_read_range(void* at, std::size_t size) {
    passed(at, size, false, __builtin_return_address(0));
}

void __tsan_write_range(void* at, std::size_t size) {
    passed(at, size, true, __builtin_return_address(0));
}

void __tsan_init() {}
}
