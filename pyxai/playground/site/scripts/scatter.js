// A plane of points to look around in: drag, wheel, pinch or keys; a point under the pointer or
// reached by the arrow keys is "focused", a click or Enter chooses it. Changes of the points are
// animated, unless the reader asked for less motion.
"use strict";
{
    const MOVE = 800; // milliseconds
    const REACH = 14; // pixels from a point that still count as on it

    playground.scatter = (events) => {
        const { element } = playground;
        const canvas = element("canvas", { "aria-hidden": "true" });
        const ring = element("span", { class: "ring chosen", hidden: true });
        const halo = element("span", { class: "ring", hidden: true });
        const box = element(
            "div",
            {
                class: "scatter",
                tabindex: "0",
                role: "application",
                "aria-label":
                    "Map of photos. Arrow keys go from photo to photo, Enter searches by it, plus and minus zoom, Shift with arrow keys moves the map, 0 shows all.",
            },
            canvas,
            ring,
            halo,
        );
        const renderer = playground.pointRenderer(canvas);
        box.dataset.renderer = renderer.kind;
        let points = new Float32Array();
        let before = points;
        let colours = new Uint8Array();
        let find = playground.cells(points);
        let view = { x: 0.5, y: 0.5, scale: 1 };
        let start = view; // where a move began
        let middle = { x: 0.5, y: 0.5 };
        let fit = 1;
        let began = -MOVE;
        let waiting = 0;
        /** @type {number | null} */
        let focus = null;
        /** @type {number | null} */
        let query = null;
        /** @type {string | undefined} */
        let wanted;
        /** @type {ReturnType<typeof setTimeout> | undefined} */
        let settled;

        const share = () => {
            const at = Math.min(1, (performance.now() - began) / MOVE);
            return at < 0.5 ? 2 * at * at : 1 - 2 * (1 - at) * (1 - at);
        };

        // The view itself moves with the points, so that a new scale is no jump.
        /** @param {number} mix */
        function seen(mix) {
            if (mix >= 1 || start === view) return view;
            return {
                x: start.x + (view.x - start.x) * mix,
                y: start.y + (view.y - start.y) * mix,
                scale: start.scale * (view.scale / start.scale) ** mix,
            };
        }

        function invalidate() {
            if (!waiting) waiting = requestAnimationFrame(draw);
        }

        function draw() {
            waiting = 0;
            if (!box.clientWidth) return; // not on the page yet
            const ratio = window.devicePixelRatio || 1;
            const mix = share();
            const n = points.length / 2;
            const radius = Math.max(1.4, Math.min(6, 220 / Math.sqrt(n + 1)));
            const zoomed = Math.min(2.5, Math.max(1, (view.scale / fit) ** 0.35));
            const { x, y, scale } = seen(mix);
            renderer.draw({ x, y, scale: scale * ratio }, mix, radius * zoomed * ratio);
            place(ring, query, mix);
            place(halo, focus, mix);
            if (mix < 1) invalidate();
        }

        /** @param {number} id @param {number} mix @returns {[number, number]} in pixels of the box */
        function onScreen(id, mix) {
            const x = before[2 * id] + (points[2 * id] - before[2 * id]) * mix;
            const y = before[2 * id + 1] + (points[2 * id + 1] - before[2 * id + 1]) * mix;
            const at = seen(mix);
            return [
                (x - at.x) * at.scale + box.clientWidth / 2,
                box.clientHeight / 2 - (y - at.y) * at.scale,
            ];
        }

        /** @param {HTMLElement} mark @param {number | null} id @param {number} mix */
        function place(mark, id, mix) {
            mark.hidden = id === null || 2 * id >= points.length;
            if (mark.hidden || id === null) return;
            const [x, y] = onScreen(id, mix);
            mark.style.transform = `translate(${x}px, ${y}px)`;
        }

        function measure() {
            const ratio = window.devicePixelRatio || 1;
            const old = fit;
            const { clientWidth: width, clientHeight: height } = box;
            if (!width || !height) return;
            canvas.width = Math.round(width * ratio);
            canvas.height = Math.round(height * ratio);
            let [left, right, low, high] = [1, 0, 1, 0];
            for (let i = 0; i < points.length; i += 2) {
                left = Math.min(left, points[i]);
                right = Math.max(right, points[i]);
                low = Math.min(low, points[i + 1]);
                high = Math.max(high, points[i + 1]);
            }
            if (right < left) [left, right, low, high] = [0, 1, 0, 1];
            middle = { x: (left + right) / 2, y: (low + high) / 2 };
            const margin = 28;
            fit = Math.min(
                (width - margin) / Math.max(right - left, 1e-3),
                (height - margin) / Math.max(high - low, 1e-3),
            );
            if (wanted !== undefined) apply();
            else if (Math.abs(view.scale - old) < 1e-9 || view.scale === 1)
                view = { ...middle, scale: fit };
            else view.scale *= fit / old;
            invalidate();
        }

        function apply() {
            const [x, y, zoom] = (wanted ?? "").split("_").map(Number);
            if ([x, y, zoom].every(Number.isFinite) && zoom > 0)
                view = { x, y, scale: fit * Math.min(zoom, 400) };
            else view = { ...middle, scale: fit };
            wanted = undefined;
        }

        function moved() {
            start = view; // the reader's hand ends any move of the view
            invalidate();
            clearTimeout(settled);
            settled = setTimeout(() => {
                const whole =
                    Math.abs(view.scale / fit - 1) < 0.01 &&
                    Math.hypot(view.x - middle.x, view.y - middle.y) < 0.01;
                events.moved?.(
                    whole
                        ? ""
                        : `${view.x.toFixed(4)}_${view.y.toFixed(4)}_${(view.scale / fit).toFixed(2)}`,
                );
            }, 300);
        }

        /** @param {number} factor @param {number} px @param {number} py pixels from the middle, y down */
        function zoomAt(factor, px, py) {
            const scale = Math.max(fit * 0.5, Math.min(fit * 400, view.scale * factor));
            view.x += px / view.scale - px / scale;
            view.y -= py / view.scale - py / scale;
            view.scale = scale;
            moved();
        }

        /** @param {number | null} id */
        function setFocus(id) {
            if (id === focus) return;
            focus = id;
            events.focused(id);
            invalidate();
        }

        /** @param {{ clientX: number, clientY: number }} event @returns {[number, number]} from the middle */
        function fromMiddle(event) {
            const { left, top } = box.getBoundingClientRect();
            return [
                event.clientX - left - box.clientWidth / 2,
                event.clientY - top - box.clientHeight / 2,
            ];
        }

        /** @param {PointerEvent} event @returns {number | null} */
        function under(event) {
            const [px, py] = fromMiddle(event);
            const found = find(
                view.x + px / view.scale,
                view.y - py / view.scale,
                1,
                REACH / view.scale,
            );
            return found[0] ?? null;
        }

        /** @type {Map<number, PointerEvent>} */
        const fingers = new Map();
        let travelled = 0;
        box.addEventListener("pointerdown", (event) => {
            fingers.set(event.pointerId, event);
            box.setPointerCapture(event.pointerId);
            if (fingers.size === 1) travelled = 0;
            if (event.pointerType !== "mouse") setFocus(under(event));
        });
        box.addEventListener("pointermove", (event) => {
            const old = fingers.get(event.pointerId);
            if (!old) {
                setFocus(under(event));
                return;
            }
            const dx = event.clientX - old.clientX;
            const dy = event.clientY - old.clientY;
            travelled += Math.hypot(dx, dy);
            if (fingers.size === 2) {
                const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1] ?? event;
                const apart = Math.hypot(old.clientX - other.clientX, old.clientY - other.clientY);
                const now = Math.hypot(
                    event.clientX - other.clientX,
                    event.clientY - other.clientY,
                );
                const [px, py] = fromMiddle({
                    clientX: (event.clientX + other.clientX) / 2,
                    clientY: (event.clientY + other.clientY) / 2,
                });
                if (apart > 0 && now > 0) zoomAt(now / apart, px, py);
            }
            const part = fingers.size === 2 ? 0.5 : 1;
            view.x -= (dx / view.scale) * part;
            view.y += (dy / view.scale) * part;
            fingers.set(event.pointerId, event);
            moved();
        });
        for (const kind of /** @type {const} */ (["pointerup", "pointercancel"])) {
            box.addEventListener(kind, (event) => {
                if (fingers.delete(event.pointerId) && kind === "pointerup" && travelled < 5) {
                    const id = under(event);
                    if (id !== null) events.chosen(id);
                }
            });
        }
        box.addEventListener("pointerleave", () => setFocus(null));
        box.addEventListener("blur", () => setFocus(null));
        box.addEventListener(
            "wheel",
            (event) => {
                event.preventDefault();
                const [px, py] = fromMiddle(event);
                zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), px, py);
            },
            { passive: false },
        );

        /** @param {number} dx @param {number} dy y up; goes to the nearest point that way */
        function walk(dx, dy) {
            const from = focus ?? query ?? find(view.x, view.y, 1, 9)[0];
            if (from === undefined || focus === null) {
                setFocus(from ?? null);
                return;
            }
            const [x, y] = [points[2 * from], points[2 * from + 1]];
            for (const k of [24, 400, 4000]) {
                const ahead = find(x, y, k, 9).find((id) => {
                    const along = (points[2 * id] - x) * dx + (points[2 * id + 1] - y) * dy;
                    const across =
                        Math.abs((points[2 * id] - x) * dy) +
                        Math.abs((points[2 * id + 1] - y) * dx);
                    return along > 0 && along >= across;
                });
                if (ahead !== undefined) {
                    setFocus(ahead);
                    const [sx, sy] = onScreen(ahead, 1);
                    if (sx < 0 || sy < 0 || sx > box.clientWidth || sy > box.clientHeight) {
                        view.x = points[2 * ahead];
                        view.y = points[2 * ahead + 1];
                        moved();
                    }
                    return;
                }
            }
        }

        box.addEventListener("keydown", (event) => {
            if (event.altKey || event.ctrlKey || event.metaKey) return;
            const ways = /** @type {Record<string, [number, number]>} */ ({
                ArrowLeft: [-1, 0],
                ArrowRight: [1, 0],
                ArrowUp: [0, 1],
                ArrowDown: [0, -1],
            });
            const way = ways[event.key];
            if (way && event.shiftKey) {
                view.x += (way[0] * 60) / view.scale;
                view.y += (way[1] * 60) / view.scale;
                moved();
            } else if (way) walk(...way);
            else if (event.key === "+" || event.key === "=") zoomAt(1.4, 0, 0);
            else if (event.key === "-") zoomAt(1 / 1.4, 0, 0);
            else if (event.key === "0") reset();
            else if (event.key === "Enter" && focus !== null) events.chosen(focus);
            else return;
            event.preventDefault();
            event.stopPropagation();
        });

        function reset() {
            view = { ...middle, scale: fit };
            moved();
        }

        const sized = new ResizeObserver(measure);
        sized.observe(box);

        return {
            element: box,
            show(newPoints, newColours, still) {
                const n = newPoints.length / 2;
                const calm = still || matchMedia("(prefers-reduced-motion: reduce)").matches;
                const same = n === points.length / 2 && n > 0;
                if (!same || calm) before = newPoints;
                else {
                    const mix = share();
                    before = points.map((value, i) => before[i] + (value - before[i]) * mix);
                }
                const changed = points !== newPoints;
                if (changed) start = same && !calm ? { ...seen(share()) } : view;
                if (changed) began = same && !calm ? performance.now() : -MOVE;
                else before = newPoints;
                points = newPoints;
                colours = newColours;
                if (changed) find = playground.cells(points);
                // Faint points first, so that they never cover the others.
                const order = new Uint32Array(n);
                let next = 0;
                for (const faint of [true, false]) {
                    for (let i = 0; i < n; i++)
                        if (colours[4 * i + 3] < 150 === faint) order[next++] = i;
                }
                const [from, to, paint] = [
                    new Float32Array(2 * n),
                    new Float32Array(2 * n),
                    new Uint8Array(4 * n),
                ];
                order.forEach((id, i) => {
                    from.set(before.subarray(2 * id, 2 * id + 2), 2 * i);
                    to.set(points.subarray(2 * id, 2 * id + 2), 2 * i);
                    paint.set(colours.subarray(4 * id, 4 * id + 4), 4 * i);
                });
                renderer.set(from, to, paint);
                measure();
            },
            mark(id) {
                query = id;
                invalidate();
            },
            look(newView) {
                wanted = newView ?? "";
                if (points.length && box.clientWidth) {
                    apply();
                    invalidate();
                }
            },
            near: (id, k) =>
                find(points[2 * id], points[2 * id + 1], k + 1, 9)
                    .filter((other) => other !== id)
                    .slice(0, k),
            zoom: (factor) => zoomAt(factor, 0, 0),
            reset,
            close() {
                sized.disconnect();
                clearTimeout(settled);
                cancelAnimationFrame(waiting);
                renderer.close();
            },
        };
    };
}
