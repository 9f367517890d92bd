// Finds races: accesses to the same byte by two threads, one of them a write, with no barrier
// between them.
//
// Threads of a block are ordered by its barriers, blocks of a cluster by those of the cluster,
// other blocks by nothing. Shuffles order nothing.
#include "watch.h"

#include <cstddef>
#include <memory>
#include <sstream>
#include <unordered_map>

#include <dlfcn.h>

namespace cuda_host {
namespace {

struct Access {
    Place place{};
    bool done = false, atomic = false;
};

// Of two readers that no barrier divides both are kept: whoever writes is not one of them.
struct Byte {
    Access write, read, other_read;
};

constexpr std::uintptr_t kPage = 4096;

std::unordered_map<std::uintptr_t, std::unique_ptr<Byte[]>> pages;
std::string found;

bool same_thread(const Place& a, const Place& b) {
    return a.block == b.block && a.thread == b.thread;
}

bool ordered(const Place& before, const Place& now, bool shared) {
    if (before.block == now.block) {
        return before.thread == now.thread || before.block_epoch != now.block_epoch;
    }
    // Shared memory of another block is another memory.
    return shared || (before.cluster == now.cluster && before.cluster_epoch != now.cluster_epoch);
}

std::string describe(const Place& place) {
    std::ostringstream text;
    text << "thread " << place.thread << " of block " << place.block;
    return text.str();
}

// As addr2line takes it, with the module.
std::string offset_of(const void* code) {
    Dl_info module{};
    dladdr(code, &module);
    std::ostringstream text;
    text << reinterpret_cast<const void*>(static_cast<const char*>(code) -
                                          static_cast<const char*>(module.dli_fbase));
    return text.str();
}

void check(const Access& before, const Access& now, bool shared, const char* what,
           const void* from) {
    if (!before.done || ordered(before.place, now.place, shared) || (before.atomic && now.atomic) ||
        !found.empty()) {
        return;
    }
    std::ostringstream text;
    text << "a race in " << (shared ? "shared" : "global") << " memory: " << describe(now.place)
         << ' ' << what << ' ' << describe(before.place) << " (code at " << offset_of(from) << ')';
    found = text.str();
}

} // namespace

void access(const void* address, std::size_t size, bool writes, const void* from) {
    const char* const first = static_cast<const char*>(address);
    const bool shared = first >= watched.shared_begin && first < watched.shared_end;
    const Access now{watched.place, true, watched.atomic};
    for (std::size_t i = 0; i < size; ++i) {
        const auto at = reinterpret_cast<std::uintptr_t>(first + i);
        std::unique_ptr<Byte[]>& page = pages[at / kPage];
        if (page == nullptr) {
            page = std::make_unique<Byte[]>(kPage);
        }
        Byte& byte = page[at % kPage];
        if (writes) {
            check(byte.write, now, shared, "writes what was written by", from);
            check(byte.read, now, shared, "writes what was read by", from);
            check(byte.other_read, now, shared, "writes what was read by", from);
            byte = Byte{now, {}, {}};
            continue;
        }
        check(byte.write, now, shared, "reads what was written by", from);
        if (!byte.read.done || ordered(byte.read.place, now.place, shared)) {
            byte.read = now;
        } else if (!same_thread(byte.read.place, now.place)) {
            byte.other_read = now;
        }
    }
}

namespace {

const bool installed = [] {
    before_launch = [] {
        pages.clear();
        found.clear();
    };
    after_launch = [] { return found; };
    return true;
}();

} // namespace
} // namespace cuda_host
