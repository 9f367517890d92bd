// About: what all this is, for those who come here first.
"use strict";

/** @type {[string, string][]} */
const QUESTIONS = [
  [
    "What does a network make of a photo?",
    "Layer by layer it turns pixels into features: numbers that say how much of something is where. " +
      "First layers respond to edges and colours, later ones to textures and parts, the last ones to " +
      "what tells its classes apart. The screen Layers shows what excites their channels.",
  ],
  [
    "When are two photos alike?",
    "When their features in a layer are: here the mean of each channel over the photo, compared by a " +
      "distance. Early layers find photos of the same colours alike, late ones photos of the same kind. " +
      "Step through the layers of one photo to see it.",
  ],
  [
    "What does a per cent of similarity mean?",
    "For cosine and correlation it is the cosine of the angle between the features. For other distances it is " +
      "one minus the distance as a share of that of two photos taken at random: at 0 % a photo is no more " +
      "alike than any. Per cents of different layers are not comparable.",
  ],
  [
    "Which layer should one search with?",
    "Compare says how well each finds photos of the same class, with the uncertainty of that. The last " +
      "layer is often the best where the classes resemble those of the training, and often not elsewhere.",
  ],
  [
    "What do the maps over a photo show?",
    "Class activation maps say where features speak for a class. Sliding windows say how probable the class " +
      "is when only a piece is seen. Undesirable pixels are those whose blurring makes the class more " +
      "probable. They need not agree; none of them proves why the network decided as it did.",
  ],
  [
    "May I believe the pictures of channels?",
    "They show what excites a channel most, which is seldom what it sees in photos. Compare with the pieces " +
      "of real photos beside them.",
  ],
  [
    "Does this run while I look?",
    "No. All was computed when the site was built, and nothing is sent anywhere. Only the screen Try, where " +
      "there is one, asks the computer that serves this page.",
  ],
];

const KEYS = [
  ["[ and ]", "the layer before and after"],
  ["arrow keys", "in the grid of photos, the next photo; on the map, move it"],
  ["+ − 0", "on the map: nearer, farther, all of it"],
  ["Tab", "everything else"],
];

/** @type {PageScreen} */
const aboutScreen = {
  title: "About",
  open(main) {
    const sets = site.sets.map(
      (set) =>
        `${set.name}: ${counted(set.photos, "photo")}` +
        (set.unreadable ? ` (${grouped(set.unreadable)} more could not be read)` : ""),
    );
    const networks = site.networks.map(
      (network) => `${network.name}: ${grouped(network.parameters)} parameters, ${grouped(network.classes)} classes`,
    );
    fill(
      main,
      make("h1", {}, site.title),
      make("p", { class: "lead" }, "Explore what image classifiers see in photos."),
      QUESTIONS.map(([question, answer]) =>
        make("section", { class: "question" }, make("h2", {}, question), make("p", {}, answer)),
      ),
      make("h2", {}, "What there is"),
      make("ul", {}, [...sets, ...networks].map((text) => make("li", {}, text))),
      make("h2", {}, "Keys"),
      make("dl", { class: "keys" }, KEYS.map(([key, what]) => make("div", {}, make("dt", {}, key), make("dd", {}, what)))),
      make("p", { class: "quiet" }, `Made on ${site.made} by pyxai ${site.pyxai}. In the manner of ConvNet Playground.`),
    );
    return { update() {} };
  },
};
