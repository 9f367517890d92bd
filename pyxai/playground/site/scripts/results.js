// The photos most alike to one, with how alike they are.
"use strict";

const NEIGHBORS_PER_FILE = 100;
const COUNTED = 15;

/**
 * @typedef {{ids: number[], distances: number[], similarity: number[]}} Found
 */

/**
 * The neighbours of a photo, as they were computed when the site was built.
 * @param {Place} place
 * @returns {Promise<Found>}
 */
async function neighborsOf(place) {
  const { set, network, layer, metric, photo } = place;
  const part = Math.floor(photo / NEIGHBORS_PER_FILE);
  const base = `sets/${set}/networks/${network}/layers/${layer}`;
  const file = await playground.load(`${base}/neighbors-${metric}-${part}`);
  if (!file.numbers) file.numbers = [unpacked(file.ids), unpacked(file.distances)];
  const k = file.ids.shape[1];
  const row = (photo - file.first) * k;
  const ids = [...file.numbers[0].subarray(row, row + k)];
  const distances = [...file.numbers[1].subarray(row, row + k)];
  const scale = ["cosine", "correlation"].includes(metric) ? 1 : file.typical;
  return { ids, distances, similarity: distances.map((d) => 100 * Math.max(0, 1 - d / scale)) };
}

/**
 * How many of the nearest photos are of a class, in words.
 * @param {number} set
 * @param {number} label of the query
 * @param {number[]} ids
 * @param {Uint16Array} labels
 */
function classSummary(set, label, ids, labels) {
  if (label === NO_CLASS || label < 0) return `The ${ids.length} photos most alike.`;
  const name = className(set, label);
  /** @param {number} count */
  const same = (count) => ids.slice(0, count).filter((id) => labels[id] === label).length;
  const first = Math.min(COUNTED, ids.length);
  const whole = ids.length > first ? `, and ${same(ids.length)} of the nearest ${ids.length}` : "";
  return `Of its class, “${name}”, are ${same(first)} of the nearest ${first}${whole}.`;
}

/**
 * The list of results.
 * @param {number} set
 * @param {number} label the class of the query, or NO_CLASS
 * @param {Found} found
 * @param {Uint16Array} labels
 * @param {(id: number) => string} target the address that a click leads to
 */
function resultList(set, label, found, labels, target) {
  return make(
    "ol",
    { class: "results" },
    found.ids.map((id, rank) => {
      const own = labels[id];
      const known = label !== NO_CLASS && label >= 0 && own !== NO_CLASS;
      const kind = !known ? "" : own === label ? "same" : "other";
      const mark = { same: "✓", other: "✕", "": "" }[kind];
      const told = { same: "same class", other: "another class", "": "" }[kind];
      const similarity = found.similarity[rank];
      const link = make(
        "a",
        {
          class: "result",
          href: target(id),
          "data-photo": id,
          title: `distance ${short(found.distances[rank])}`,
        },
        picture(thumbOf(set, id), photoTitle(set, id, own), { width: 96, height: 96 }),
        bar(similarity, kind),
        make(
          "span",
          { class: "result-facts" },
          make("span", { class: "number" }, `${similarity.toFixed(1)}\u202f%`),
          mark && make("span", { class: `mark ${kind}`, role: "img", "aria-label": told }, mark),
        ),
        make("span", { class: "result-class" }, className(set, own) || "\u00a0"),
      );
      return make("li", {}, link);
    }),
  );
}
