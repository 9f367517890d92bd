// Scores of windows as a map over the photo. Integers, one pass over the pixels: nothing here
// would gain from an instruction set.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../common/parallel.h"
#include "heatmap_scale.h"
#include "windows.h"

namespace pyxai::cpu {

namespace {

// The boxes that begin or end at each row, sorted by row: 2 * box, plus 1 where it ends.
struct RowEvents {
    std::int64_t* first; // [height + 1] where those of a row begin; the last is where all end
    std::int64_t* events;

    RowEvents(const HeatmapArgs& args, std::int64_t* memory)
        : first(memory), events(memory + args.height + 2) {
        // Counted one row further than they belong, so that filling them in moves each start to
        // its place.
        std::fill_n(first, args.height + 2, std::int64_t{0});
        const auto each = [&](const auto& use) {
            for (std::int64_t i = 0; i < args.count; ++i) {
                use(args.boxes[i].y0, 2 * i);
                if (args.boxes[i].y1 < args.height) {
                    use(args.boxes[i].y1, 2 * i + 1);
                }
            }
        };
        each([&](std::int64_t row, std::int64_t) { ++first[row + 2]; });
        for (std::int64_t row = 0; row < args.height; ++row) {
            first[row + 2] += first[row + 1];
        }
        each([&](std::int64_t row, std::int64_t event) { events[first[row + 1]++] = event; });
    }
};

std::int64_t events_part(const HeatmapArgs& args) {
    return args.height + 2 + 2 * args.count;
}

// What a map adds from each column on: to the sum, and to the number of boxes.
std::int64_t thread_part(const HeatmapArgs& args) {
    return 2 * (args.width + 1);
}

void one_map(const HeatmapArgs& args, const RowEvents& rows, std::int64_t map,
             std::int64_t* changes) {
    const float* const scores = args.scores + map * args.count;
    float* const out = args.out + map * args.height * args.width;
    std::int64_t* const sums = changes;
    std::int64_t* const counts = changes + args.width + 1;
    std::fill_n(changes, thread_part(args), std::int64_t{0});
    float largest = 0.0f;
    bool finite = true;
    for (std::int64_t i = 0; i < args.count; ++i) {
        largest = std::max(largest, std::fabs(scores[i]));
        finite = finite && std::isfinite(scores[i]);
    }
    if (!finite) {
        std::fill_n(out, args.height * args.width, std::numeric_limits<float>::quiet_NaN());
        return;
    }
    const int shift = heatmap_shift(largest, args.count);
    const double scale = std::ldexp(1.0, shift), unit = std::ldexp(1.0, -shift);
    for (std::int64_t y = 0; y < args.height; ++y) {
        float* const row = out + y * args.width;
        if (y > 0 && rows.first[y] == rows.first[y + 1]) {
            std::memcpy(row, row - args.width, static_cast<std::size_t>(args.width) * sizeof *row);
            continue;
        }
        for (std::int64_t i = rows.first[y]; i < rows.first[y + 1]; ++i) {
            const WindowBox& box = args.boxes[rows.events[i] / 2];
            const std::int64_t sign = rows.events[i] % 2 == 0 ? 1 : -1;
            const std::int64_t score =
                sign * std::llrint(static_cast<double>(scores[rows.events[i] / 2]) * scale);
            sums[box.x0] += score;
            sums[box.x1] -= score;
            counts[box.x0] += sign;
            counts[box.x1] -= sign;
        }
        std::int64_t sum = 0, count = 0;
        for (std::int64_t x = 0; x < args.width; ++x) {
            sum += sums[x];
            count += counts[x];
            row[x] = count == 0 ? args.fill : heatmap_mean(sum, count, unit);
        }
    }
}

} // namespace

std::int64_t heatmap_workspace(const HeatmapArgs& args, int num_threads) {
    return 8 * (events_part(args) + num_threads * thread_part(args));
}

void heatmap(const HeatmapArgs& args, void* workspace, int num_threads) {
    if (args.maps == 0) {
        return;
    }
    std::int64_t* const memory = static_cast<std::int64_t*>(workspace);
    const RowEvents rows(args, memory);
    parallel_for(args.maps, args.height * args.width + args.count, num_threads,
                 [&](std::int64_t begin, std::int64_t end, int thread) {
                     for (std::int64_t map = begin; map < end; ++map) {
                         one_map(args, rows, map,
                                 memory + events_part(args) + thread * thread_part(args));
                     }
                 });
}

} // namespace pyxai::cpu
