// Maps over photos: what speaks for a class and where.
"use strict";
{
    const { element, replace, picture } = playground;

    /** @param {SiteMap} map @returns {HTMLCanvasElement} one pixel for each number */
    function coloured(map) {
        const [height, width] = map.values.shape;
        const values = playground.unpack(map.values);
        const colour = playground.scale(map.low, map.high);
        const table = Array.from({ length: 256 }, (_, byte) => colour(byte));
        const small = element("canvas", { width, height });
        const pen = /** @type {CanvasRenderingContext2D} */ (small.getContext("2d"));
        const pixels = pen.createImageData(width, height);
        // What says little is let through: numbers near zero, or near the lowest where all have one sign.
        const calm = map.low < 0 && map.high > 0 ? (-255 * map.low) / (map.high - map.low) : 0;
        const most = Math.max(calm, 255 - calm);
        values.forEach((byte, i) => {
            pixels.data.set(table[byte], 4 * i);
            pixels.data[4 * i + 3] = 255 * Math.min(1, 0.12 + 1.1 * (Math.abs(byte - calm) / most));
        });
        pen.putImageData(pixels, 0, 0);
        return small;
    }

    playground.overlay = (map, [width, height], wide) => {
        const scale = wide / width;
        const made = element("canvas", {
            class: "overlay",
            width: Math.round(wide),
            height: Math.max(1, Math.round(height * scale)),
            "aria-hidden": "true",
        });
        const pen = /** @type {CanvasRenderingContext2D} */ (made.getContext("2d"));
        const [x0, y0, x1, y1] = map.region.map((edge) => edge * scale);
        pen.imageSmoothingQuality = "high";
        pen.drawImage(coloured(map), x0, y0, x1 - x0, y1 - y0);
        return made;
    };

    playground.scaleBar = (map) => {
        const colour = playground.scale(map.low, map.high);
        const strip = element("canvas", { width: 256, height: 1, "aria-hidden": "true" });
        const pen = /** @type {CanvasRenderingContext2D} */ (strip.getContext("2d"));
        for (let byte = 0; byte < 256; byte++) {
            pen.fillStyle = `rgb(${colour(byte).map(Math.round).join(" ")})`;
            pen.fillRect(byte, 0, 1, 1);
        }
        return element(
            "div",
            { class: "scale" },
            element("span", {}, playground.short(map.low)),
            strip,
            element("span", {}, playground.short(map.high)),
        );
    };

    const KINDS = {
        cam: "Where the network looks for this class",
        windows: "How the answer changes as a window moves over the photo",
        undesirable: "Pixels that speak where nothing of the class is",
    };

    /** @param {SiteMap} map @param {string[]} names */
    const targetName = (map, names) => names[map.target] ?? `class ${map.target}`;

    /** @param {HTMLElement} stage @param {[number, number]} size @param {number} most pixels high */
    function fit(stage, [width, height], most) {
        stage.style.aspectRatio = `${width} / ${height}`;
        stage.style.width = `${(most * width) / height}px`;
    }

    playground.explanation = (source, alt, size, maps, names, chosen, change) => {
        const stage = element(
            "div",
            { class: "stage" },
            picture(source, alt, { loading: "eager" }),
        );
        fit(stage, size, 560);
        const slider = element("input", {
            type: "range",
            min: 0,
            max: 100,
            value: 80,
            "aria-label": "Strength of the map over the photo, per cent",
        });
        const legend = element("div", {});
        const caption = element("div", { class: "map-caption", role: "status" });
        const buttons = maps.map((map, place) =>
            element(
                "button",
                { type: "button", class: "multiple", onclick: () => show(place, true) },
                smallMultiple(map),
                element("span", { class: "name" }, map.title),
                element("span", { class: "name muted" }, targetName(map, names)),
            ),
        );

        /** @param {SiteMap} map */
        function smallMultiple(map) {
            const small = element(
                "span",
                { class: "stage" },
                picture(source, ""),
                playground.overlay(map, size, 120),
            );
            fit(small, size, 110);
            return small;
        }

        /** @param {number} place @param {boolean} told */
        function show(place, told) {
            const map = maps[place];
            stage.querySelector("canvas")?.remove();
            const over = playground.overlay(map, size, 640);
            over.style.opacity = String(Number(slider.value) / 100);
            stage.append(over);
            buttons.forEach((button, i) =>
                button.setAttribute("aria-pressed", String(i === place)),
            );
            replace(legend, playground.scaleBar(map));
            replace(
                caption,
                element("strong", {}, `${map.title} for “${targetName(map, names)}”`),
                element("span", { class: "muted" }, `${KINDS[map.kind] ?? map.kind}.`),
                map.facts.length > 0 && playground.facts(map.facts),
            );
            if (told) change(place);
        }
        slider.addEventListener("input", () => {
            const over = stage.querySelector("canvas");
            if (over) over.style.opacity = String(Number(slider.value) / 100);
        });

        const box = element(
            "div",
            { class: "explanation" },
            element(
                "div",
                { class: "stage-side" },
                stage,
                maps.length > 0 &&
                    element(
                        "div",
                        { class: "stage-controls" },
                        element(
                            "label",
                            {},
                            element("span", {}, "Photo"),
                            slider,
                            element("span", {}, "map"),
                        ),
                        legend,
                    ),
                caption,
            ),
            maps.length > 0 &&
                element(
                    "div",
                    { class: "multiples", role: "group", "aria-label": "Explanations" },
                    ...buttons,
                ),
        );
        box.style.setProperty("--stage", `${(560 * size[0]) / size[1]}px`);
        if (maps.length) show(Math.min(chosen, maps.length - 1), false);
        return box;
    };

    playground.topClasses = (top, names) =>
        element(
            "ol",
            { class: "top" },
            ...top.map(([k, probability]) =>
                element(
                    "li",
                    {},
                    element("span", { class: "name" }, names[k] ?? `class ${k}`),
                    element("span", { class: "number" }, playground.percent(probability)),
                    playground.bar(probability),
                ),
            ),
        );
}
