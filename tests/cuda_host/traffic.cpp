// Counts what a launch asks of memory, in the units of the device: requests of warps, cycles that
// they take in the L1 cache or in shared memory, and sectors of 32 bytes.
//
// The n-th access of a line of code by the lanes of a warp counts as one request. Lanes of one warp
// that take different ways are counted as if they took the same.
#include "watch.h"

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdio>
#include <unordered_map>
#include <vector>

#include <dlfcn.h>

namespace cuda_host {
namespace {

constexpr std::size_t kLanes = 32;
constexpr std::uintptr_t kSector = 32, kLine = 128, kBank = 4, kBanks = 32;
constexpr std::uintptr_t kPageSectors = 4096;

struct Access {
    std::uintptr_t address;
    std::size_t size;
};

// Of one place in the code.
struct Code {
    bool shared = false, writes = false;
    std::vector<std::vector<Access>> threads; // of the block that runs
    std::uint64_t requests = 0, cycles = 0, sectors = 0;
};

struct Sectors {
    std::unordered_map<std::uintptr_t, std::bitset<kPageSectors>> pages;

    void add(std::uintptr_t sector) {
        pages[sector / kPageSectors].set(sector % kPageSectors);
    }

    std::uint64_t count() const {
        std::uint64_t sum = 0;
        for (const auto& page : pages) {
            sum += page.second.count();
        }
        return sum;
    }
};

std::unordered_map<const void*, Code> codes;
Sectors read_once, written_once;
std::uint32_t running_block = ~std::uint32_t{0};
unsigned last_vector = 0; // its number, and where it is listed
std::vector<Access>* last_list = nullptr;
std::string text, taken;

std::size_t count_different(std::vector<std::uintptr_t>& values) {
    std::sort(values.begin(), values.end());
    return static_cast<std::size_t>(std::unique(values.begin(), values.end()) - values.begin());
}

// The most words that one bank gives.
std::size_t conflicts(std::vector<std::uintptr_t>& words) {
    words.resize(count_different(words));
    std::size_t banks[kBanks] = {}, most = 0;
    for (const std::uintptr_t word : words) {
        most = std::max(most, ++banks[word % kBanks]);
    }
    return most;
}

// Shared memory gives 128 bytes at a time, so wide accesses go in groups of lanes.
std::size_t shared_cycles(const std::vector<Access>& lanes) {
    const std::size_t size = lanes.front().size, group = kLanes * kBank / std::max(size, kBank);
    std::size_t cycles = 0;
    for (std::size_t first = 0; first < lanes.size(); first += group) {
        std::vector<std::uintptr_t> words;
        for (std::size_t i = first; i < std::min(first + group, lanes.size()); ++i) {
            for (std::size_t byte = 0; byte < size; byte += kBank) {
                words.push_back((lanes[i].address + byte) / kBank);
            }
        }
        cycles += conflicts(words);
    }
    return cycles;
}

// The different units of so many bytes, where memory began `shift` bytes earlier.
std::vector<std::uintptr_t> units(const std::vector<Access>& lanes, std::uintptr_t unit,
                                  std::uintptr_t shift) {
    std::vector<std::uintptr_t> found;
    for (const Access& lane : lanes) {
        const std::uintptr_t first = lane.address + shift;
        for (std::uintptr_t each = first / unit; each <= (first + lane.size - 1) / unit; ++each) {
            found.push_back(each);
        }
    }
    found.resize(count_different(found));
    return found;
}

void count_request(Code& code, const std::vector<Access>& lanes) {
    ++code.requests;
    if (code.shared) {
        code.cycles += shared_cycles(lanes);
        return;
    }
    // The host aligns memory to half a line, a device to whole ones.
    code.cycles += std::min(units(lanes, kLine, 0).size(), units(lanes, kLine, kLine / 2).size());
    const std::vector<std::uintptr_t> sectors = units(lanes, kSector, 0);
    code.sectors += sectors.size();
    for (const std::uintptr_t sector : sectors) {
        (code.writes ? written_once : read_once).add(sector);
    }
}

void end_block() {
    for (auto& [place, code] : codes) {
        for (std::size_t warp = 0; warp < code.threads.size(); warp += kLanes) {
            const std::size_t end = std::min(warp + kLanes, code.threads.size());
            std::vector<Access> lanes;
            for (std::size_t n = 0, more = 1; more != 0; ++n) {
                lanes.clear();
                for (std::size_t thread = warp; thread < end; ++thread) {
                    if (n < code.threads[thread].size()) {
                        lanes.push_back(code.threads[thread][n]);
                    }
                }
                more = lanes.size();
                if (more != 0) {
                    count_request(code, lanes);
                }
            }
        }
        code.threads.clear();
    }
    last_vector = 0;
}

} // namespace

void access(const void* address, std::size_t size, bool writes, const void* from) {
    if (watched.place.block != running_block) {
        end_block();
        running_block = watched.place.block;
    }
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    if (watched.vector != 0 && watched.vector == last_vector) {
        last_list->back().size += size;
        return;
    }
    Code& code = codes[from];
    code.shared = address >= watched.shared_begin && address < watched.shared_end;
    code.writes = writes;
    code.threads.resize(std::max<std::size_t>(code.threads.size(), watched.place.thread + 1));
    code.threads[watched.place.thread].push_back({at, size});
    last_list = &code.threads[watched.place.thread];
    last_vector = watched.vector;
}

namespace {

void start() {
    codes.clear();
    read_once.pages.clear();
    written_once.pages.clear();
    running_block = ~std::uint32_t{0};
}

// One line for each place in the code, then one for the launch.
std::string end() {
    end_block();
    char line[256];
    for (const auto& [place, code] : codes) {
        Dl_info module{};
        dladdr(place, &module);
        const auto offset = static_cast<std::size_t>(static_cast<const char*>(place) -
                                                     static_cast<const char*>(module.dli_fbase));
        std::snprintf(
            line, sizeof line, "%zx %s %s %zu %zu %zu\n", offset, code.shared ? "shared" : "global",
            code.writes ? "write" : "read", static_cast<std::size_t>(code.requests),
            static_cast<std::size_t>(code.cycles), static_cast<std::size_t>(code.sectors));
        text += line;
    }
    std::snprintf(line, sizeof line, "launch %zu %zu\n",
                  static_cast<std::size_t>(read_once.count()),
                  static_cast<std::size_t>(written_once.count()));
    text += line;
    codes.clear();
    return {};
}

const bool installed = [] {
    before_launch = start;
    after_launch = end;
    return true;
}();

} // namespace
} // namespace cuda_host

// What was counted since the last call.
extern "C" __attribute__((visibility("default"))) const char* cuda_host_traffic() {
    cuda_host::taken = std::move(cuda_host::text);
    cuda_host::text.clear();
    return cuda_host::taken.c_str();
}
