// What there is on this site: data sets, photos, networks and their layers.
"use strict";

/**
 * @typedef {{photo: number, network: number, layer: number, metric: string}} Start
 * @typedef {{name: string, photos: number, classes: string[], sizes: number[], unreadable: number,
 *   maps: string[], explained: number, retrieval: boolean, galleries: boolean, start: Start}} PhotoSet
 * @typedef {{name: string, type: string, index: number, channels: number, positions: [number, number],
 *   width: number, parameters: number, parameters_so_far: number, units: number,
 *   thumbnail: number | null}} Layer
 * @typedef {{name: string, parameters: number, classes: number, modules: number,
 *   layers: Layer[]}} Network
 * @typedef {{format: number, title: string, made: string, pyxai: string, k: number, metrics: string[],
 *   measures: string[], sets: PhotoSet[], networks: Network[]}} Site
 * @typedef {{available: boolean, max_bytes?: number, sets?: number[], networks?: number[]}} Live
 * @typedef {{set: number, network: number, layer: number, metric: string, photo: number}} Place
 * @typedef {{name: string, label: number, size: [number, number]}} Photo
 */

const NO_CLASS = 65535;
const PHOTOS_PER_FILE = 1000;

/** @type {Site} */
let site;
/** @type {Live} */
let live = { available: false };

/** Loads what every screen needs. */
async function loadSite() {
  site = await playground.load("site");
  if (site.format !== 1) throw new Error("it was made for other pages than these");
  live = await playground.load("live").catch(() => ({ available: false }));
}

/**
 * The state of an address, with what is good to see where it says nothing.
 * @param {Params} params
 * @returns {Place}
 */
function placeOf(params) {
  const set = numberOf(params, "set", site.sets.length, 0);
  const start = site.sets[set].start;
  const network = numberOf(params, "network", site.networks.length, start.network);
  const layers = site.networks[network].layers.length;
  const usual = network === start.network ? start.layer : layers - 1;
  return {
    set,
    network,
    layer: numberOf(params, "layer", layers, usual),
    metric: wordOf(params, "metric", site.metrics, start.metric),
    photo: numberOf(params, "photo", site.sets[set].photos, start.photo),
  };
}

/**
 * @param {number} set
 * @param {number} id
 */
function thumbOf(set, id) {
  return `data/sets/${set}/thumbs/${Math.floor(id / PHOTOS_PER_FILE)}/${id}.jpg`;
}

/**
 * @param {number} set
 * @param {number} id
 */
function photoOf(set, id) {
  return `data/sets/${set}/photos/${Math.floor(id / PHOTOS_PER_FILE)}/${id}.jpg`;
}

/**
 * The class of every photo of a set.
 * @param {number} set
 * @returns {Promise<Uint16Array>}
 */
async function labelsOf(set) {
  const found = await playground.load(`sets/${set}/labels`);
  if (!found.numbers) found.numbers = unpacked(found.labels);
  return found.numbers;
}

/**
 * Name, class and size of a photo.
 * @param {number} set
 * @param {number} id
 * @returns {Promise<Photo>}
 */
async function aboutPhoto(set, id) {
  const part = Math.floor(id / PHOTOS_PER_FILE);
  const found = await playground.load(`sets/${set}/photos-${part}`);
  const row = id - found.first;
  return { name: found.names[row], label: found.labels[row], size: found.sizes[row] };
}

/**
 * @param {number} set
 * @param {number} label
 */
function className(set, label) {
  return label < 0 || label === NO_CLASS ? "" : site.sets[set].classes[label];
}

/**
 * What to call a photo where its name is not at hand.
 * @param {number} set
 * @param {number} id
 * @param {number} label
 */
function photoTitle(set, id, label) {
  const name = className(set, label);
  return name ? `${name}, photo ${id}` : `photo ${id}`;
}

/**
 * The names of the classes of a network.
 * @param {number} network
 * @returns {Promise<string[]>}
 */
async function classesOf(network) {
  return (await playground.load(`networks/${network}/names`)).names;
}

/** @type {Record<string, string>} */
const ABOUT_METRICS = {
  cosine: "the angle between features; their length does not count",
  euclidean: "the usual distance",
  sqeuclidean: "the square of the usual distance, which ranks the same",
  minkowski: "of order 3: large differences count more than in the usual distance",
  manhattan: "the sum of all differences",
  chebyshev: "the largest difference alone",
  correlation: "the angle once each photo’s mean feature is taken off",
};

/** @type {Record<string, string>} */
const METRIC_NAMES = {
  sqeuclidean: "squared Euclidean",
  euclidean: "Euclidean",
  minkowski: "Minkowski (3)",
  manhattan: "Manhattan",
  chebyshev: "Chebyshev",
};

/** @param {string} metric */
function metricName(metric) {
  return METRIC_NAMES[metric] || metric;
}

// Blue, orange, green, … of Okabe and Ito and their kin: told apart without colour vision.
const COLORS = [
  "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c7a00", "#6a4c93",
];
const GREY = "#8a9099";
