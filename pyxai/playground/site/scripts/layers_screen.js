// Layers: what a network consists of, and what its channels respond to.
"use strict";

/** @type {PageScreen} */
const layersScreen = {
  title: "Layers",
  open(main) {
    let turn = 0;
    const head = make("div");
    const body = make("div");
    fill(main, head, body);

    /** @param {Params} params */
    async function show(params) {
      const mine = ++turn;
      const number = numberOf(params, "network", site.networks.length, 0);
      const network = site.networks[number];
      const layer = numberOf(params, "layer", network.layers.length, null);
      const channels = layer === null ? 1 : network.layers[layer].channels;
      const channel = numberOf(params, "unit", channels, null);
      const choice = select(
        "Network",
        site.networks.map((each) => each.name),
        number,
        (to) => go("layers", { network: to }),
      );
      fill(
        head,
        make("p", { class: "lead" }, "What a network consists of, and what excites its channels."),
        make("p", { class: "sentence" }, choice, `has ${grouped(network.parameters)} parameters and tells ${grouped(network.classes)} classes apart`),
        make("div", { class: "tiles layer-tiles" }, network.layers.map((each, place) => layerTile(number, place, layer))),
      );
      try {
        const content =
          layer === null
            ? await moduleTable(number)
            : await (channel === null ? unitGrid(number, layer) : unitPage(number, layer, channel));
        if (mine === turn) fill(body, content);
      } catch (error) {
        if (mine === turn) fill(body, failure(error));
      }
    }
    return {
      update: (params) => {
        show(params).catch((error) => fill(body, failure(error)));
      },
      close: () => {
        turn++;
      },
    };
  },
};

/** @param {number} network @param {number} place @param {number | null} chosen */
function layerTile(network, place, chosen) {
  const layer = site.networks[network].layers[place];
  return make(
    "a",
    {
      class: "tile",
      href: addressOf("layers", { network, layer: place }),
      "aria-current": place === chosen && "true",
    },
    unitThumb(network, place),
    make("b", {}, layer.name),
    make("small", {}, `${layer.type}, ${counted(layer.channels, "channel")}`),
    make("small", {}, layer.positions[0] * layer.positions[1] > 1 && `${layer.positions.join(" × ")} positions`),
  );
}

/** @param {number} network */
async function moduleTable(network) {
  const { modules } = await playground.load(`networks/${network}/modules`);
  /** @param {any} module @param {number} place */
  const row = (module, place) =>
    make(
      "tr",
      {},
      make("td", { class: "number" }, String(place)),
      make(
        "td",
        {},
        module.layer === null
          ? module.name
          : make("a", { href: addressOf("layers", { network, layer: module.layer }) }, module.name),
      ),
      make("td", {}, module.type),
      make("td", { class: "number" }, module.shape ? module.shape.join(" × ") : "–"),
      make("td", { class: "number" }, module.parameters ? grouped(module.parameters) : ""),
    );
  const heads = ["", "layer", "type", "output for one photo", "parameters"];
  return make(
    "section",
    {},
    make("h2", {}, `All ${modules.length} layers, as they run`),
    make(
      "div",
      { class: "scroll" },
      make(
        "table",
        {},
        make("thead", {}, make("tr", {}, heads.map((each) => make("th", { scope: "col" }, each)))),
        make("tbody", {}, modules.map(row)),
      ),
    ),
  );
}

/** @param {number} network @param {number} layer */
async function unitsOf(network, layer) {
  if (!site.networks[network].layers[layer].units) return { units: [] };
  return playground.load(`networks/${network}/layers/${layer}/units`);
}

/** @param {number} network @param {number} layer @param {number} channel */
function unitPicture(network, layer, channel) {
  return `data/networks/${network}/layers/${layer}/units/${channel}.jpg`;
}

/** @param {number} network @param {number} layer */
async function unitGrid(network, layer) {
  const { units } = await unitsOf(network, layer);
  const about = site.networks[network].layers[layer];
  const title = make("h2", {}, `${about.name}: ${units.length} of ${counted(about.channels, "channel")}`);
  if (!units.length) {
    return make("section", {}, title, make("p", { class: "quiet" }, "This site was built without pictures of channels."));
  }
  return make(
    "section",
    {},
    title,
    make(
      "p",
      { class: "quiet" },
      "Each picture was made so that it excites one channel. Open one to see the photos that do.",
    ),
    make(
      "div",
      { class: "units" },
      units.map((/** @type {any} */ unit) =>
        make(
          "a",
          {
            class: "unit",
            href: addressOf("layers", { network, layer, unit: unit.channel }),
            "data-unit": unit.channel,
          },
          picture(unitPicture(network, layer, unit.channel), `What excites channel ${unit.channel} of ${about.name}`, {
            width: 128,
            height: 128,
          }),
          make("span", {}, String(unit.channel), unit.dead && make("small", {}, " no response")),
        ),
      ),
    ),
  );
}

/** @param {number} network @param {number} layer @param {number} channel */
async function unitPage(network, layer, channel) {
  const { units, size, steps } = await unitsOf(network, layer);
  const place = units.findIndex((/** @type {any} */ unit) => unit.channel === channel);
  const about = site.networks[network].layers[layer];
  if (place < 0) {
    return make(
      "p",
      {},
      `Channel ${channel} of ${about.name} has no picture here. `,
      make("a", { href: addressOf("layers", { network, layer }) }, "Those that have one"),
    );
  }
  const unit = units[place];
  /** @param {number} step @param {string} text */
  const link = (step, text) => {
    const other = units[(place + step + units.length) % units.length].channel;
    return make("a", { class: "button", href: addressOf("layers", { network, layer, unit: other }) }, text);
  };
  const crops = unit.crops.map((/** @type {any} */ crop, /** @type {number} */ rank) =>
    make(
      "figure",
      { class: "crop" },
      make(
        "a",
        { href: addressOf("photo", { set: crop.set, photo: crop.photo, network }) },
        picture(
          `data/networks/${network}/layers/${layer}/crops/${channel}-${rank}.jpg`,
          `Piece of photo ${crop.photo} of ${site.sets[crop.set].name}`,
          { width: 128, height: 128 },
        ),
      ),
      make("figcaption", {}, short(crop.response)),
    ),
  );
  const [first, last] = unit.responses;
  return make(
    "section",
    {},
    make("h2", {}, `${about.name}, channel ${channel} of ${about.channels}`),
    make(
      "div",
      { class: "unit-page" },
      make(
        "figure",
        { class: "unit-large" },
        picture(unitPicture(network, layer, channel), `What excites channel ${channel}`, { width: 320, height: 320 }),
        make(
          "figcaption",
          { class: "quiet" },
          unit.dead
            ? "Nothing excited this channel, so this is noise."
            : `Its mean activation rose from ${short(first)} to ${short(last)} in ${steps} steps (${size} pixels).`,
        ),
      ),
      make(
        "div",
        {},
        make("h3", {}, "Pieces of photos that excite it most"),
        crops.length
          ? make("div", { class: "crops" }, crops)
          : make("p", { class: "quiet" }, "This site was built without them."),
        crops.length > 0 && make("p", { class: "quiet" }, "Below each the activation. A click opens the photo."),
      ),
    ),
    make(
      "p",
      { class: "buttons" },
      link(-1, "← Previous"),
      make("a", { class: "button", href: addressOf("layers", { network, layer }) }, "All of this layer"),
      link(1, "Next →"),
    ),
  );
}
