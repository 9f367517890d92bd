// The photos found: a steady grid whose tiles stay where they are and only change what they show.
"use strict";
{
    playground.results = () => {
        const { element, picture, bar, replace } = playground;
        const list = element("ol", {
            class: "results",
            "aria-label": "Photos found, the most alike first",
        });

        return {
            element: list,
            show(set, tiles, labels, label, address) {
                while (list.children.length > tiles.length) list.lastElementChild?.remove();
                tiles.forEach(({ id, similarity, distance }, rank) => {
                    const own = labels[id];
                    const judged =
                        label !== playground.NO_CLASS && label >= 0 && own !== playground.NO_CLASS;
                    const right = judged && own === label;
                    const kind = judged ? (right ? "right" : "wrong") : "";
                    const text = playground.describe(set, id, own);
                    const name = playground.className(set, own);
                    let item = list.children[rank];
                    if (!item) {
                        item = element("li", {});
                        list.append(item);
                    }
                    const old = item.querySelector("img");
                    const source = playground.thumb(set, id);
                    const image =
                        old && old.getAttribute("src") === source ? old : picture(source, "");
                    image.alt = text;
                    const mark = judged
                        ? element(
                              "span",
                              {
                                  class: `mark ${kind}`,
                                  title: right ? "the same class" : "another class",
                              },
                              right ? "✓" : "×",
                          )
                        : null;
                    const judgement = judged
                        ? element(
                              "span",
                              { class: "unseen" },
                              right ? "same class, " : "another class, ",
                          )
                        : null;
                    replace(
                        item,
                        element(
                            "a",
                            {
                                class: "tile",
                                href: address(id),
                                title: `${rank + 1}. ${text}\ndistance ${playground.short(distance)}`,
                            },
                            element("span", { class: "frame" }, image),
                            bar(similarity / 100, kind),
                            element(
                                "span",
                                { class: "caption" },
                                mark,
                                judgement,
                                element("span", { class: "name" }, name),
                                element("span", { class: "number" }, `${Math.round(similarity)} %`),
                            ),
                        ),
                    );
                });
            },
        };
    };
}
