// The penalty of rough masks and its slopes in one pass: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

enum class Exponent { kOne, kTwo, kThree, kAny };

// Of cells: the total variation, and its slopes by the two differences.
struct Variation {
    Vec value, across, down;
};

template <Exponent exponent, bool root> inline Variation variation(Vec across, Vec down, Vec beta) {
    const Vec smooth = broadcast(kPenaltySmooth);
    const Vec a = magnitude(across), d = magnitude(down);
    if (exponent == Exponent::kOne) { // the root changes nothing
        return {a + d, sign_of(across), sign_of(down)};
    }
    if (exponent == Exponent::kTwo) {
        const Vec squares = multiply_add(across, across, down * down);
        if (!root) {
            return {squares, across + across, down + down};
        }
        const Vec sum = multiply_add(smooth, smooth, squares);
        const Vec inverse = inverse_root(sum);
        return {multiply_add(sum, inverse, -smooth), across * inverse, down * inverse};
    }
    if (exponent == Exponent::kThree) {
        const Vec across2 = across * a, down2 = down * d; // signed squares
        const Vec cubes = multiply_add(across, across2, down * down2);
        if (!root) {
            return {cubes, broadcast(3.0f) * across2, broadcast(3.0f) * down2};
        }
        const Vec sum = multiply_add(smooth * smooth, smooth, cubes);
        const Vec inverse = inverse_cube_root(sum), square = inverse * inverse;
        return {multiply_add(sum, square, -smooth), across2 * square, down2 * square};
    }
    const Vec one = broadcast(1.0f);
    if (!root) {
        const Vec across_power = power(a, beta), down_power = power(d, beta);
        const Vec across_slope = beta * across_power / (a > 0.0f ? across : one);
        const Vec down_slope = beta * down_power / (d > 0.0f ? down : one);
        return {across_power + down_power, across_slope, down_slope};
    }
    // In units of the greatest, so that no power is too large or too small.
    const Vec greatest = at_least(smooth, at_least(a, d));
    const Vec unit_across = across / greatest, unit_down = down / greatest;
    const Vec across_power = power(a / greatest, beta), down_power = power(d / greatest, beta);
    const Vec sum = across_power + down_power + power(smooth / greatest, beta);
    const Vec rooted = exp2_of(log2_of(sum) / beta);
    const Vec slope = rooted / sum;
    return {multiply_add(greatest, rooted, -smooth),
            slope * across_power / (a > 0.0f ? unit_across : one),
            slope * down_power / (d > 0.0f ? unit_down : one)};
}

// Row `y`: returns its costs in lanes. `above` holds the slopes by the differences down of the row
// before, and gets those of this one; without `count_costs` nothing else is written.
template <Exponent exponent, bool root, bool slopes, bool count_costs>
inline Vec penalty_row(const PenaltyPiece& piece, std::int64_t y, float* above) {
    const std::int64_t width = piece.width;
    const float* const row = piece.mask + y * width;
    const bool is_last = y + 1 == piece.height;
    const Vec beta = broadcast(piece.beta), one = broadcast(1.0f);
    const Vec rough = broadcast(piece.variation), far = broadcast(piece.distance);
    Vec costs{}, left{};
    const auto cells = [&](std::int64_t x, std::int64_t count, std::int64_t right_count) {
        const bool whole = count == kLanes, has_right = right_count == kLanes;
        const Vec here = whole ? load(row + x) : load_part(row + x, count);
        const Vec next = has_right ? load(row + x + 1) : load_part(row + x + 1, right_count);
        const Vec across = has_right ? next - here : keep_first(next - here, right_count);
        Vec down{};
        if (!is_last) {
            const float* const below = row + width + x;
            down = (whole ? load(below) : load_part(below, count)) - here;
        }
        const Variation found = variation<exponent, root>(across, down, beta);
        if (count_costs) {
            const Vec distance = here > one ? here - one : one - here;
            const Vec cost = multiply_add(rough, found.value, far * distance);
            costs += whole ? cost : keep_first(cost, count);
        }
        if (slopes && count_costs) {
            const Vec in = shift_in(left, found.across) + load(above + x);
            const Vec slope =
                multiply_add(rough, in - (found.across + found.down), here > one ? far : -far);
            float* const out = piece.slopes + y * width + x;
            if (whole) {
                store(out, slope);
            } else {
                store_part(out, slope, count);
            }
            left = found.across;
        }
        if (slopes) {
            store(above + x, found.down);
        }
    };
    std::int64_t x = 0;
    for (; x + kLanes < width; x += kLanes) {
        cells(x, kLanes, kLanes);
    }
    cells(x, width - x, width - x - 1);
    return costs;
}

template <Exponent exponent, bool root, bool slopes>
float penalize_rows_as(const PenaltyPiece& piece) {
    if (slopes) {
        if (piece.row_begin > 0) {
            penalty_row<exponent, root, true, false>(piece, piece.row_begin - 1, piece.above);
        } else {
            for (std::int64_t x = 0; x < piece.width; x += kLanes) {
                store(piece.above + x, Vec{});
            }
        }
    }
    Vec costs{};
    for (std::int64_t y = piece.row_begin; y < piece.row_end; ++y) {
        costs += penalty_row<exponent, root, slopes, true>(piece, y, piece.above);
    }
    return sum(costs);
}

template <Exponent exponent> inline float penalize_rows_of(const PenaltyPiece& piece) {
    if (piece.root) {
        return (piece.slopes ? penalize_rows_as<exponent, true, true>
                             : penalize_rows_as<exponent, true, false>)(piece);
    }
    return (piece.slopes ? penalize_rows_as<exponent, false, true>
                         : penalize_rows_as<exponent, false, false>)(piece);
}

float penalize_rows(const PenaltyPiece& piece) {
    if (piece.beta == 1.0f) {
        return penalize_rows_of<Exponent::kOne>(piece);
    }
    if (piece.beta == 2.0f) {
        return penalize_rows_of<Exponent::kTwo>(piece);
    }
    if (piece.beta == 3.0f) {
        return penalize_rows_of<Exponent::kThree>(piece);
    }
    return penalize_rows_of<Exponent::kAny>(piece);
}
