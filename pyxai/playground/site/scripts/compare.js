// Which layer of which network finds photos of the same class best: a bar for each layer with its
// interval, the line of chance, and the classes one by one.
"use strict";
{
    const { element, link, heading, count } = playground;

    /** @param {string} measure */
    function explain(measure) {
        const at = /^(P|nDCG)@(\d+)$/.exec(measure);
        if (at?.[1] === "P")
            return `Of the first ${at[2] === "1" ? "photo" : `${at[2]} photos`} found, the share of the same class.`;
        if (at)
            return `How early those of the same class come among the first ${at[2]}; 1 is all of them first.`;
        if (/^mAP/.test(measure))
            return "Mean average precision: how early all photos of the same class come; 1 is all of them first.";
        if (/^R-?prec/i.test(measure))
            return "Of as many photos as the class has, the share of the same class.";
        if (/nDCG/i.test(measure))
            return "How early those of the same class come; 1 is all of them first.";
        return "1 is best: those of the same class come first.";
    }

    /** @param {number} value */
    const digits = (value) => value.toFixed(2);

    /** @param {Interval} interval @param {number | null} chance @param {boolean} best */
    function track([value, low, high], chance, best) {
        const fill = element("span", { class: best ? "track-fill best" : "track-fill" });
        fill.style.width = `${value * 100}%`;
        const whisker = element("span", { class: "whisker" });
        whisker.style.left = `${low * 100}%`;
        whisker.style.width = `${Math.max(0, high - low) * 100}%`;
        const line = chance === null ? null : element("span", { class: "chance" });
        if (line && chance !== null) line.style.left = `${chance * 100}%`;
        return element("span", { class: "track", "aria-hidden": "true" }, fill, whisker, line);
    }

    playground.screens.compare = playground.page(async (settings) => {
        const { sets, networks, metrics, measures } = playground.site;
        const compared = sets.flatMap(({ retrieval }, s) => (retrieval ? [s] : []));
        if (!compared.length)
            throw new RangeError("This site compares nothing: its photos have no classes.");
        const set = playground.whole(settings, "set", sets.length, compared[0]);
        /** @param {string} label @param {string} name @param {[string | number, string][]} options @param {string | number} value */
        function select(label, name, options, value) {
            const made = element(
                "select",
                { "aria-label": label, id: `compare-${name}` },
                ...options.map(([key, text]) => element("option", { value: key }, text)),
            );
            made.value = String(value);
            made.addEventListener("change", () =>
                playground.go("compare", { ...settings, [name]: made.value }),
            );
            return element("label", {}, element("span", {}, label), made);
        }
        const sentence = (/** @type {Child[]} */ ...rest) =>
            element(
                "p",
                { class: "sentence" },
                select(
                    "Photos of",
                    "set",
                    compared.map((s) => [s, sets[s].name]),
                    set,
                ),
                ...rest,
            );
        const title = "Which layer finds photos of the same class?";
        if (!sets[set].retrieval) {
            return {
                title,
                content: [
                    heading(title),
                    sentence(),
                    element(
                        "p",
                        { class: "notice" },
                        `The photos of ${sets[set].name} have no classes to compare by.`,
                    ),
                ],
            };
        }
        const usual = measures.includes("P@10") ? "P@10" : measures[0];
        const measure = playground.oneOf(settings, "measure", measures, usual);
        const metric = playground.oneOf(settings, "metric", metrics, sets[set].start.metric);
        const m = measures.indexOf(measure);
        /** @type {RetrievalFile} */
        const file = await playground.load(`sets/${set}/retrieval`);
        const rows = file.rows.filter((row) => row.metric === metric);
        const whole = rows.filter((row) => row.class === null);
        if (!whole.length) throw new Error(`Nothing was measured by ${metric} distance.`);
        const best = whole.reduce((a, b) => (b.measures[m][0] > a.measures[m][0] ? b : a));
        const network = playground.whole(settings, "network", networks.length, best.network);
        const layer = playground.whole(
            settings,
            "layer",
            networks[network].layers.length,
            network === best.network ? best.layer : networks[network].layers.length - 1,
        );

        /** @param {RetrievalRow} row */
        function layerRow(row) {
            const { index, name } = networks[row.network].layers[row.layer];
            const [value, low, high] = row.measures[m];
            const chosen = row.network === network && row.layer === layer;
            return element(
                "li",
                {},
                element(
                    "a",
                    {
                        class: "chart-row",
                        href: link("compare", {
                            ...settings,
                            set,
                            network: row.network,
                            layer: row.layer,
                        }),
                        "aria-current": chosen ? "true" : null,
                        "aria-label": `Layer ${index} ${name}: ${digits(value)}, interval ${digits(low)} to ${digits(high)}${row === best ? ", the best" : ""}`,
                    },
                    element("span", { class: "name" }, `${index} · ${name}`),
                    track(row.measures[m], file.chance, row === best),
                    element("span", { class: "value" }, digits(value)),
                    element("span", { class: "interval" }, `${digits(low)} – ${digits(high)}`),
                ),
            );
        }

        const classes = sets[set].classes;
        const chosenRows = rows.filter(
            (row) => row.class !== null && row.network === network && row.layer === layer,
        );
        const percent = Math.round(file.confidence * 100);
        return {
            title: `Compare by ${measure}`,
            content: [
                heading(title),
                sentence(
                    select(
                        "measured by",
                        "measure",
                        measures.map((name) => [name, name]),
                        measure,
                    ),
                    select(
                        "with distance",
                        "metric",
                        metrics.map((name) => [name, name]),
                        metric,
                    ),
                ),
                element(
                    "p",
                    { class: "best-line" },
                    "Best: ",
                    element(
                        "strong",
                        {},
                        `${networks[best.network].name}, ${networks[best.network].layers[best.layer].name}`,
                    ),
                    ` with ${digits(best.measures[m][0])}. `,
                    element(
                        "a",
                        {
                            href: link("search", {
                                set,
                                network: best.network,
                                layer: best.layer,
                                metric,
                            }),
                        },
                        "Search with it",
                    ),
                ),
                element(
                    "p",
                    { class: "muted" },
                    `${explain(measure)} Each of ${count(file.queries)} photos was searched by${file.skipped ? `, ${count(file.skipped)} without others of their class left out` : ""}. Thin lines: ${percent} % interval; dashed: a search by chance (${digits(file.chance)}).`,
                ),
                element(
                    "div",
                    { class: "charts" },
                    ...networks.map((each, n) =>
                        element(
                            "section",
                            { class: "chart", "aria-label": `Layers of ${each.name}` },
                            element("h2", {}, each.name),
                            element(
                                "ol",
                                {},
                                ...whole
                                    .filter((row) => row.network === n)
                                    .sort((a, b) => a.layer - b.layer)
                                    .map(layerRow),
                            ),
                        ),
                    ),
                ),
                element(
                    "h2",
                    {},
                    `Class by class: ${networks[network].name}, ${networks[network].layers[layer].name}`,
                ),
                playground.table(
                    ["Class", "#Photos", `#${measure}`, `${percent} % interval`, ""],
                    chosenRows.map((row) => {
                        const [value, low, high] = row.measures[m];
                        return [
                            classes[row.class ?? 0] ?? "–",
                            count(row.queries),
                            digits(value),
                            `${digits(low)} – ${digits(high)}`,
                            track(row.measures[m], null, false),
                        ];
                    }),
                    `${measure} of each class`,
                ),
            ],
        };
    });
}
