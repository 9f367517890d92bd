// What this site is, for readers who have never seen a network from inside.
"use strict";
{
    const { element, count, plural } = playground;

    /** @type {[string, string][]} */
    const QUESTIONS = [
        [
            "What is this?",
            "An image classifier is a network of layers. Each layer turns a photo into numbers, its features: first for edges and colours, later for parts and kinds of things. Photos with similar features are alike to the network. Here you see which photos these are, layer by layer, and what single channels of a layer respond to.",
        ],
        [
            "What can I ask it?",
            "Does the network find the same things alike as you do? At which layer do classes come apart? Which photos of a class end up among another? Does it look at the thing itself, or at what usually surrounds it? Which layer would serve best for a search of your own?",
        ],
        [
            "What do the layers mean?",
            "An early layer sees small parts of a photo and goes by colour and texture; a late one sees all of it and goes by kind. The features of a layer are pooled over the positions of the photo, by their average unless the site was built otherwise, so that where something stands plays little part.",
        ],
        [
            "What are the distances?",
            "Cosine compares the directions of two lists of features and not their lengths, correlation does so after taking off the mean. Euclidean is the straight line between them; its square (sqeuclidean) gives the same order. Manhattan adds up all differences, chebyshev takes the largest, minkowski lies between (with the power that the site was built with).",
        ],
        [
            "What does the per cent under a photo say?",
            "How small the distance is: 100 % at no distance at all; 0 % at right angles for cosine and correlation, at the typical distance between two photos of the set for the others. It orders photos of one search; it is no probability, and per cents of different layers or distances cannot be compared.",
        ],
        [
            "What do blue ticks and orange crosses say?",
            "Whether a photo found has the class of the photo searched by. That is a strict judge: a photo may be like another in ways that classes do not know.",
        ],
        [
            "How are the maps to be read?",
            "Photos that are near each other are alike to the layer. PCA keeps the two directions in which photos differ most, so distances have a meaning, though much is left out. UMAP keeps neighbours together; distances between far groups, and their sizes, mean nothing.",
        ],
        [
            "What are the pictures of channels?",
            "Each began as noise and was changed step by step so that its channel responds as strongly as possible. It shows what the channel can respond to, not all that it responds to; the parts of real photos beside it show what it does respond to. A silent channel never responded.",
        ],
        [
            "What speaks for a class?",
            "Class activation maps show where in a photo the network finds the evidence for a class. Windows show how its answer changes as a small window moves over the photo. Undesirable pixels speak for a class although they do not belong to the thing. Maps explain the network and not the world; methods differ, so look at more than one.",
        ],
        [
            "Does this run while I look?",
            "No: everything was computed beforehand and the site is only files. The one exception is “Your photo”, which is there when the site is served for it. The site asks no other server for anything, sets no cookies and counts nobody.",
        ],
        [
            "What are the limits?",
            "The networks know what they were trained on. Photos of other kinds are described by features made for other things. A good search here says little about fine differences within a class.",
        ],
    ];

    playground.screens.about = playground.page(async () => {
        const { site } = playground;
        return {
            title: "About",
            content: [
                playground.heading("About this site"),
                element(
                    "div",
                    { class: "questions" },
                    ...QUESTIONS.flatMap(([question, answer]) => [
                        element("h2", {}, question),
                        element("p", {}, answer),
                    ]),
                ),
                element("h2", {}, "What is in it?"),
                playground.table(
                    ["Data set", "#Photos", "#Classes", "#Explained", "#Unreadable"],
                    site.sets.map(({ name, photos, classes, explained, unreadable }) => [
                        name,
                        count(photos),
                        count(classes.length),
                        count(explained),
                        count(unreadable),
                    ]),
                    "Data sets",
                ),
                playground.table(
                    ["Model", "#Parameters", "#Layers", "#Searched", "#Classes"],
                    site.networks.map(({ name, parameters, modules, layers, classes }) => [
                        name,
                        count(parameters),
                        count(modules),
                        count(layers.length),
                        count(classes),
                    ]),
                    "Models",
                ),
                element(
                    "p",
                    {},
                    `Made on ${site.made} with pyxai ${site.pyxai}; the ${plural(site.k, "nearest photo", "nearest photos")} of each photo, found beforehand.`,
                ),
                element(
                    "p",
                    {},
                    element("button", { type: "button", onclick: playground.help }, "Keys"),
                ),
            ],
        };
    });
}
