// The photos of a set as points on a plane, with a legend, the photo under the pointer, and a table
// for readers who see no points.
"use strict";
{
    const SHOWN = playground.colours.length;

    /** @param {number} set @returns {number[]} the classes in colour at first: all, or the largest */
    function usualClasses(set) {
        const { classes, sizes } = playground.site.sets[set];
        const all = classes.map((_, k) => k);
        return all.length <= SHOWN
            ? all
            : all.sort((a, b) => sizes[b] - sizes[a] || a - b).slice(0, SHOWN);
    }

    playground.mapPanel = ({ address, moved, chosen }) => {
        const { element, picture, replace } = playground;
        const cardPicture = element("span", { class: "frame" });
        const cardText = element("span", {});
        const card = element("div", { class: "map-card", hidden: true }, cardPicture, cardText);
        const legend = element("ul", { class: "legend", "aria-label": "Classes in colour" });
        const table = element("div", { class: "table-box" });
        const details = element("details", {}, element("summary", {}, "The map in words"), table);
        let set = 0;
        /** @type {Numbers} */
        let labels = new Uint16Array();
        /** @type {number[]} */
        let coloured = [];
        let points = new Float32Array();
        let said = "";
        let focused = -1;
        let turn = 0;
        /** @type {string | undefined} */
        let shown;

        const plane = playground.scatter({
            chosen: (id) => {
                location.hash = address(id);
            },
            focused(id) {
                card.hidden = id === null;
                if (id === null) return;
                focused = id;
                replace(cardPicture, picture(playground.thumb(set, id), "", { loading: "eager" }));
                name(id);
                // The names of few photos come quickly; of many, only the classes are known.
                if (playground.site.sets[set].photos <= 5000) {
                    playground.photo(set, id).then(
                        () => focused === id && name(id),
                        () => undefined,
                    );
                }
            },
            moved,
        });
        /** @param {number} id */
        function name(id) {
            cardText.textContent = playground.describe(set, id, labels[id]);
            if (document.activeElement === plane.element) playground.announce(cardText.textContent);
        }
        const buttons = element(
            "div",
            { class: "map-buttons" },
            element(
                "button",
                {
                    type: "button",
                    "aria-label": "Zoom in",
                    title: "Zoom in (+)",
                    onclick: () => plane.zoom(1.5),
                },
                "+",
            ),
            element(
                "button",
                {
                    type: "button",
                    "aria-label": "Zoom out",
                    title: "Zoom out (−)",
                    onclick: () => plane.zoom(1 / 1.5),
                },
                "−",
            ),
            element(
                "button",
                { type: "button", title: "Show all (0)", onclick: () => plane.reset() },
                "All",
            ),
        );
        details.addEventListener("toggle", () => details.open && describe());

        function paint() {
            const colours = new Uint8Array(labels.length * 4);
            const slots = new Map(
                coloured.map((k, i) => [k, playground.rgb(playground.colours[slot(k, i)])]),
            );
            const grey = playground.rgb(playground.others);
            for (let i = 0; i < labels.length; i++) {
                const colour = slots.get(labels[i]);
                colours.set(colour ?? grey, 4 * i);
                colours[4 * i + 3] = colour ? 225 : 95;
            }
            return colours;
        }

        // Few classes keep their colours whichever are shown.
        /** @param {number} k @param {number} i */
        const slot = (k, i) => (playground.site.sets[set].classes.length <= SHOWN ? k : i);

        function drawLegend() {
            const { classes, sizes } = playground.site.sets[set];
            const focused =
                document.activeElement instanceof HTMLElement
                    ? document.activeElement.dataset.class
                    : undefined;
            const rest = labels.length - coloured.reduce((sum, k) => sum + sizes[k], 0);
            replace(
                legend,
                ...classes.map((name, k) => {
                    const place = coloured.indexOf(k);
                    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
                    swatch.style.backgroundColor =
                        place < 0 ? "transparent" : playground.colours[slot(k, place)];
                    return element(
                        "li",
                        {},
                        element(
                            "button",
                            {
                                type: "button",
                                "aria-pressed": String(place >= 0),
                                "data-class": k,
                                onclick: () => toggle(k),
                            },
                            swatch,
                            element("span", { class: "name" }, name),
                            element("span", { class: "number" }, playground.count(sizes[k])),
                        ),
                    );
                }),
                rest > 0 &&
                    element(
                        "li",
                        { class: "legend-rest" },
                        element("span", { class: "swatch rest", "aria-hidden": "true" }),
                        element(
                            "span",
                            { class: "name" },
                            classes.length > coloured.length ? "others" : "no class",
                        ),
                        element("span", { class: "number" }, playground.count(rest)),
                    ),
            );
            if (focused !== undefined) {
                const button = legend.querySelector(`[data-class="${Number(focused)}"]`);
                if (button instanceof HTMLElement) button.focus({ preventScroll: true });
            }
        }

        /** @param {number} k */
        function toggle(k) {
            const without = coloured.filter((other) => other !== k);
            const next =
                without.length < coloured.length ? without : [...coloured, k].slice(-SHOWN);
            if (chosen) chosen(next);
            else {
                coloured = next;
                drawLegend();
                plane.show(points, paint(), false);
            }
        }

        // In words: how pure the surroundings of each class are on the plane.
        function describe() {
            if (said === shown) return;
            said = shown ?? "";
            const { classes, sizes } = playground.site.sets[set];
            const step = Math.max(1, Math.floor(labels.length / 3000));
            const same = new Float64Array(classes.length);
            const asked = new Float64Array(classes.length);
            for (let i = 0; i < labels.length; i += step) {
                const k = labels[i];
                if (k >= classes.length) continue;
                const around = plane.near(i, 5);
                asked[k] += around.length;
                for (const id of around) if (labels[id] === k) same[k]++;
            }
            replace(
                table,
                element(
                    "table",
                    {},
                    element(
                        "caption",
                        {},
                        "How often the five nearest points on the map are of the same class",
                    ),
                    element(
                        "thead",
                        {},
                        element(
                            "tr",
                            {},
                            ...["Class", "Photos", "Same class around"].map((text) =>
                                element("th", { scope: "col" }, text),
                            ),
                        ),
                    ),
                    element(
                        "tbody",
                        {},
                        ...classes.map((name, k) =>
                            element(
                                "tr",
                                {},
                                element("th", { scope: "row" }, name),
                                element("td", {}, playground.count(sizes[k])),
                                element(
                                    "td",
                                    {},
                                    asked[k] ? playground.percent(same[k] / asked[k]) : "–",
                                ),
                            ),
                        ),
                    ),
                ),
            );
        }

        return {
            element: element(
                "div",
                { class: "map-panel" },
                element("div", { class: "map-stage" }, plane.element, buttons, card),
                element("div", { class: "map-side" }, legend, details),
            ),
            async show(newSet, network, layer, method, photo, classes) {
                const mine = ++turn;
                const at = `sets/${newSet}/networks/${network}/layers/${layer}/map-${method}`;
                const [newLabels, file] = await Promise.all([
                    playground.labels(newSet),
                    /** @type {Promise<MapFile>} */ (playground.load(at)),
                ]);
                if (mine !== turn) return ""; // another plane was asked for meanwhile
                const packed = playground.unpack(file.points);
                if (shown !== at) points = Float32Array.from(packed, (value) => value / 65535);
                const first = shown === undefined || set !== newSet;
                set = newSet;
                labels = newLabels;
                coloured = classes ?? (first || chosen ? usualClasses(set) : coloured);
                shown = at;
                drawLegend();
                plane.show(points, paint(), first);
                plane.mark(photo);
                if (details.open) describe();
                return file.explained
                    ? `The plane keeps ${playground.percent(file.explained[0] + file.explained[1])} of the variance.`
                    : "Only who is near whom has meaning on this plane, not the axes.";
            },
            look: (view) => plane.look(view),
            close: () => plane.close(),
        };
    };
}
