// Compare: which layer of which network finds photos of the same class best.
"use strict";

/** @type {Record<string, string>} */
const ABOUT_MEASURES = {
  "P@1": "how often the nearest photo is of the same class",
  "P@10": "the share of the same class among the 10 nearest",
  "P@50": "the share of the same class among the 50 nearest",
  mAP: "mean average precision over the whole ranking",
  "R-precision": "the share of the same class among the nearest R, where R photos are of it",
  "nDCG@50": "as P@50, but earlier places count more",
  score: "ConvNet Playground’s: the first 15 places, earlier ones count more",
};

/** @type {PageScreen} */
const compareScreen = {
  title: "Compare",
  open(main) {
    let turn = 0;

    /** @param {Params} params */
    async function show(params) {
      const mine = ++turn;
      const place = placeOf(params);
      const measure = wordOf(params, "measure", site.measures, "mAP");
      const set = site.sets[place.set];
      /** @param {Record<string, any>} change */
      const choose = (change) => go("compare", { set: place.set, metric: place.metric, measure, ...change });
      const head = [
        make("p", { class: "lead" }, "Which layer finds photos of the same class best?"),
        make(
          "p",
          { class: "sentence" },
          "Photos of ",
          select("Data set", site.sets.map((each) => each.name), place.set, (to) => choose({ set: to })),
          " by ",
          select("Distance", site.metrics.map(metricName), site.metrics.indexOf(place.metric), (to) =>
            choose({ metric: site.metrics[to] }),
          ),
          " distance, judged by ",
          select("Measure", site.measures, site.measures.indexOf(measure), (to) =>
            choose({ measure: site.measures[to] }),
          ),
        ),
        make("p", { class: "quiet" }, `${measure}: ${ABOUT_MEASURES[measure] || ""}.`),
      ];
      if (!set.retrieval) {
        fill(main, head, make("p", {}, "No class of this data set has two photos, so there is nothing to compare."));
        return;
      }
      const found = await playground.load(`sets/${place.set}/retrieval`);
      if (mine !== turn) return;
      const at = site.measures.indexOf(measure);
      /** @type {any[]} */
      const rows = found.rows.filter((/** @type {any} */ row) => row.metric === place.metric);
      const whole = rows.filter((row) => row.class === null);
      const best = whole.reduce((a, b) => (b.measures[at][0] > a.measures[at][0] ? b : a));
      const name = site.networks[best.network].layers[best.layer].name;
      fill(
        main,
        head,
        make(
          "p",
          { class: "summary" },
          "Best: ",
          make("b", {}, `${site.networks[best.network].name} ${name}`),
          ` with ${percent(best.measures[at][0])}. `,
          `By chance ${percent(found.chance)} of the photos are of the same class.`,
        ),
        make(
          "div",
          { class: "charts" },
          site.networks.map((network, number) =>
            chart(
              place,
              number,
              whole.filter((row) => row.network === number),
              at,
              best,
              measure.startsWith("P@") || measure === "mAP" ? found.chance : null,
            ),
          ),
        ),
        classTable(place, rows, best, at),
        make(
          "p",
          { class: "quiet" },
          `${counted(found.queries, "photo")} searched all others. Lines are ${Math.round(100 * found.confidence)} % intervals: how far other photos of the same kind would move the mean. A click on a bar searches by that layer.`,
        ),
      );
    }
    return {
      update: (params) => {
        show(params).catch((error) => fill(main, failure(error)));
      },
      close: () => {
        turn++;
      },
    };
  },
};

/**
 * A bar for each layer of a network, with its interval and the level of chance.
 * @param {Place} place @param {number} number of the network @param {any[]} rows @param {number} at
 * @param {any} best @param {number | null} chance
 */
function chart(place, number, rows, at, best, chance) {
  const network = site.networks[number];
  return make(
    "section",
    { class: "chart" },
    make("h2", {}, network.name),
    make(
      "ol",
      { class: "bars" },
      rows.map((row) => {
        const [value, low, high] = row.measures[at];
        const layer = network.layers[row.layer];
        const interval = low === null ? "" : ` (${percent(low)} to ${percent(high)})`;
        const track = make("span", { class: "track", "aria-hidden": "true" });
        const inner = make("span", { class: `track-bar ${row === best ? "best" : ""}` });
        inner.style.width = `${100 * value}%`;
        track.append(inner);
        if (low !== null) {
          const whisker = make("span", { class: "whisker" });
          whisker.style.left = `${100 * low}%`;
          whisker.style.width = `${100 * (high - low)}%`;
          track.append(whisker);
        }
        if (chance !== null) {
          const line = make("span", { class: "chance", title: "by chance" });
          line.style.left = `${100 * chance}%`;
          track.append(line);
        }
        return make(
          "li",
          {},
          make(
            "a",
            {
              class: "bar-row",
              title: `${percent(value)}${interval}`,
              href: addressOf("search", { set: place.set, network: number, layer: row.layer, metric: place.metric }),
            },
            make("span", { class: "bar-name" }, layer.name),
            track,
            make("span", { class: "number" }, percent(value), row === best && " best"),
          ),
        );
      }),
    ),
  );
}

/** @param {Place} place @param {any[]} rows @param {any} best @param {number} at */
function classTable(place, rows, best, at) {
  const set = site.sets[place.set];
  const mine = rows.filter(
    (row) => row.class !== null && row.network === best.network && row.layer === best.layer,
  );
  if (mine.length < 2) return null;
  mine.sort((a, b) => b.measures[at][0] - a.measures[at][0]);
  return make(
    "section",
    {},
    make("h2", {}, "The best layer, class by class"),
    make(
      "div",
      { class: "scroll" },
      make(
        "table",
        {},
        make("thead", {}, make("tr", {}, ["class", "photos", "", "interval"].map((each) => make("th", { scope: "col" }, each)))),
        make(
          "tbody",
          {},
          mine.map((row) => {
            const [value, low, high] = row.measures[at];
            return make(
              "tr",
              {},
              make("td", {}, set.classes[row.class]),
              make("td", { class: "number" }, grouped(row.queries)),
              make("td", { class: "number" }, percent(value)),
              make("td", { class: "number" }, low === null ? "" : `${percent(low)} to ${percent(high)}`),
            );
          }),
        ),
      ),
    ),
  );
}
