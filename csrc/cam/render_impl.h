// Rendering of low-resolution maps from rows and overlays: bodies, compiled once per instruction
// set. Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }, after the other two.

// Writes the rows of one run in the format of the piece.
inline void write_run(const RenderPiece& piece, const Palette& palette, const RowRun& run,
                      std::int64_t first_row, FloatStream& stream_to) {
    const std::int64_t first = first_row * piece.width;
    switch (piece.format) {
    case PixelFormat::kFloat:
        return write_floats(run, static_cast<float*>(piece.out) + first);
    case PixelFormat::kFloatStreamed:
        for (std::int64_t row = 0; row < run.rows; ++row) {
            stream_row(stream_to, run, row);
        }
        return;
    case PixelFormat::kByte:
        return write_bytes(run, static_cast<std::uint8_t*>(piece.out) + first);
    case PixelFormat::kOverlay:
        for (std::int64_t row = 0; row < run.rows; ++row) {
            write_overlay_row(piece, palette, run.low, run.high, broadcast(run.weights[row]),
                              first_row + row);
        }
    }
}

void render_rows(const RenderPiece& piece) {
    // Two source rows, stretched, and which these are.
    float* rows[2] = {piece.scratch + padded(piece.map_width),
                      piece.scratch + padded(piece.map_width) + padded(piece.width)};
    std::int32_t held[2] = {-1, -1};
    FloatStream stream_to = {static_cast<float*>(piece.out) + piece.row_begin * piece.width, {}, 0};
    const Palette palette(piece.colors);
    const std::int32_t last = static_cast<std::int32_t>(piece.map_height) - 1;
    std::int64_t y = piece.row_begin;
    while (y < piece.row_end) {
        const std::int32_t low = piece.row_low[y];
        std::int64_t end = y + 1;
        while (end < piece.row_end && piece.row_low[end] == low) {
            ++end;
        }
        if (held[1] == low) {
            float* const row = rows[0];
            rows[0] = rows[1];
            rows[1] = row;
            held[1] = held[0];
            held[0] = low;
        }
        if (held[0] != low) {
            stretch_row(piece, low, rows[0]);
            held[0] = low;
        }
        if (low < last && held[1] != low + 1) {
            stretch_row(piece, low + 1, rows[1]);
            held[1] = low + 1;
        }
        const RowRun run = {rows[0], low < last ? rows[1] : rows[0], piece.row_weight + y, end - y,
                            piece.width};
        write_run(piece, palette, run, y, stream_to);
        y = end;
    }
    if (piece.format == PixelFormat::kFloatStreamed) {
        finish_stream(stream_to);
    }
}
