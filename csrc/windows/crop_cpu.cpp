// Cuts the cropping of windows into pieces and spreads them over threads.
#include <algorithm>

#include "../common/bilinear.h"
#include "../common/parallel.h"
#include "../cpu/dispatch.h"
#include "windows.h"
#include "windows_kernels.h"

namespace pyxai::cpu {

namespace {

// Rows written past the cache start at this alignment, and so do the parts of the workspace.
constexpr std::int64_t kLine = 64;
// A multiple of every vector: constants of the channels repeat after this many pixels.
constexpr std::int64_t kPeriodPixels = 16;
constexpr std::int64_t kMinBlockRows = 16;
// Blocks for each thread at least, so that none waits long for the others.
constexpr std::int64_t kBlocksPerThread = 4;
// Larger parts of a photo are not rearranged as a whole: scratch memory is kept between calls.
constexpr std::int64_t kMaxRearrangedBytes = std::int64_t{64} << 20;

std::int64_t value_bytes(const WindowPhoto& photo) {
    return photo.bytes ? 1 : element_bytes(photo.dtype);
}

std::int64_t row_channels(const CropArgs& args) {
    return args.channels_last ? args.channels : 1;
}

// Elements of a row of the result, and the most that a row of a box has.
std::int64_t row_elements(const CropArgs& args) {
    return args.width * row_channels(args);
}

std::int64_t box_elements(const CropArgs& args) {
    return args.photo_width * row_channels(args);
}

// Whether neighbours in a row of the photo are neighbours in the result.
bool is_in_place(const CropArgs& args) {
    const WindowPhoto& photo = args.photo;
    if (args.channels_last && args.channels > 1) {
        return photo.channel_stride == 1 && photo.column_stride == args.channels;
    }
    return photo.column_stride == 1;
}

std::int64_t area(const WindowBox& box) {
    return (box.x1 - box.x0) * (box.y1 - box.y0);
}

std::int64_t rearranged_bytes(const CropArgs& args, const WindowBox& part) {
    const std::int64_t bytes = area(part) * args.channels * value_bytes(args.photo);
    return (bytes + kLine - 1) / kLine * kLine;
}

// The part of the photo that the boxes touch, if it pays to rearrange that as a whole; empty
// otherwise.
WindowBox rearranged_part(const CropArgs& args) {
    const WindowBox none{0, 0, 0, 0};
    if (is_in_place(args)) {
        return none;
    }
    WindowBox part = args.boxes[0];
    double total = 0.0; // which no number of boxes makes too large
    for (std::int64_t i = 0; i < args.count; ++i) {
        const WindowBox& box = args.boxes[i];
        part = WindowBox{std::min(part.x0, box.x0), std::min(part.y0, box.y0),
                         std::max(part.x1, box.x1), std::max(part.y1, box.y1)};
        total += static_cast<double>(area(box));
    }
    const bool pays = total > static_cast<double>(area(part)) &&
                      rearranged_bytes(args, part) <= kMaxRearrangedBytes;
    return pays ? part : none;
}

// Floats of memory: for the constants of the channels; of a thread: for the taps of one size of
// box, and for rows.
std::int64_t constants_part(const CropArgs& args) {
    return 2 * kPeriodPixels * args.channels;
}

std::int64_t taps_part(const CropArgs& args) {
    return 4 * padded(row_elements(args)) + 2 * padded(args.height);
}

std::int64_t thread_part(const CropArgs& args) {
    return taps_part(args) + 2 * padded(box_elements(args)) + 2 * padded(row_elements(args));
}

// Taps for boxes of one size.
struct BoxTaps {
    std::int64_t box_height = 0, box_width = 0;
    WindowColumns columns;
    Resize resize;
};

class Cropper {
  public:
    Cropper(const CropArgs& args, void* memory)
        : kernels_(window_kernels()), args_(args), photo_(args.photo), in_place_(is_in_place(args)),
          scale_(static_cast<float*>(memory)), shift_(scale_ + kPeriodPixels * args.channels),
          period_(kPeriodPixels * row_channels(args)), rearranged_(rearranged_part(args)),
          window_bytes_(args.height * args.width * args.channels * element_bytes(args.dtype)) {
        const std::int64_t constants = kPeriodPixels * args.channels;
        for (std::int64_t i = 0; i < constants; ++i) {
            const std::int64_t c = args.channels_last ? i % args.channels : i / kPeriodPixels;
            scale_[i] = args.scale[c];
            shift_[i] = args.shift[c];
        }
        char* const part = reinterpret_cast<char*>(scale_ + constants_part(args));
        scratch_ = reinterpret_cast<float*>(part + rearranged_bytes(args, rearranged_));
        streamed_ = args.count * window_bytes_ > last_level_cache_bytes() &&
                    row_elements(args) * element_bytes(args.dtype) % kLine == 0 &&
                    reinterpret_cast<std::uintptr_t>(args.out) % kLine == 0;
        part_ = part;
    }

    void all(int num_threads) {
        rearrange(num_threads);
        const std::int64_t wanted = kBlocksPerThread * num_threads;
        const std::int64_t cuts = num_threads == 1 ? 1 : (wanted + args_.count - 1) / args_.count;
        const std::int64_t rows =
            std::min(args_.height, std::max(kMinBlockRows, (args_.height + cuts - 1) / cuts));
        const std::int64_t blocks = (args_.height + rows - 1) / rows;
        parallel_for(args_.count * blocks, rows * args_.width * args_.channels, num_threads,
                     [&](std::int64_t begin, std::int64_t end, int thread) {
                         float* const scratch = scratch_ + thread * thread_part(args_);
                         BoxTaps taps;
                         for (std::int64_t i = begin; i < end; ++i) {
                             const std::int64_t row = i % blocks * rows;
                             window(i / blocks, row, std::min(row + rows, args_.height), taps,
                                    scratch);
                         }
                     });
    }

  private:
    const void* pixel(std::int64_t y, std::int64_t x) const {
        return static_cast<const char*>(photo_.data) +
               (y * photo_.row_stride + x * photo_.column_stride) * value_bytes(photo_);
    }

    // From here on the photo is the rearranged one, its first pixel where it would lie.
    void rearrange(int num_threads) {
        const WindowBox& part = rearranged_;
        const std::int64_t rows = part.y1 - part.y0, columns = part.x1 - part.x0;
        if (rows == 0) {
            return;
        }
        WindowPhoto photo = photo_;
        photo.data = pixel(part.y0, part.x0);
        parallel_for(rows, columns * args_.channels, num_threads,
                     [&](std::int64_t begin, std::int64_t end, int) {
                         kernels_.rearrange_rows(RearrangePiece{photo, args_.channels_last,
                                                                args_.channels, rows, columns,
                                                                begin, end, part_});
                     });
        in_place_ = true;
        const std::int64_t channels = row_channels(args_);
        photo_.channel_stride = args_.channels_last ? 1 : rows * columns;
        photo_.row_stride = columns * channels;
        photo_.column_stride = channels;
        photo_.data = part_;
    }

    void window(std::int64_t index, std::int64_t row_begin, std::int64_t row_end, BoxTaps& taps,
                float* scratch) const {
        const WindowBox& box = args_.boxes[index];
        const std::int64_t box_height = box.y1 - box.y0, box_width = box.x1 - box.x0;
        CropPiece piece;
        piece.photo = photo_;
        piece.photo.data = pixel(box.y0 - rearranged_.y0, box.x0 - rearranged_.x0);
        piece.in_place = in_place_;
        piece.resized = box_height != args_.height || box_width != args_.width;
        if (piece.resized && (box_height != taps.box_height || box_width != taps.box_width)) {
            taps = make_taps(box_height, box_width, scratch);
        }
        piece.columns = taps.columns;
        piece.resize = taps.resize;
        piece.resize.height = args_.height;
        piece.resize.width = row_elements(args_);
        piece.scratch = scratch + taps_part(args_);
        piece.strip = piece.scratch + padded(box_elements(args_)) + 2 * padded(row_elements(args_));
        piece.scale = scale_;
        piece.shift = shift_;
        piece.period = period_;
        piece.channels_last = args_.channels_last;
        piece.channels = args_.channels;
        piece.box_width = box_width;
        piece.row_begin = row_begin;
        piece.row_end = row_end;
        piece.out = static_cast<char*>(args_.out) + index * window_bytes_;
        piece.dtype = args_.dtype;
        piece.streamed = streamed_;
        kernels_.crop_window(piece);
    }

    BoxTaps make_taps(std::int64_t box_height, std::int64_t box_width, float* memory) const {
        const std::int64_t elements = row_elements(args_), channels = row_channels(args_);
        std::int32_t* const base = reinterpret_cast<std::int32_t*>(memory);
        std::int32_t* const low = base + padded(elements);
        std::int32_t* const high = low + padded(elements);
        float* const weight = reinterpret_cast<float*>(high + padded(elements));
        std::int32_t* const row_low = reinterpret_cast<std::int32_t*>(weight + padded(elements));
        float* const row_weight = reinterpret_cast<float*>(row_low + padded(args_.height));
        const float across = static_cast<float>(box_width) / static_cast<float>(args_.width);
        for (std::int64_t x = 0, i = 0; x < args_.width; ++x) {
            const Tap tap = bilinear_tap(x, box_width, across);
            for (std::int64_t c = 0; c < channels; ++c, ++i) {
                low[i] = static_cast<std::int32_t>(tap.low * channels + c);
                high[i] = static_cast<std::int32_t>(tap.high * channels + c);
                weight[i] = tap.weight;
            }
        }
        // The last vector is whole, so the padding must hold indices that exist.
        for (std::int64_t i = elements; i < elements + kernels_.lanes; ++i) {
            low[i] = low[elements - 1];
            high[i] = high[elements - 1];
            weight[i] = 0.0f;
        }
        std::int32_t span = 0;
        for (std::int64_t i = 0; i < elements; i += kernels_.lanes) {
            const std::int64_t end = i + kernels_.lanes;
            const std::int32_t first = *std::min_element(low + i, low + end);
            base[i / kernels_.lanes] = first;
            for (std::int64_t j = i; j < end; ++j) {
                low[j] -= first;
                high[j] -= first;
                span = std::max(span, high[j] + 1);
            }
        }
        const float down = static_cast<float>(box_height) / static_cast<float>(args_.height);
        for (std::int64_t y = 0; y < args_.height; ++y) {
            const Tap tap = bilinear_tap(y, box_height, down);
            row_low[y] = tap.low;
            row_weight[y] = tap.weight;
        }
        return BoxTaps{box_height, box_width, WindowColumns{base, low, high, weight, span},
                       Resize{box_height, box_width, args_.height, elements, nullptr, nullptr,
                              nullptr, row_low, row_weight}};
    }

    const WindowKernels& kernels_;
    const CropArgs& args_;
    WindowPhoto photo_;
    bool in_place_;
    float* scale_;
    float* shift_;
    std::int64_t period_;
    WindowBox rearranged_; // where the photo begins, once that is done
    std::int64_t window_bytes_;
    void* part_;
    float* scratch_; // one area a thread
    bool streamed_;
};

} // namespace

BoxSurvey survey_boxes(const WindowBox* boxes, std::int64_t count, std::int64_t photo_height,
                       std::int64_t photo_width) {
    BoxSurvey survey{-1, 0, 0};
    bool alike = count > 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const WindowBox& box = boxes[i];
        if (box.x0 < 0 || box.y0 < 0 || box.x1 <= box.x0 || box.y1 <= box.y0 ||
            box.x1 > photo_width || box.y1 > photo_height) {
            survey.first_bad = i;
            return survey;
        }
        alike = alike && box.x1 - box.x0 == boxes[0].x1 - boxes[0].x0 &&
                box.y1 - box.y0 == boxes[0].y1 - boxes[0].y0;
    }
    if (alike) {
        survey.height = boxes[0].y1 - boxes[0].y0;
        survey.width = boxes[0].x1 - boxes[0].x0;
    }
    return survey;
}

std::int64_t crop_workspace(const CropArgs& args, int num_threads) {
    if (args.count == 0) {
        return 0;
    }
    return 4 * (constants_part(args) + num_threads * thread_part(args)) +
           rearranged_bytes(args, rearranged_part(args));
}

void crop(const CropArgs& args, void* workspace, int num_threads) {
    if (args.count > 0) {
        Cropper(args, workspace).all(num_threads);
    }
}

} // namespace pyxai::cpu
