// A step of Adam and the clamp to [0, 1]: body, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

void step_cells(const StepPiece& piece) {
    const Vec keep1 = broadcast(piece.rest1), beta2 = broadcast(piece.beta2);
    const Vec add2 = broadcast(piece.rest2), rate = broadcast(-piece.rate);
    const Vec correction = broadcast(piece.second_scale), eps = broadcast(piece.eps);
    const auto step = [&](Vec mask, Vec gradient, Vec& first, Vec& second) {
        first = multiply_add(gradient - first, keep1, first);
        second = multiply_add(beta2, second, add2 * gradient * gradient);
        const Vec scale = multiply_add(square_root(second), correction, eps);
        const Vec moved = multiply_add(rate, first / scale, mask);
        return at_least(Vec{}, at_most(broadcast(1.0f), moved));
    };
    std::int64_t i = 0;
    for (; i + kLanes <= piece.count; i += kLanes) {
        Vec first = load(piece.first + i), second = load(piece.second + i);
        const Vec mask = step(load(piece.masks + i), load(piece.gradients + i), first, second);
        store(piece.masks + i, mask);
        store(piece.first + i, first);
        store(piece.second + i, second);
    }
    if (const std::int64_t rest = piece.count - i) {
        Vec first = load_part(piece.first + i, rest), second = load_part(piece.second + i, rest);
        const Vec mask = step(load_part(piece.masks + i, rest),
                              load_part(piece.gradients + i, rest), first, second);
        store_part(piece.masks + i, mask, rest);
        store_part(piece.first + i, first, rest);
        store_part(piece.second + i, second, rest);
    }
}
