// Bilinear resizing row by row: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

// One source row at full width. `source` must be readable up to kRegisterTable elements.
inline void stretch(const Resize& resize, const float* source, float* out) {
    // The taps and rows are padded to whole vectors, so there is no rest to care for.
    const bool in_registers = resize.source_width <= kRegisterTable;
    for (std::int64_t x = 0; x < resize.width; x += kLanes) {
        const IntVec low_index = load(resize.low + x), high_index = load(resize.high + x);
        const Vec low = in_registers ? permute(source, low_index) : gather(source, low_index);
        const Vec high = in_registers ? permute(source, high_index) : gather(source, high_index);
        store(out + x, low + load(resize.weight + x) * (high - low));
    }
}

// A run of target rows that lie between the same two source rows.
struct RowRun {
    const float* low; // source rows, stretched
    const float* high;
    const float* weights; // of `high`, one for each target row
    std::int64_t rows, width;
};

// Calls use(run, first target row) for each run of the target rows [begin, end).
// stretch_row(source row, out) makes the rows of a run; each is kept as long as it is needed.
// `scratch` has room for two rows.
template <class StretchRow, class UseRun>
inline void for_each_run(const Resize& resize, std::int64_t begin, std::int64_t end, float* scratch,
                         const StretchRow& stretch_row, const UseRun& use) {
    // Two source rows, stretched, and which these are.
    float* rows[2] = {scratch, scratch + padded(resize.width)};
    std::int32_t held[2] = {-1, -1};
    const std::int32_t last = static_cast<std::int32_t>(resize.source_height) - 1;
    std::int64_t y = begin;
    while (y < end) {
        const std::int32_t low = resize.row_low[y];
        std::int64_t run_end = y + 1;
        while (run_end < end && resize.row_low[run_end] == low) {
            ++run_end;
        }
        if (held[1] == low) {
            float* const row = rows[0];
            rows[0] = rows[1];
            rows[1] = row;
            held[1] = held[0];
            held[0] = low;
        }
        if (held[0] != low) {
            stretch_row(low, rows[0]);
            held[0] = low;
        }
        if (low < last && held[1] != low + 1) {
            stretch_row(low + 1, rows[1]);
            held[1] = low + 1;
        }
        use(RowRun{rows[0], low < last ? rows[1] : rows[0], resize.row_weight + y, run_end - y,
                   resize.width},
            y);
        y = run_end;
    }
}
