// The choice of data set, network, layer and distance: a sentence, and tiles for those who want more.
"use strict";

/**
 * A labelled select.
 * @param {string} label
 * @param {string[]} names
 * @param {number} chosen
 * @param {(place: number) => void} choose
 */
function select(label, names, chosen, choose) {
  const box = make(
    "select",
    { "aria-label": label, change: () => choose(box.selectedIndex) },
    names.map((name, place) => make("option", { selected: place === chosen }, name)),
  );
  return box;
}

/**
 * The address of a place with some parts changed; a layer belongs to its network, a photo to its set.
 * @param {Place} place
 * @param {Partial<Place>} change
 */
function moved(place, change) {
  /** @type {Record<string, any>} */
  const next = { ...place, ...change };
  if (change.network !== undefined && change.layer === undefined) {
    const layers = site.networks[change.network].layers.length;
    const before = site.networks[place.network].layers.length;
    next.layer = Math.round((place.layer / Math.max(1, before - 1)) * (layers - 1));
  }
  if (change.set !== undefined && change.photo === undefined) delete next.photo;
  return next;
}

/**
 * A sentence with selects.
 * @param {Place} place
 * @param {(change: Partial<Place>) => void} choose
 * @param {{metric?: boolean, words?: string, more?: Child[]}} [options]
 */
function sentence(place, choose, options = {}) {
  const { metric = true, words = "Photos of", more = [] } = options;
  const network = site.networks[place.network];
  const metrics = site.metrics.map(metricName);
  return make(
    "p",
    { class: "sentence" },
    make("span", {}, words, " "),
    select("Data set", site.sets.map((each) => each.name), place.set, (set) => choose({ set })),
    make("span", {}, " as "),
    select(
      "Network",
      site.networks.map((each) => each.name),
      place.network,
      (to) => choose({ network: to }),
    ),
    make("span", {}, " sees them in layer "),
    select(
      "Layer",
      network.layers.map((each, number) => `${number + 1}/${network.layers.length} ${each.name}`),
      place.layer,
      (layer) => choose({ layer }),
    ),
    metric && make("span", {}, " by "),
    metric &&
      select("Distance", metrics, site.metrics.indexOf(place.metric), (to) =>
        choose({ metric: site.metrics[to] }),
      ),
    metric && make("span", {}, " distance"),
    more,
  );
}

/**
 * Tiles for all that can be chosen, for those who look closer.
 * @param {Place} place
 * @param {(change: Partial<Place>) => void} choose
 */
function tiles(place, choose) {
  const network = site.networks[place.network];
  /** @param {string} title @param {any[]} several */
  const row = (title, several) =>
    make("div", { class: "tile-row" }, make("h3", {}, title), make("div", { class: "tiles" }, several));
  /**
   * @param {boolean} pressed @param {() => void} click @param {...Child} content
   */
  const tile = (pressed, click, ...content) =>
    make("button", { class: "tile", "aria-pressed": String(pressed), click, type: "button" }, content);
  return make(
    "div",
    { class: "advanced" },
    row(
      "Network",
      site.networks.map((each, number) =>
        tile(
          number === place.network,
          () => choose({ network: number }),
          make("b", {}, each.name),
          make("small", {}, `${counted(each.layers.length, "layer")} of ${each.modules}`),
          make("small", {}, `${grouped(each.parameters)} parameters`),
        ),
      ),
    ),
    row(
      "Layer",
      network.layers.map((each, number) =>
        tile(
          number === place.layer,
          () => choose({ layer: number }),
          unitThumb(place.network, number),
          make("b", {}, each.name),
          make("small", {}, `${each.type}, ${counted(each.channels, "channel")}`),
          make("small", {}, `${grouped(each.parameters_so_far)} parameters so far`),
        ),
      ),
    ),
    row(
      "Distance",
      site.metrics.map((each) =>
        tile(
          each === place.metric,
          () => choose({ metric: each }),
          make("b", {}, metricName(each)),
          make("small", {}, ABOUT_METRICS[each] || ""),
        ),
      ),
    ),
  );
}

/**
 * The picture of one channel of a layer, or an empty box.
 * @param {number} network
 * @param {number} layer
 */
function unitThumb(network, layer) {
  const channel = site.networks[network].layers[layer].thumbnail;
  if (channel === null) return make("span", { class: "thumb" });
  const source = `data/networks/${network}/layers/${layer}/units/${channel}.jpg`;
  return picture(source, "", { class: "thumb" });
}

/**
 * Steps through layers with [ and ], as long as the screen is open.
 * @param {() => Place} place
 * @param {(change: Partial<Place>) => void} choose
 * @returns {() => void} ends it
 */
function layerKeys(place, choose) {
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select")) return;
    const step = event.key === "]" ? 1 : event.key === "[" ? -1 : 0;
    const next = place().layer + step;
    if (step && next >= 0 && next < site.networks[place().network].layers.length) {
      choose({ layer: next });
    }
  };
  addEventListener("keydown", press);
  return () => removeEventListener("keydown", press);
}
