// What to search with: a sentence whose words can be changed, tiles for whoever wants to see more,
// and steps to the next and previous.
"use strict";
{
    const SAME_ORDER = ["euclidean", "sqeuclidean"];

    /** @param {Layer} layer */
    const layerName = (layer) => `${layer.index} · ${layer.name}`;

    playground.step = (choice, what, by) => {
        const { sets, networks, metrics } = playground.site;
        const next = { ...choice };
        /** @param {number} at @param {number} length */
        const turn = (at, length) => (at + by + length) % length;
        if (what === "layer")
            next.layer = turn(choice.layer, networks[choice.network].layers.length);
        else if (what === "photo") next.photo = turn(choice.photo, sets[choice.set].photos);
        else if (what === "metric")
            next.metric = metrics[turn(metrics.indexOf(choice.metric), metrics.length)];
        else {
            next.network = turn(choice.network, networks.length);
            const before = networks[choice.network].layers.length;
            const now = networks[next.network].layers.length;
            // The same depth: last stays last.
            next.layer =
                before > 1 ? Math.round((choice.layer / (before - 1)) * (now - 1)) : now - 1;
        }
        return next;
    };

    playground.sentence = (change, parts) => {
        const { element, replace } = playground;
        /** @type {Record<string, HTMLSelectElement>} */
        const selects = {};
        const words = /** @type {Record<string, [string, string]>} */ ({
            set: ["Photos of", "Data set"],
            network: ["as", "Model"],
            layer: ["sees them at layer", "Layer"],
            metric: ["by distance", "Distance"],
        });
        const line = element("p", { class: "sentence" });
        for (const part of parts) {
            const select = element("select", { "aria-label": words[part][1] });
            select.addEventListener("change", () => {
                const value = part === "metric" ? select.value : Number(select.value);
                change({ [part]: value });
            });
            selects[part] = select;
            line.append(element("label", {}, element("span", {}, words[part][0]), select));
        }

        /** @param {string} part @param {[string | number, string][]} options @param {string | number} value */
        function fill(part, options, value) {
            const select = selects[part];
            if (!select) return;
            const text = JSON.stringify(options);
            if (select.dataset.options !== text) {
                select.dataset.options = text;
                replace(
                    select,
                    ...options.map(([key, name]) => element("option", { value: key }, name)),
                );
            }
            select.value = String(value);
        }

        return {
            element: line,
            show(choice) {
                const { sets, networks, metrics } = playground.site;
                fill(
                    "set",
                    sets.map((set, s) => [s, set.name]),
                    choice.set,
                );
                fill(
                    "network",
                    networks.map((network, m) => [m, network.name]),
                    choice.network,
                );
                fill(
                    "layer",
                    networks[choice.network].layers.map((layer, l) => [l, layerName(layer)]),
                    choice.layer,
                );
                fill(
                    "metric",
                    metrics.map((metric) => [metric, metric]),
                    choice.metric,
                );
            },
        };
    };

    /** @param {number} network @param {number} layer @param {number | null} channel */
    const unitPicture = (network, layer, channel) =>
        channel === null
            ? playground.element("span", { class: "blank" })
            : playground.picture(
                  playground.file(`networks/${network}/layers/${layer}/units/${channel}.jpg`),
                  "",
              );

    playground.networkTiles = (address, current) => {
        const { element } = playground;
        return element(
            "div",
            { class: "option-tiles" },
            ...playground.site.networks.map((network, m) => {
                const last = network.layers.length - 1;
                return element(
                    "a",
                    {
                        class: "option",
                        href: address(m),
                        "aria-current": m === current ? "true" : null,
                    },
                    unitPicture(m, last, network.layers[last]?.thumbnail ?? null),
                    element(
                        "span",
                        { class: "option-text" },
                        element("strong", {}, network.name),
                        element("span", {}, `${playground.amount(network.parameters)} parameters`),
                        element(
                            "span",
                            {},
                            `${network.layers.length} of ${network.modules} layers`,
                        ),
                    ),
                );
            }),
        );
    };

    playground.layerTiles = (network, address, current) => {
        const { element } = playground;
        const { layers, parameters } = playground.site.networks[network];
        return element(
            "div",
            { class: "option-tiles" },
            ...layers.map((layer, l) => {
                const depth = playground.bar(layer.parameters_so_far / Math.max(1, parameters));
                depth.title = "Share of the parameters up to this layer";
                return element(
                    "a",
                    {
                        class: "option",
                        href: address(l),
                        "aria-current": l === current ? "true" : null,
                    },
                    unitPicture(network, l, layer.thumbnail),
                    element(
                        "span",
                        { class: "option-text" },
                        element("strong", {}, layer.name),
                        element("span", {}, `layer ${layer.index} · ${layer.type}`),
                        element(
                            "span",
                            {},
                            `${playground.count(layer.channels)} channels · ${playground.amount(layer.parameters)} parameters`,
                        ),
                        depth,
                    ),
                );
            }),
        );
    };

    playground.tiles = (change) => {
        const { element, replace } = playground;
        const networks = element("div", {});
        const layers = element("div", {});
        const metrics = element("div", { class: "option-tiles metrics" });
        const box = element(
            "div",
            { class: "configuration" },
            element("h3", {}, "Model"),
            networks,
            element("h3", {}, "Layer"),
            layers,
            element("h3", {}, "Distance"),
            metrics,
        );
        // A click changes the choice; the address follows from there.
        /** @param {HTMLElement} tiles @param {(place: number) => Partial<Choice>} choose */
        function listen(tiles, choose) {
            tiles.querySelectorAll("a").forEach((tile, place) => {
                tile.addEventListener("click", (event) => {
                    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                    event.preventDefault();
                    change(choose(place));
                });
            });
            return tiles;
        }

        return {
            element: box,
            show(choice) {
                const focused = [...box.querySelectorAll("a")].indexOf(
                    /** @type {any} */ (document.activeElement),
                );
                /** @param {Partial<Choice>} part */
                const address = (part) =>
                    playground.link("search", { ...choice, ...part, advanced: 1 });
                replace(
                    networks,
                    listen(
                        playground.networkTiles(
                            (network) => address({ network, layer: undefined }),
                            choice.network,
                        ),
                        (network) => ({ network }),
                    ),
                );
                replace(
                    layers,
                    listen(
                        playground.layerTiles(
                            choice.network,
                            (layer) => address({ layer }),
                            choice.layer,
                        ),
                        (layer) => ({ layer }),
                    ),
                );
                replace(
                    metrics,
                    ...playground.site.metrics.map((metric) =>
                        element(
                            "a",
                            {
                                class: "option",
                                href: address({ metric }),
                                "aria-current": metric === choice.metric ? "true" : null,
                            },
                            element(
                                "span",
                                { class: "option-text" },
                                element("strong", {}, metric),
                                SAME_ORDER.includes(metric) &&
                                    element("span", {}, "these two order alike"),
                            ),
                        ),
                    ),
                );
                listen(metrics, (place) => ({ metric: playground.site.metrics[place] }));
                if (focused >= 0)
                    box.querySelectorAll("a")[focused]?.focus({ preventScroll: true });
            },
        };
    };
}
