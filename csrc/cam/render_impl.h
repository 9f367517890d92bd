// Rendering of low-resolution maps from rows and overlays: bodies, compiled once per instruction
// set. Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }, after the other two.

// Writes the rows of one run in the format of the piece.
inline void write_run(const RenderPiece& piece, const Palette& palette, const RowRun& run,
                      std::int64_t first_row, FloatStream& stream_to) {
    const std::int64_t first = first_row * piece.resize.width;
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
    FloatStream stream_to = {
        static_cast<float*>(piece.out) + piece.row_begin * piece.resize.width, {}, 0};
    const Palette palette(piece.colors);
    for_each_run(
        piece.resize, piece.row_begin, piece.row_end,
        piece.scratch + padded(piece.resize.source_width),
        [&](std::int64_t row, float* out) { stretch_row(piece, row, out); },
        [&](const RowRun& run, std::int64_t y) { write_run(piece, palette, run, y, stream_to); });
    if (piece.format == PixelFormat::kFloatStreamed) {
        finish_stream(stream_to);
    }
}
