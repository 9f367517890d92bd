// Where the thread that runs is, for who watches its accesses to memory; see races.cpp.
#pragma once

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
    Place place{};
    const char *stack_begin = nullptr, *stack_end = nullptr;   // of the thread
    const char *shared_begin = nullptr, *shared_end = nullptr; // shared memory, of each block anew
};

extern Watched watched;

// Of the build that watches: forgets the launch before; says what was wrong, or nothing.
extern void (*forget_accesses)();
extern std::string (*first_race)();

} // namespace cuda_host
