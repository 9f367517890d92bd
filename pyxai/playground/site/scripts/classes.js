// Classes of a network: the parts of photos that it is surest of, alike ones together.
"use strict";
{
    const { element, link, picture, heading, plural } = playground;

    /** @param {Record<string, string>} settings */
    function place(settings) {
        const { sets, networks } = playground.site;
        const first = sets.findIndex(({ galleries }) => galleries);
        if (first < 0) throw new RangeError("This site has no galleries of classes.");
        const set = playground.whole(settings, "set", sets.length, first);
        const network = playground.whole(settings, "network", networks.length, 0);
        return { set, network, at: `sets/${set}/networks/${network}` };
    }

    /** @param {string} screen @param {Record<string, string>} settings @param {number} set @param {number} network */
    function switches(screen, settings, set, network) {
        const { sets, networks } = playground.site;
        /** @param {string} label @param {[string, Record<string, number>, boolean][]} options */
        const group = (label, options) =>
            options.length > 1 &&
            element(
                "span",
                { class: "segments", role: "group", "aria-label": label },
                ...options.map(([text, part, now]) =>
                    element(
                        "a",
                        {
                            href: link(screen, { ...settings, set, network, ...part }),
                            "aria-current": now ? "true" : null,
                        },
                        text,
                    ),
                ),
            );
        return element(
            "div",
            { class: "links" },
            group(
                "Data set",
                sets.flatMap(({ name, galleries }, s) =>
                    galleries ? [[name, { set: s }, s === set]] : [],
                ),
            ),
            group(
                "Model",
                networks.map(({ name }, m) => [name, { network: m }, m === network]),
            ),
        );
    }

    playground.screens.classes = playground.page(async (settings) => {
        const { set, network, at } = place(settings);
        const { name } = playground.site.networks[network];
        const title = `What ${name} takes for its classes`;
        if (!playground.site.sets[set].galleries) {
            return {
                title,
                content: [
                    heading(title),
                    switches("classes", settings, set, network),
                    element(
                        "p",
                        { class: "notice" },
                        `The photos of ${playground.site.sets[set].name} have no galleries.`,
                    ),
                ],
            };
        }
        const [file, { names }] = await Promise.all([
            /** @type {Promise<ClassesFile>} */ (playground.load(`${at}/classes`)),
            /** @type {Promise<{ names: string[] }>} */ (
                playground.load(`networks/${network}/names`)
            ),
        ]);
        const list = element(
            "ul",
            { class: "class-tiles" },
            ...file.classes.map((entry) => {
                const text = names[entry.class] ?? `class ${entry.class}`;
                return element(
                    "li",
                    { "data-name": text.toLowerCase() },
                    element(
                        "a",
                        {
                            class: "tile",
                            href: link("class", { set, network, class: entry.class }),
                        },
                        element(
                            "span",
                            { class: "class-pictures" },
                            ...entry.best
                                .slice(0, 3)
                                .map((i) =>
                                    element(
                                        "span",
                                        { class: "frame" },
                                        picture(
                                            playground.file(`${at}/crops/${entry.class}-${i}.jpg`),
                                            "",
                                        ),
                                    ),
                                ),
                        ),
                        element("strong", { class: "name" }, text),
                        element(
                            "span",
                            { class: "muted small" },
                            `${plural(entry.crops, "crop", "crops")} of ${plural(entry.photos, "photo", "photos")}, ${plural(entry.clusters, "kind", "kinds")}`,
                        ),
                    ),
                );
            }),
        );
        const find = element("input", {
            type: "search",
            placeholder: "Find a class",
            "aria-label": "Find a class",
        });
        find.addEventListener("input", () => {
            const key = find.value.trim().toLowerCase();
            for (const item of list.children) {
                if (item instanceof HTMLElement) item.hidden = !item.dataset.name?.includes(key);
            }
        });
        return {
            title,
            content: [
                heading(title),
                element(
                    "p",
                    { class: "muted" },
                    `Crops of the photos that speak most for a class, grouped by likeness, found by ${file.evidence === "cam" ? "class maps" : "sliding windows"}.`,
                ),
                element(
                    "div",
                    { class: "bar-line" },
                    switches("classes", settings, set, network),
                    file.classes.length > 12 && find,
                ),
                list,
                !file.classes.length && element("p", { class: "notice" }, "No class has crops."),
            ],
        };
    });

    playground.screens.class = playground.page(async (settings) => {
        const { set, network, at } = place(settings);
        const [file, { names }] = await Promise.all([
            /** @type {Promise<ClassesFile>} */ (playground.load(`${at}/classes`)),
            /** @type {Promise<{ names: string[] }>} */ (
                playground.load(`networks/${network}/names`)
            ),
        ]);
        const k = playground.whole(settings, "class", names.length, file.classes[0]?.class ?? 0);
        const entry = file.classes.find((each) => each.class === k);
        if (!entry) throw new RangeError(`The class “${names[k]}” has no crops on this site.`);
        /** @type {ClassFile} */
        const { clusters, noise, note } = await playground.load(`${at}/class-${k}`);
        const index = file.classes.indexOf(entry);
        /** @param {number} by */
        const beside = (by) =>
            link("class", {
                set,
                network,
                class: file.classes[(index + by + file.classes.length) % file.classes.length].class,
            });
        const best = new Set(entry.best);

        /** @param {ClassCrop} crop */
        function tile({ i, photo, score }) {
            const alt =
                photo === null
                    ? `Crop of class ${names[k]}`
                    : `Crop of photo ${photo}, found to be ${names[k]}`;
            const inside = [
                element(
                    "span",
                    { class: best.has(i) ? "frame representative" : "frame" },
                    picture(playground.file(`${at}/crops/${k}-${i}.jpg`), alt),
                ),
                element(
                    "span",
                    { class: "caption" },
                    best.has(i) && element("span", { class: "tag" }, "typical"),
                    element("span", { class: "number" }, playground.percent(score)),
                ),
            ];
            return element(
                "li",
                {},
                photo === null
                    ? element("span", { class: "tile" }, ...inside)
                    : element(
                          "a",
                          { class: "tile", href: link("photo", { set, photo, network }) },
                          ...inside,
                      ),
            );
        }
        /** @param {string} text @param {ClassCrop[]} crops */
        const group = (text, crops) => [
            element("h2", {}, text),
            element("ul", { class: "results crops" }, ...crops.map(tile)),
        ];

        return {
            title: `Class ${names[k]}`,
            content: [
                playground.crumbs([
                    `Classes of ${playground.site.networks[network].name}`,
                    link("classes", { set, network }),
                ]),
                element(
                    "div",
                    { class: "bar-line" },
                    heading(names[k]),
                    file.classes.length > 1 && playground.beside("class", beside),
                ),
                element(
                    "p",
                    { class: "muted" },
                    `${plural(entry.crops, "crop", "crops")} of ${plural(entry.photos, "photo", "photos")}, ${plural(entry.clusters, "kind", "kinds")}. Below each: how probable the class is there. A click shows the whole photo.`,
                ),
                entry.label !== null &&
                    element(
                        "p",
                        { class: "links" },
                        element(
                            "a",
                            {
                                href: link("search", {
                                    set,
                                    network,
                                    only: entry.label,
                                    order: "class",
                                }),
                            },
                            "Search among photos of this class",
                        ),
                    ),
                note !== "" && element("p", { class: "notice" }, note),
                element(
                    "div",
                    { class: entry.picture ? "unit-columns" : "" },
                    entry.picture &&
                        element(
                            "figure",
                            { class: "unit-picture" },
                            element(
                                "span",
                                { class: "frame" },
                                picture(
                                    playground.file(`networks/${network}/classes/${k}.jpg`),
                                    `The picture that excites class ${names[k]} most`,
                                    { loading: "eager" },
                                ),
                            ),
                            element(
                                "figcaption",
                                { class: "muted small" },
                                "Made from noise so that the network is as sure of this class as it can be.",
                            ),
                        ),
                    element(
                        "div",
                        { class: "clusters" },
                        ...clusters.flatMap((crops, c) =>
                            group(
                                `Kind ${c + 1} · ${plural(crops.length, "crop", "crops")}`,
                                crops,
                            ),
                        ),
                        ...(noise.length
                            ? group(`Alone · ${plural(noise.length, "crop", "crops")}`, noise)
                            : []),
                    ),
                ),
            ],
            key(event) {
                const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
                if (by) location.hash = beside(by);
                return by !== 0;
            },
        };
    });
}
