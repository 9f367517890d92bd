// The first screen: choose a photo, see the 50 that a layer finds most alike.
"use strict";
{
    const JUDGED = 15; // results that the summary counts, as in ConvNet Playground

    /** @param {number} n @returns {Uint32Array} 0 to n - 1, shuffled, always alike */
    function shuffled(n) {
        const order = Uint32Array.from({ length: n }, (_, i) => i);
        let state = 2463534242;
        for (let i = n - 1; i > 0; i--) {
            state ^= state << 13;
            state ^= state >>> 17;
            state ^= state << 5;
            const j = (state >>> 0) % (i + 1);
            [order[i], order[j]] = [order[j], order[i]];
        }
        return order;
    }

    playground.screens.search = (root) => {
        const { element, replace, go, link, picture } = playground;
        /** @type {Choice} */
        let choice;
        /** @type {Record<string, string>} */
        let settings = {};
        let filled = "";
        /** @param {Partial<Choice>} part */
        function change(part) {
            let next = { ...choice, ...part };
            if (part.set !== undefined && part.set !== choice.set) {
                go("search", {
                    set: part.set,
                    network: choice.network,
                    layer: choice.layer,
                    metric: choice.metric,
                    advanced: settings.advanced,
                });
                return;
            }
            if (part.network !== undefined) {
                next = playground.step(choice, "network", part.network - choice.network);
            }
            go("search", { ...settings, ...next });
        }

        const sentence = playground.sentence(change, ["set", "network", "layer", "metric"]);
        const tiles = playground.tiles(change);
        const advanced = element(
            "button",
            {
                type: "button",
                class: "quiet",
                "aria-expanded": "false",
                "aria-controls": "advanced",
                onclick: () =>
                    go("search", {
                        ...settings,
                        ...choice,
                        advanced: settings.advanced ? null : 1,
                    }),
            },
            "Advanced",
        );
        const mapTitle = element("h3", {}, "Map of this layer");
        const mapBox = element("div", { class: "advanced-map" }, mapTitle);
        const more = element(
            "section",
            { id: "advanced", class: "advanced", hidden: true, "aria-label": "Advanced options" },
            tiles.element,
            mapBox,
        );
        /** @type {ReturnType<Playground["mapPanel"]> | null} */
        let map = null;

        const order = element(
            "select",
            { "aria-label": "Order of the photos" },
            element("option", { value: "" }, "All, shuffled"),
            element("option", { value: "class" }, "By class"),
        );
        const only = element("select", { "aria-label": "Only photos of a class" });
        const find = element("input", {
            type: "search",
            placeholder: "Name",
            "aria-label": "Only photos whose name has",
            autocomplete: "off",
            spellcheck: "false",
        });
        order.addEventListener("change", () => filter({ order: order.value }));
        only.addEventListener("change", () => filter({ only: only.value }));
        /** @type {ReturnType<typeof setTimeout> | undefined} */
        let typing;
        find.addEventListener("input", () => {
            clearTimeout(typing);
            typing = setTimeout(() => filter({ find: find.value.trim() }), 200);
        });
        /** @param {Record<string, string>} part */
        function filter(part) {
            go("search", { ...settings, ...choice, ...part }, true);
            settings = playground.route().settings;
            fillGrid().catch((error) => {
                found.textContent = error instanceof Error ? error.message : String(error);
            });
        }
        const grid = playground.photoGrid((photo) => change({ photo }));
        const found = element("p", { class: "muted small", role: "status" });

        const query = element("div", { class: "query-picture frame" });
        const name = element("h2", {});
        const summary = element("p", { class: "summary" });
        const links = element("p", { class: "links" });
        const hint = element("p", { class: "muted small" });
        const box = element(
            "div",
            { class: "query" },
            query,
            element("div", { class: "query-text" }, name, summary, links, hint),
        );
        let shownPhoto = -1;
        const results = playground.results();
        const heading = element("h1", { tabindex: "-1" });
        replace(
            root,
            heading,
            element(
                "p",
                { class: "muted lead" },
                "Choose a photo to see those that one layer of a network finds most like it.",
            ),
            element("div", { class: "bar-line" }, sentence.element, advanced),
            more,
            element(
                "div",
                { class: "columns" },
                element(
                    "section",
                    { class: "chooser", "aria-label": "Choose a photo" },
                    element("h2", { class: "label" }, "Choose a photo"),
                    element("div", { class: "filters" }, order, only, find),
                    grid.element,
                    found,
                ),
                element(
                    "section",
                    { class: "found", "aria-label": "Photos found" },
                    box,
                    results.element,
                ),
            ),
        );

        // Fills the grid by the order and the filters, when these changed.
        async function fillGrid() {
            const wanted = JSON.stringify([
                choice.set,
                settings.order,
                settings.only,
                settings.find,
            ]);
            if (wanted === filled) return;
            filled = wanted;
            const { set } = choice;
            const { photos, classes } = playground.site.sets[set];
            const labels = await playground.labels(set);
            const key = (settings.find ?? "").toLowerCase();
            const class_ = settings.only
                ? playground.whole(settings, "only", classes.length, 0)
                : null;
            let ids =
                settings.order === "class"
                    ? Uint32Array.from({ length: photos }, (_, i) => i)
                    : shuffled(photos);
            if (class_ !== null) ids = ids.filter((id) => labels[id] === class_);
            if (key || photos <= 2000) {
                for (let first = 0; first < photos; first += 1000) {
                    await playground.photo(set, first);
                    if (wanted !== filled) return;
                }
            }
            if (key)
                ids = ids.filter((id) => playground.name(set, id)?.toLowerCase().includes(key));
            /** @type {{ title: string | null, ids: ArrayLike<number> }[]} */
            let groups = [{ title: null, ids }];
            if (settings.order === "class") {
                const members = /** @type {Map<number, number[]>} */ (new Map());
                for (const id of ids) {
                    const label = labels[id] < classes.length ? labels[id] : -1;
                    const list = members.get(label);
                    if (list) list.push(id);
                    else members.set(label, [id]);
                }
                groups = [...members.keys()]
                    .sort((a, b) => (a < 0 ? Infinity : a) - (b < 0 ? Infinity : b))
                    .map((label) => ({
                        title: `${playground.className(set, label)} · ${playground.count(members.get(label)?.length ?? 0)}`,
                        ids: members.get(label) ?? [],
                    }));
            }
            grid.fill(set, labels, groups);
            grid.mark(choice.photo);
            found.textContent =
                ids.length === photos
                    ? playground.plural(photos, "photo", "photos")
                    : `${playground.count(ids.length)} of ${playground.plural(photos, "photo", "photos")}`;
        }

        function showFilters() {
            const { classes, sizes } = playground.site.sets[choice.set];
            if (only.dataset.set !== String(choice.set)) {
                only.dataset.set = String(choice.set);
                replace(
                    only,
                    element("option", { value: "" }, "Any class"),
                    ...classes.map((text, k) =>
                        element("option", { value: k }, `${text} (${playground.count(sizes[k])})`),
                    ),
                );
            }
            order.value = settings.order === "class" ? "class" : "";
            only.value = settings.only ?? "";
            if (document.activeElement !== find) find.value = settings.find ?? "";
        }

        /** @param {{ name: string, label: number, size: [number, number] }} photo @param {Tile[]} found @param {Numbers} labels */
        function showQuery(photo, found, labels) {
            const { set, photo: id, network, layer } = choice;
            const { classes, maps } = playground.site.sets[set];
            const kind = playground.className(set, photo.label);
            replace(
                query,
                picture(
                    playground.large(set, id),
                    `The chosen photo: ${playground.describe(set, id, photo.label)}`,
                    { loading: "eager" },
                ),
            );
            replace(name, kind, element("span", { class: "file" }, photo.name));
            const judged = found.slice(0, JUDGED);
            const right = judged.filter((tile) => labels[tile.id] === photo.label).length;
            if (photo.label >= 0 && judged.length) {
                replace(
                    summary,
                    element("strong", {}, `${right} of ${judged.length}`),
                    judged.length < JUDGED
                        ? " found are of the same class"
                        : " first found are of the same class",
                );
            } else if (!judged.length) replace(summary, "The data set has no other photo.");
            else
                replace(
                    summary,
                    `This photo has no class, so nobody says which of ${classes.length} is right.`,
                );
            const layers = playground.site.networks[network].layers;
            replace(
                links,
                element(
                    "a",
                    { href: link("photo", { set, photo: id, network }) },
                    "What speaks for its class",
                ),
                maps.length > 0 &&
                    element(
                        "a",
                        { href: link("map", { set, network, layer, photo: id }) },
                        "On the map",
                    ),
                element("a", { href: link("layer", { network, layer }) }, "What this layer sees"),
            );
            const other = layer > 0 ? layer - 1 : Math.min(1, layers.length - 1);
            replace(
                hint,
                layers.length > 1 &&
                    "Early layers go by colour and texture, late ones by kind. Try ",
                layers.length > 1 &&
                    element(
                        "a",
                        { href: link("search", { ...settings, ...choice, layer: other }) },
                        `layer ${layers[other].index} · ${layers[other].name}`,
                    ),
                layers.length > 1 && " (keys ← →).",
            );
            return right;
        }

        async function showMore() {
            const open = Boolean(settings.advanced);
            advanced.setAttribute("aria-expanded", String(open));
            advanced.textContent = open ? "Fewer options" : "Advanced";
            more.hidden = !open;
            if (!open) return;
            tiles.show(choice);
            const { maps } = playground.site.sets[choice.set];
            mapBox.hidden = !maps.length;
            if (!maps.length) return;
            if (!map) {
                map = playground.mapPanel({
                    address: (photo) => link("search", { ...settings, ...choice, photo }),
                });
                mapBox.append(map.element);
            }
            const method = maps[0];
            mapTitle.textContent = `Map of this layer (${method.toUpperCase()})`;
            await map.show(choice.set, choice.network, choice.layer, method, choice.photo, null);
        }

        return {
            async update(newSettings) {
                const next = playground.choice(newSettings);
                if (newSettings.only)
                    playground.whole(
                        newSettings,
                        "only",
                        playground.site.sets[next.set].classes.length,
                        0,
                    );
                choice = next;
                settings = newSettings;
                sentence.show(choice);
                showFilters();
                const mine = choice;
                const [photo, tilesFound, labels] = await Promise.all([
                    playground.photo(choice.set, choice.photo),
                    playground.neighbors(choice),
                    playground.labels(choice.set),
                ]);
                if (mine !== choice) return "";
                const network = playground.site.networks[choice.network];
                heading.textContent = `What does ${network.name} find alike?`;
                const bounds = box.getBoundingClientRect();
                if (shownPhoto !== choice.photo && bounds.top < 0)
                    box.scrollIntoView({ block: "start" });
                shownPhoto = choice.photo;
                const right = showQuery(photo, tilesFound, labels);
                results.show(choice.set, tilesFound, labels, photo.label, (id) =>
                    link("search", { ...settings, ...choice, photo: id }),
                );
                grid.mark(choice.photo);
                await Promise.all([fillGrid(), showMore()]);
                const kind = playground.className(choice.set, photo.label);
                playground.announce(
                    `${tilesFound.length} photos like ${kind}; ${right} of the first ${Math.min(JUDGED, tilesFound.length)} in the same class. Layer ${network.layers[choice.layer].name}, ${choice.metric}.`,
                );
                return `${kind} · ${network.name} · ${network.layers[choice.layer].name}`;
            },
            key(event) {
                const steps =
                    /** @type {Record<string, ["layer" | "network" | "metric" | "photo", number]>} */ ({
                        ArrowLeft: ["layer", -1],
                        ArrowRight: ["layer", 1],
                        "[": ["network", -1],
                        "]": ["network", 1],
                        m: ["metric", 1],
                        M: ["metric", -1],
                        j: ["photo", 1],
                        k: ["photo", -1],
                    });
                const step = steps[event.key];
                if (step)
                    go("search", { ...settings, ...playground.step(choice, step[0], step[1]) });
                else if (event.key === "a") advanced.click();
                else if (event.key === "/") find.focus();
                else return false;
                return true;
            },
            close() {
                grid.close();
                map?.close();
            },
        };
    };
}
