// Runs the threads of a block as fibres; see cuda_runtime.h.
#include <algorithm>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "cuda_runtime.h"
#include "watch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define CUDA_HOST_ASAN 1
#else
#define CUDA_HOST_ASAN 0
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// How often `run` was called.
extern "C" __attribute__((visibility("default"))) std::uint64_t cuda_host_launches = 0;

// Of a larger launch only so many blocks run, the last ones.
extern "C" __attribute__((visibility("default"))) std::uint64_t cuda_host_most_blocks = UINT64_MAX;

// The linker's names for the ends of the section that holds shared memory.
extern "C" char __start_cuda_shared[] __attribute__((visibility("hidden"), weak));
extern "C" char __stop_cuda_shared[] __attribute__((visibility("hidden"), weak));

namespace cuda_host {

Watched watched;
void (*before_launch)() = [] {};
std::string (*after_launch)() = [] { return std::string(); };

namespace {

constexpr std::size_t kStack = std::size_t{256} << 10;
constexpr std::size_t kCallers = std::size_t{16} << 10; // more than their frames take
constexpr unsigned kMaxThreads = 1024;
constexpr int kWarpLanes = 32;

constexpr unsigned kMaxCluster = 8;

enum class State { kReady, kAtBarrier, kAtShuffle, kAtCluster, kDone };

struct Fibre {
    ucontext_t context; // of the start; later switches take `jump`, which makes no system call
    jmp_buf jump;
    bool started = false;
    char* stack = nullptr;
    State state = State::kDone;
    uint3 index{};
    int line = 0, predicate = 0; // of the barrier
    bool arrived = false;        // at that of the cluster
    unsigned mask = 0;           // of the shuffle
    int source = 0;
    std::uint64_t value = 0, result = 0;
};

std::mutex one_launch;     // the built-ins above are of the whole process
std::vector<Fibre> fibres; // of all blocks of a cluster, kMaxThreads each
Fibre* block = nullptr;    // those of the block that runs
jmp_buf scheduler_jump;
Fibre* current = nullptr;
const std::function<void()>* body = nullptr;
std::mt19937 shuffled(0);
const void* scheduler_stack = nullptr; // for the address sanitizer
std::size_t scheduler_size = 0;

// The built-ins, unlike the library's functions, leave the red zones of the stacks as they are.
#if CUDA_HOST_ASAN
#define SAVE(place) __builtin_setjmp(place)
#define GO_TO(place) __builtin_longjmp(place, 1)
#define SWITCHES __attribute__((noinline, no_sanitize("address", "undefined")))
#else
#define SAVE(place) _setjmp(place)
#define GO_TO(place) _longjmp(place, 1)
#define SWITCHES
#endif

void announce([[maybe_unused]] const void* stack, [[maybe_unused]] std::size_t size) {
#if CUDA_HOST_ASAN
    __sanitizer_start_switch_fiber(nullptr, stack, size);
#endif
}

void arrive([[maybe_unused]] const void** from = nullptr,
            [[maybe_unused]] std::size_t* size = nullptr) {
#if CUDA_HOST_ASAN
    __sanitizer_finish_switch_fiber(nullptr, from, size);
#endif
}

SWITCHES void leave() {
    announce(scheduler_stack, scheduler_size);
    if (SAVE(current->jump) == 0) {
        GO_TO(scheduler_jump);
    }
    arrive(&scheduler_stack, &scheduler_size);
}

SWITCHES void enter(Fibre& fibre) {
    announce(fibre.stack, kStack);
    if (SAVE(scheduler_jump) == 0) {
        if (fibre.started) {
            GO_TO(fibre.jump);
        }
        fibre.started = true;
        setcontext(&fibre.context);
    }
    arrive();
}

// A fibre runs the kernel again and again, once for each block.
void begin() {
    arrive(&scheduler_stack, &scheduler_size);
    while (true) {
        (*body)();
        current->state = State::kDone;
        leave();
    }
}

void resume(Fibre& fibre) {
    current = &fibre;
    threadIdx = fibre.index;
    watched.place.thread = static_cast<std::uint32_t>(&fibre - block);
    watched.stack_begin = fibre.stack;
    watched.stack_end = fibre.stack + kStack;
    watched.running = true;
    enter(fibre);
    watched.running = false;
}

void start(Fibre& fibre, unsigned thread) {
    if (fibre.stack == nullptr) {
        void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            throw std::runtime_error("CUDA on the host: no memory for stacks");
        }
        fibre.stack = static_cast<char*>(memory);
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack;
        fibre.context.uc_stack.ss_size = kStack;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, begin, 0);
    }
    fibre.index = {thread % blockDim.x, thread / blockDim.x % blockDim.y,
                   thread / blockDim.x / blockDim.y};
    fibre.state = State::kReady;
}

// The fibres of the block stay where they are, so others must be made for the next.
[[noreturn]] void fail(const std::string& what) {
    fibres.clear();
    throw std::runtime_error("CUDA on the host: " + what);
}

// Lets the lanes of the warp go on whose shuffle is complete.
bool release_warp(unsigned first, unsigned threads) {
    bool released = false;
    for (unsigned i = first; i < std::min(first + kWarpLanes, threads); ++i) {
        if (block[i].state != State::kAtShuffle) {
            continue;
        }
        const unsigned mask = block[i].mask;
        if ((mask >> (i - first) & 1) == 0) {
            fail("a lane shuffles with a mask that lacks it");
        }
        bool complete = true;
        for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
            if ((mask >> lane & 1) != 0) {
                if (first + lane >= threads || block[first + lane].state == State::kDone) {
                    fail("a shuffle waits for a lane that is not there");
                }
                const Fibre& other = block[first + lane];
                complete = complete && other.state == State::kAtShuffle && other.mask == mask;
            }
        }
        if (!complete) {
            continue;
        }
        for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
            if ((mask >> lane & 1) != 0) {
                Fibre& fibre = block[first + lane];
                if ((mask >> fibre.source & 1) == 0) {
                    fail("a shuffle reads a lane that its mask lacks");
                }
                fibre.result = block[first + static_cast<unsigned>(fibre.source)].value;
                fibre.state = State::kReady;
            }
        }
        released = true;
    }
    return released;
}

// Lets the block go on when all threads that have not ended wait at one barrier.
bool release_block(unsigned threads) {
    int line = 0, predicate = 1;
    for (unsigned i = 0; i < threads; ++i) {
        const Fibre& fibre = block[i];
        if (fibre.state == State::kDone || fibre.state == State::kAtCluster) {
            continue; // if others wait at a barrier for the latter, it is in vain
        }
        if (fibre.state != State::kAtBarrier || (line != 0 && line != fibre.line)) {
            return false;
        }
        line = fibre.line;
        predicate = predicate && fibre.predicate;
    }
    ++watched.place.block_epoch;
    for (unsigned i = 0; i < threads; ++i) {
        if (block[i].state == State::kAtBarrier) {
            block[i].predicate = predicate;
            block[i].state = State::kReady;
        }
    }
    return true;
}

// All bits set is a NaN in every floating-point type. With the address sanitizer there is no such
// section: red zones lie between the variables there.
void poison_shared() {
    if (__start_cuda_shared != nullptr) {
        std::memset(__start_cuda_shared, 0xff,
                    static_cast<std::size_t>(__stop_cuda_shared - __start_cuda_shared));
    }
}

void start_block(unsigned threads) {
    for (unsigned i = 0; i < threads; ++i) {
        start(block[i], i);
    }
}

// Until all threads have ended, or wait for the cluster; returns whether they do.
bool run_block(unsigned threads) {
    poison_shared();
    std::vector<unsigned> warps((threads + kWarpLanes - 1) / kWarpLanes);
    for (unsigned i = 0; i < warps.size(); ++i) {
        warps[i] = i * kWarpLanes;
    }
    while (true) {
        std::shuffle(warps.begin(), warps.end(), shuffled);
        unsigned done = 0, waiting = 0;
        bool moved = false;
        for (const unsigned first : warps) {
            do {
                for (unsigned i = first; i < std::min(first + kWarpLanes, threads); ++i) {
                    if (block[i].state == State::kReady) {
                        resume(block[i]);
                        moved = true;
                    }
                }
            } while (release_warp(first, threads));
        }
        for (unsigned i = 0; i < threads; ++i) {
            done += block[i].state == State::kDone;
            waiting += block[i].state == State::kAtCluster;
        }
        if (done == threads || waiting == threads) {
            return waiting == threads;
        }
        if (!release_block(threads) && !moved) {
            fail("threads of a block wait at different barriers or shuffles, for ever");
        }
    }
}

// The blocks from `first` on, `cluster` of them.
void run_cluster(std::uint64_t first, unsigned cluster, unsigned threads) {
    std::vector<unsigned> order(cluster);
    for (unsigned rank = 0; rank < cluster; ++rank) {
        order[rank] = rank;
        block = fibres.data() + rank * kMaxThreads;
        start_block(threads);
    }
    watched.place.cluster = static_cast<std::uint32_t>(first);
    watched.place.cluster_epoch = 0;
    watched.place.block_epoch = 0; // grows through all blocks of the cluster
    unsigned waiting = cluster;
    while (waiting > 0) {
        std::shuffle(order.begin(), order.end(), shuffled);
        waiting = 0;
        for (const unsigned rank : order) {
            const std::uint64_t i = first + rank;
            blockIdx = {static_cast<unsigned>(i % gridDim.x),
                        static_cast<unsigned>(i / gridDim.x % gridDim.y),
                        static_cast<unsigned>(i / gridDim.x / gridDim.y)};
            block = fibres.data() + rank * kMaxThreads;
            watched.place.block = static_cast<std::uint32_t>(i);
            waiting += run_block(threads);
            ++watched.place.block_epoch; // what the block does next is after the cluster's barrier
        }
        ++watched.place.cluster_epoch;
        if (waiting != 0 && waiting != cluster) {
            fail("blocks of a cluster wait for others that have ended");
        }
        for (unsigned rank = 0; rank < waiting; ++rank) {
            for (unsigned i = 0; i < threads; ++i) {
                fibres[rank * kMaxThreads + i].state = State::kReady;
            }
        }
    }
}

} // namespace

int sync_block(int line, int predicate) {
    Fibre& fibre = *current;
    fibre.state = State::kAtBarrier;
    fibre.line = line;
    fibre.predicate = predicate;
    leave();
    return fibre.predicate;
}

void sync_cluster(bool arrive) {
    if (arrive != current->arrived) {
        current->arrived = arrive;
    } else {
        fail("an arrival at the barrier of a cluster without its wait, or a wait without it");
    }
    if (!arrive) {
        current->state = State::kAtCluster;
        leave();
    }
}

int lane() {
    return static_cast<int>(current - block) % kWarpLanes;
}

std::uint64_t shuffle(unsigned mask, int source_lane, std::uint64_t value) {
    Fibre& fibre = *current;
    fibre.state = State::kAtShuffle;
    fibre.mask = mask;
    fibre.source = source_lane;
    fibre.value = value;
    leave();
    return fibre.result;
}

void begin_vector() {
    static unsigned number = 0;
    watched.vector = ++number;
}

void end_vector() {
    watched.vector = 0;
}

void begin_atomic() {
    watched.atomic = true;
}

void end_atomic() {
    watched.atomic = false;
}

void run(dim3 grid, dim3 block_size, unsigned cluster, const std::function<void()>& kernel) {
    const std::uint64_t threads = std::uint64_t{block_size.x} * block_size.y * block_size.z;
    const std::uint64_t count = std::uint64_t{grid.x} * grid.y * grid.z;
    if (threads == 0 || threads > kMaxThreads || count == 0 || grid.y > 65535 || grid.z > 65535 ||
        cluster == 0 || cluster > kMaxCluster || grid.x % cluster != 0) {
        throw std::runtime_error(
            "CUDA on the host: a grid, cluster or block of a size that a device refuses");
    }
    const std::lock_guard<std::mutex> locked(one_launch);
    fibres.resize(std::size_t{kMaxThreads} * kMaxCluster);
    ++cuda_host_launches;
    before_launch();
    watched.callers_begin = static_cast<const char*>(__builtin_frame_address(0));
    watched.callers_end = watched.callers_begin + kCallers;
    watched.shared_begin = __start_cuda_shared;
    watched.shared_end = __stop_cuda_shared;
    body = &kernel;
    blockDim = block_size;
    gridDim = grid;
    std::vector<std::uint64_t> order(std::min(count, cuda_host_most_blocks) / cluster);
    for (std::uint64_t i = 0; i < order.size(); ++i) {
        order[i] = count - (i + 1) * cluster;
    }
    std::shuffle(order.begin(), order.end(), shuffled);
    for (const std::uint64_t first : order) {
        run_cluster(first, cluster, static_cast<unsigned>(threads));
    }
    if (const std::string race = after_launch(); !race.empty()) {
        throw std::runtime_error("CUDA on the host: " + race);
    }
}

} // namespace cuda_host
