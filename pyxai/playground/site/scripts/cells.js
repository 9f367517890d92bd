// Finds the points near a place without looking at them all: the plane is cut into cells.
"use strict";
{
    playground.cells = (points) => {
        const n = points.length / 2;
        const side = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n / 2))));
        /** @param {number} value */
        const cell = (value) => Math.max(0, Math.min(side - 1, Math.floor(value * side)));
        const starts = new Uint32Array(side * side + 1);
        for (let i = 0; i < n; i++)
            starts[cell(points[2 * i + 1]) * side + cell(points[2 * i]) + 1]++;
        for (let c = 0; c < side * side; c++) starts[c + 1] += starts[c];
        const next = starts.slice();
        const members = new Uint32Array(n);
        for (let i = 0; i < n; i++)
            members[next[cell(points[2 * i + 1]) * side + cell(points[2 * i])]++] = i;

        return (x, y, k, within) => {
            /** @type {{ id: number, far: number }[]} */
            let found = [];
            const column = cell(x);
            const row = cell(y);
            for (let ring = 0; ring < side; ring++) {
                // All points closer than this lie in the rings already seen.
                const sure = (ring - 1) / side;
                const kth = found.length >= k ? found[k - 1].far : Infinity;
                if (sure > within || kth <= sure) break;
                let news = false;
                for (let r = row - ring; r <= row + ring; r++) {
                    if (r < 0 || r >= side) continue;
                    const step = Math.abs(r - row) === ring ? 1 : Math.max(1, 2 * ring);
                    for (let c = column - ring; c <= column + ring; c += step) {
                        if (c < 0 || c >= side) continue;
                        for (let m = starts[r * side + c]; m < starts[r * side + c + 1]; m++) {
                            const id = members[m];
                            const far = Math.hypot(points[2 * id] - x, points[2 * id + 1] - y);
                            if (far <= within) {
                                found.push({ id, far });
                                news = true;
                            }
                        }
                    }
                }
                if (news) {
                    found.sort((a, b) => a.far - b.far || a.id - b.id);
                    found = found.slice(0, k);
                }
            }
            return found.map(({ id }) => id);
        };
    };
}
