// All photos of a set as a grid to choose from. Only the rows in sight exist, so that 100,000
// photos scroll as 100 do. One stop for the Tab key; the arrow keys move within.
"use strict";
{
    /** @typedef {{ top: number, title: string | null, ids: number[] }} Row */

    const LEAST = 66; // pixels of a cell, with its gap
    const HEADER = 30;
    let serial = 0;

    playground.photoGrid = (chosen) => {
        const { element, picture, replace } = playground;
        const key = `grid-${++serial}`;
        const inner = element("div", { class: "grid-inner", role: "presentation" });
        const box = element(
            "div",
            { class: "grid", role: "listbox", tabindex: "0", "aria-label": "Photos to search by" },
            inner,
        );
        /** @type {Row[]} */
        let rows = [];
        /** @type {number[]} */
        let order = [];
        /** @type {Map<number, number>} place of a photo in `order` */
        let places = new Map();
        /** @type {{ title: string | null, ids: ArrayLike<number> }[]} */
        let groups = [];
        /** @type {Numbers} */
        let labels = new Uint16Array();
        let set = 0;
        let columns = 0;
        let width = 0;
        let side = LEAST;
        let query = -1;
        let active = -1;
        /** @type {Map<number, HTMLElement>} */
        let shown = new Map();

        function arrange() {
            width = box.clientWidth;
            columns = Math.max(2, Math.floor((width - 6) / LEAST));
            side = Math.max(LEAST, (width - 6) / columns);
            inner.style.setProperty("--cell", `${side}px`);
            rows = [];
            let top = 0;
            for (const { title, ids } of groups) {
                if (title !== null) {
                    rows.push({ top, title, ids: [] });
                    top += HEADER;
                }
                for (let i = 0; i < ids.length; i += columns) {
                    rows.push({
                        top,
                        title: null,
                        ids: Array.from(Array.prototype.slice.call(ids, i, i + columns)),
                    });
                    top += side;
                }
            }
            inner.style.height = `${top}px`;
            shown = new Map();
            replace(inner);
            draw();
        }

        /** @param {number} height @returns {number} the row at a height */
        function rowAt(height) {
            let low = 0;
            let high = rows.length - 1;
            while (low < high) {
                const middle = (low + high + 1) >> 1;
                if (rows[middle].top <= height) low = middle;
                else high = middle - 1;
            }
            return low;
        }

        function draw() {
            if (!rows.length) return;
            const first = Math.max(0, rowAt(box.scrollTop) - 1);
            const last = Math.min(rows.length - 1, rowAt(box.scrollTop + box.clientHeight) + 1);
            /** @type {Map<number, HTMLElement>} */
            const wanted = new Map();
            for (let r = first; r <= last; r++) wanted.set(r, shown.get(r) ?? line(rows[r]));
            for (const [r, made] of shown) if (!wanted.has(r)) made.remove();
            let next = inner.firstChild;
            for (const made of wanted.values()) {
                if (made === next) next = made.nextSibling;
                else inner.insertBefore(made, next);
            }
            shown = wanted;
            state();
        }

        /** @param {Row} row */
        function line(row) {
            const made = element("div", {
                class: row.title === null ? "grid-row" : "grid-title",
                role: "presentation",
            });
            made.style.transform = `translateY(${row.top}px)`;
            if (row.title !== null) made.append(row.title);
            for (const id of row.ids) {
                const text = playground.describe(set, id, labels[id]);
                made.append(
                    element(
                        "div",
                        {
                            id: `${key}-${id}`,
                            class: "cell",
                            role: "option",
                            title: text,
                            "data-photo": id,
                            "aria-setsize": order.length,
                            "aria-posinset": (places.get(id) ?? 0) + 1,
                        },
                        picture(playground.thumb(set, id), text, { loading: "eager" }),
                    ),
                );
            }
            return made;
        }

        function state() {
            for (const cell of inner.querySelectorAll(".cell")) {
                const id = Number(cell.getAttribute("data-photo"));
                cell.setAttribute("aria-selected", String(id === query));
                cell.classList.toggle("active", id === active);
            }
            if (active >= 0) box.setAttribute("aria-activedescendant", `${key}-${active}`);
            else box.removeAttribute("aria-activedescendant");
        }

        /** @param {number} id */
        function reveal(id) {
            const row = rows.find(({ ids }) => ids.includes(id));
            if (!row) return;
            const slack = row.top > HEADER ? HEADER : row.top;
            if (row.top - slack < box.scrollTop) box.scrollTop = row.top - slack;
            else if (row.top + side > box.scrollTop + box.clientHeight) {
                box.scrollTop = row.top + side - box.clientHeight + 4;
            }
            draw();
        }

        box.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
        box.addEventListener("click", (event) => {
            const cell = event.target instanceof Element ? event.target.closest(".cell") : null;
            if (!cell) return;
            active = Number(cell.getAttribute("data-photo"));
            chosen(active);
        });
        box.addEventListener("focus", () => {
            if (!places.has(active)) active = places.has(query) ? query : (order[0] ?? -1);
            reveal(active);
            state();
        });
        box.addEventListener("keydown", (event) => {
            if (!order.length || event.altKey || event.ctrlKey || event.metaKey) return;
            const page = columns * Math.max(1, Math.floor(box.clientHeight / side));
            const steps = /** @type {Record<string, number>} */ ({
                ArrowLeft: -1,
                ArrowRight: 1,
                ArrowUp: -columns,
                ArrowDown: columns,
                PageUp: -page,
                PageDown: page,
                Home: -order.length,
                End: order.length,
            });
            if (event.key === "Enter" || event.key === " ") {
                if (active >= 0) chosen(active);
            } else if (event.key in steps) {
                const place = (places.get(active) ?? 0) + steps[event.key];
                active = order[Math.max(0, Math.min(order.length - 1, place))];
                reveal(active);
                state();
            } else return;
            event.preventDefault();
            event.stopPropagation();
        });
        const sized = new ResizeObserver(() => {
            if (box.clientWidth !== width) {
                arrange();
                if (places.has(query)) reveal(query);
            } else draw();
        });
        sized.observe(box);

        return {
            element: box,
            fill(newSet, newLabels, newGroups) {
                set = newSet;
                labels = newLabels;
                groups = newGroups;
                order = groups.flatMap(({ ids }) => Array.from(ids));
                places = new Map(order.map((id, place) => [id, place]));
                box.scrollTop = 0;
                arrange();
                if (places.has(query)) reveal(query);
            },
            mark(id) {
                query = id;
                active = id;
                if (places.has(id)) reveal(id);
                state();
            },
            close: () => sized.disconnect(),
        };
    };
}
