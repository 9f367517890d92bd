// Where the thread that runs is, for who watches its accesses to memory: races.cpp or traffic.cpp,
// of which a build has one or none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_host {

struct Place {
    std::uint32_t cluster, block, thread;
    std::uint32_t block_epoch, cluster_epoch; // barriers passed so far
};

struct Watched {
    bool running = false; // a thread of a kernel, not the host
    bool atomic = false;
    unsigned vector = 0; // not 0: the number of the vector that the access is a part of
    Place place{};
    const char *stack_begin = nullptr, *stack_end = nullptr;     // of the thread
    const char *callers_begin = nullptr, *callers_end = nullptr; // frames with parameters
    const char *shared_begin = nullptr, *shared_end = nullptr; // shared memory, of each block anew
};

extern Watched watched;

// Of the watching unit; `from` is the place in the code. Called for what is memory on a device, so
// not for a thread's own stack, parameters, and variables like threadIdx.
void access(const void* address, std::size_t size, bool writes, const void* from);

// What it does before a launch and after it; the latter says what was wrong, or nothing.
extern void (*before_launch)();
extern std::string (*after_launch)();

} // namespace cuda_host
