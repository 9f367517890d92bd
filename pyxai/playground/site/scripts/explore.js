// What the parts of a network respond to: models, their layers, the channels of a layer, one channel.
"use strict";
{
    const { element, link, picture, heading, count, amount, short } = playground;

    /** @param {Record<string, string>} settings */
    const networkOf = (settings) =>
        playground.whole(settings, "network", playground.site.networks.length, 0);
    /** @param {Record<string, string>} settings @param {number} network */
    const layerOf = (settings, network) =>
        playground.whole(settings, "layer", playground.site.networks[network].layers.length, 0);
    /** @param {number} at @param {number} by @param {number} length */
    const turn = (at, by, length) => (at + by + length) % length;

    /** @param {KeyboardEvent} event @returns {number} */
    const sideways = (event) =>
        event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    /** @param {KeyboardEvent} event @returns {number} */
    const brackets = (event) => (event.key === "[" ? -1 : event.key === "]" ? 1 : 0);

    playground.screens.explore = playground.page(async (settings) => {
        const network = networkOf(settings);
        const { networks } = playground.site;
        const { name, layers, modules } = networks[network];
        return {
            title: `Layers of ${name}`,
            content: [
                heading("What do the layers of a network respond to?"),
                element("h2", {}, "Models"),
                playground.networkTiles((m) => link("explore", { network: m }), network),
                element(
                    "div",
                    { class: "bar-line" },
                    element("h2", {}, `Layers of ${name}`),
                    element(
                        "a",
                        { href: link("layers", { network }) },
                        `All ${count(modules)} layers`,
                    ),
                ),
                element(
                    "p",
                    { class: "muted" },
                    "The picture of a layer is what excites one of its channels most. The line under it is the share of the network’s parameters up to there.",
                ),
                playground.layerTiles(network, (layer) => link("layer", { network, layer }), null),
                layers.length === 0 &&
                    element("p", { class: "notice" }, "This site has no pictures of layers."),
            ],
            key(event) {
                const by = brackets(event) || sideways(event);
                if (by) playground.go("explore", { network: turn(network, by, networks.length) });
                return by !== 0;
            },
        };
    });

    playground.screens.layers = playground.page(async (settings) => {
        const network = networkOf(settings);
        const { name, parameters } = playground.site.networks[network];
        /** @type {{ modules: Module[] }} */
        const { modules } = await playground.load(`networks/${network}/modules`);
        const rows = modules.map((module, index) => [
            count(index),
            module.layer === null
                ? module.name
                : element(
                      "a",
                      { href: link("layer", { network, layer: module.layer }) },
                      module.name,
                  ),
            module.type,
            module.shape ? module.shape.join(" × ") : "–",
            module.parameters ? count(module.parameters) : "0",
        ]);
        return {
            title: `All layers of ${name}`,
            content: [
                playground.crumbs([name, link("explore", { network })]),
                heading(`All layers of ${name}`),
                element(
                    "p",
                    { class: "muted" },
                    `${count(modules.length)} layers in order of execution, ${count(parameters)} parameters. Linked layers have pictures and can be searched.`,
                ),
                playground.table(
                    ["Index", "Layer", "Type", "Output of a photo", "#Parameters"],
                    rows,
                    `Layers of ${name}`,
                ),
            ],
        };
    });

    /** @param {number} network @param {number} layer @param {number} channel */
    const unitPicture = (network, layer, channel) =>
        playground.file(`networks/${network}/layers/${layer}/units/${channel}.jpg`);

    playground.screens.layer = playground.page(async (settings) => {
        const network = networkOf(settings);
        const layer = layerOf(settings, network);
        const { name, layers } = playground.site.networks[network];
        const about = layers[layer];
        /** @type {Unit[]} */
        const units = about.units
            ? (await playground.load(`networks/${network}/layers/${layer}/units`)).units
            : [];
        return {
            title: `${about.name} of ${name}`,
            content: [
                playground.crumbs(
                    [name, link("explore", { network })],
                    ["All layers", link("layers", { network })],
                ),
                heading(about.name),
                playground.facts([
                    ["Layer", `${about.index} of ${playground.site.networks[network].modules}`],
                    ["Type", about.type],
                    ["Channels", count(about.channels)],
                    ["Positions", about.positions.join(" × ")],
                    ["Parameters", count(about.parameters)],
                    ["Up to here", amount(about.parameters_so_far)],
                ]),
                element(
                    "p",
                    { class: "links" },
                    element(
                        "a",
                        { href: link("search", { network, layer }) },
                        "Search with this layer",
                    ),
                    playground.site.sets[0]?.maps.length > 0 &&
                        element(
                            "a",
                            { href: link("map", { network, layer }) },
                            "Map of this layer",
                        ),
                ),
                element(
                    "h2",
                    {},
                    units.length < about.channels
                        ? `${count(units.length)} of ${count(about.channels)} channels`
                        : `${count(units.length)} channels`,
                ),
                element(
                    "p",
                    { class: "muted" },
                    "Each picture was made from noise so that its channel responds as much as possible.",
                ),
                element(
                    "ul",
                    { class: "units" },
                    ...units.map(({ channel, dead }) =>
                        element(
                            "li",
                            {},
                            element(
                                "a",
                                {
                                    class: "tile",
                                    href: link("unit", { network, layer, unit: channel }),
                                },
                                element(
                                    "span",
                                    { class: "frame" },
                                    picture(
                                        unitPicture(network, layer, channel),
                                        `What excites channel ${channel}`,
                                    ),
                                ),
                                element(
                                    "span",
                                    { class: "caption" },
                                    element("span", { class: "name" }, `channel ${channel}`),
                                    dead && element("span", { class: "tag" }, "silent"),
                                ),
                            ),
                        ),
                    ),
                ),
            ],
            key(event) {
                const by = sideways(event);
                const other = brackets(event);
                if (by) playground.go("layer", { network, layer: turn(layer, by, layers.length) });
                else if (other)
                    playground.go("layer", {
                        network: turn(network, other, playground.site.networks.length),
                    });
                return Boolean(by || other);
            },
        };
    });

    playground.screens.unit = playground.page(async (settings) => {
        const network = networkOf(settings);
        const layer = layerOf(settings, network);
        const { name, layers } = playground.site.networks[network];
        const at = `networks/${network}/layers/${layer}`;
        /** @type {UnitsFile} */
        const { units, size, steps, seed } = await playground.load(`${at}/units`);
        const channel = playground.whole(
            settings,
            "unit",
            layers[layer].channels,
            units[0].channel,
        );
        const place = units.findIndex((unit) => unit.channel === channel);
        if (place < 0)
            throw new RangeError(
                `Channel ${channel} of ${layers[layer].name} has no picture on this site.`,
            );
        const unit = units[place];
        const labels = await Promise.all(unit.crops.map(({ set }) => playground.labels(set)));
        /** @param {number} by */
        const beside = (by) =>
            link("unit", { network, layer, unit: units[turn(place, by, units.length)].channel });
        return {
            title: `Channel ${channel} of ${layers[layer].name}`,
            content: [
                playground.crumbs(
                    [name, link("explore", { network })],
                    [layers[layer].name, link("layer", { network, layer })],
                ),
                element(
                    "div",
                    { class: "bar-line" },
                    heading(`Channel ${channel}`),
                    playground.beside("channel", beside),
                ),
                element(
                    "div",
                    { class: "unit-columns" },
                    element(
                        "figure",
                        { class: "unit-picture" },
                        element(
                            "span",
                            { class: "frame" },
                            picture(
                                unitPicture(network, layer, channel),
                                `The picture that excites channel ${channel} most`,
                                { loading: "eager" },
                            ),
                        ),
                        playground.facts([
                            ["Response to noise", short(unit.responses[0])],
                            ["to this picture", short(unit.responses[1])],
                            ["Size", `${size} pixels`],
                            ["Steps", count(steps)],
                            ["Seed", String(seed)],
                        ]),
                    ),
                    element(
                        "section",
                        { "aria-label": "Photos that excite it" },
                        element("h2", {}, "Parts of photos that excite it most"),
                        unit.dead
                            ? element(
                                  "p",
                                  { class: "notice" },
                                  "This channel is silent: nothing raised its response, neither noise nor the photos. Its picture says nothing.",
                              )
                            : element(
                                  "ol",
                                  { class: "results crops" },
                                  ...unit.crops.map(({ set, photo, response }, i) => {
                                      const label = labels[i][photo];
                                      return element(
                                          "li",
                                          {},
                                          element(
                                              "a",
                                              {
                                                  class: "tile",
                                                  href: link("photo", { set, photo, network }),
                                              },
                                              element(
                                                  "span",
                                                  { class: "frame" },
                                                  picture(
                                                      playground.file(
                                                          `${at}/crops/${channel}-${i}.jpg`,
                                                      ),
                                                      `Part of photo ${photo}, ${playground.className(set, label)}`,
                                                  ),
                                              ),
                                              element(
                                                  "span",
                                                  { class: "caption" },
                                                  element(
                                                      "span",
                                                      { class: "name" },
                                                      playground.className(set, label),
                                                  ),
                                                  element(
                                                      "span",
                                                      { class: "number" },
                                                      short(response),
                                                  ),
                                              ),
                                          ),
                                      );
                                  }),
                              ),
                        !unit.dead &&
                            !unit.crops.length &&
                            element("p", { class: "notice" }, "No photo of this site excites it."),
                    ),
                ),
            ],
            key(event) {
                const by = sideways(event);
                if (by) location.hash = beside(by);
                return by !== 0;
            },
        };
    });
}
