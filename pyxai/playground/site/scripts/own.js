// A photo of the reader's own, answered by the server this page came from. Nothing is sent before
// the reader chose a photo, and nowhere else.
"use strict";
{
    const { element, link, replace, picture } = playground;

    playground.screens.own = (root) => {
        const { live } = playground;
        if (!live.available)
            throw new RangeError(
                "Photos of your own need a server: start the site with “pyxai playground serve --live”.",
            );
        /** @type {Choice} */
        let choice;
        /** @type {File | null} */
        let file = null;
        let source = "";
        /** @type {AbortController | null} */
        let asked = null;

        const input = element("input", { type: "file", accept: "image/*", id: "own-file" });
        const zone = element(
            "label",
            { class: "drop", for: "own-file" },
            element("strong", {}, "Choose a photo"),
            element(
                "span",
                { class: "muted" },
                "or drop it here, or paste one. It is sent to the server of this page and not kept.",
            ),
            input,
        );
        const state = element("p", { class: "notice", hidden: true });
        const answerBox = element("div", { class: "own-answer", hidden: true });
        const reasons = element("div", { class: "own-answer" });
        const results = playground.results();
        const sentence = playground.sentence(
            (part) => {
                const next =
                    part.network === undefined
                        ? { ...choice, ...part }
                        : playground.step(choice, "network", part.network - choice.network);
                playground.go("own", {
                    set: next.set,
                    network: next.network,
                    layer: next.layer,
                    metric: next.metric,
                });
            },
            ["set", "network", "layer", "metric"],
        );
        replace(
            root,
            playground.heading("What is like your photo?"),
            sentence.element,
            zone,
            state,
            answerBox,
            results.element,
            reasons,
        );

        /** @param {string} text @param {boolean} bad */
        function tell(text, bad) {
            state.hidden = !text;
            state.textContent = text;
            state.classList.toggle("error", bad);
            state.setAttribute("role", bad ? "alert" : "status");
        }

        /** @param {File | null | undefined} chosen */
        function take(chosen) {
            if (!chosen) return;
            if (source) URL.revokeObjectURL(source);
            file = chosen;
            source = URL.createObjectURL(chosen);
            void ask();
        }

        async function ask() {
            if (!file) return;
            asked?.abort();
            const mine = new AbortController();
            asked = mine;
            if (live.max_bytes && file.size > live.max_bytes) {
                tell(
                    `This file has ${playground.short(file.size / 1e6)} MB; the server takes ${playground.short(live.max_bytes / 1e6)} MB at most.`,
                    true,
                );
                return;
            }
            tell("Looking for photos like yours…", false);
            const { set, network, layer, metric } = choice;
            try {
                const query = new URLSearchParams({
                    set: String(set),
                    network: String(network),
                    layer: String(layer),
                    metric,
                    k: String(playground.site.k),
                    data: playground.folder,
                });
                const response = await fetch(`api/search?${query}`, {
                    method: "POST",
                    headers: { "Content-Type": "application/octet-stream" },
                    body: file,
                    signal: mine.signal,
                });
                const answer = await response.json().catch(() => ({
                    error: `The server answered with status ${response.status}.`,
                }));
                if (!response.ok)
                    throw new Error(
                        answer.error ?? `The server answered with status ${response.status}.`,
                    );
                await showAnswer(answer);
                tell("", false);
            } catch (error) {
                if (mine.signal.aborted) return;
                const text =
                    error instanceof TypeError
                        ? "The server does not answer. Is it still running?"
                        : error instanceof Error
                          ? error.message
                          : String(error);
                tell(text, true);
                answerBox.hidden = true;
                replace(reasons);
                results.show(set, [], new Uint16Array(), -1, () => "");
            }
        }

        /** @param {LiveAnswer} answer */
        async function showAnswer(answer) {
            const { set, network } = choice;
            const [labels, { names }] = await Promise.all([
                playground.labels(set),
                /** @type {Promise<{ names: string[] }>} */ (
                    playground.load(`networks/${network}/names`)
                ),
            ]);
            const tiles = answer.ids.map((id, i) => ({
                id,
                similarity: answer.similarity[i],
                distance: answer.distances[i],
            }));
            results.show(set, tiles, labels, -1, (photo) => link("search", { ...choice, photo }));
            answerBox.hidden = false;
            replace(
                answerBox,
                element(
                    "div",
                    { class: "query" },
                    element(
                        "div",
                        { class: "query-picture frame" },
                        picture(source, "Your photo", { loading: "eager" }),
                    ),
                    element(
                        "div",
                        { class: "query-text own-top" },
                        element("h2", {}, `${playground.site.networks[network].name} says`),
                        playground.topClasses(answer.top, names),
                        element(
                            "p",
                            { class: "muted small" },
                            `${answer.size[0]} × ${answer.size[1]} pixels, answered in ${playground.short(answer.seconds)} s`,
                        ),
                    ),
                ),
                element("h2", {}, `The ${tiles.length} most like it`),
            );
            replace(
                reasons,
                answer.maps.length > 0 && element("h2", {}, "What speaks for it"),
                answer.maps.length > 0 &&
                    playground.explanation(
                        source,
                        "Your photo",
                        answer.size,
                        answer.maps,
                        names,
                        0,
                        () => undefined,
                    ),
            );
            playground.announce(`${tiles.length} photos like yours`);
        }

        input.addEventListener("change", () => take(input.files?.[0]));
        zone.addEventListener("dragover", (event) => {
            event.preventDefault();
            zone.classList.add("over");
        });
        zone.addEventListener("dragleave", () => zone.classList.remove("over"));
        zone.addEventListener("drop", (event) => {
            event.preventDefault();
            zone.classList.remove("over");
            take(event.dataTransfer?.files[0]);
        });
        /** @param {ClipboardEvent} event */
        const paste = (event) => take(event.clipboardData?.files[0]);
        document.addEventListener("paste", paste);

        return {
            update(settings) {
                const { sets = [], networks = [] } = live;
                const next = playground.choice({
                    set: String(sets[0] ?? 0),
                    network: String(networks[0] ?? 0),
                    ...settings,
                });
                if (!sets.includes(next.set) || !networks.includes(next.network)) {
                    const site = playground.site;
                    throw new RangeError(
                        `The server answers for ${sets.map((s) => site.sets[s].name).join(", ")} by ${networks.map((m) => site.networks[m].name).join(", ")} only.`,
                    );
                }
                const changed = choice && JSON.stringify(next) !== JSON.stringify(choice);
                choice = next;
                sentence.show(choice);
                if (changed) void ask();
                return "Your photo";
            },
            close() {
                asked?.abort();
                document.removeEventListener("paste", paste);
                if (source) URL.revokeObjectURL(source);
            },
        };
    };
}
