// Elements of a page. Everything is made node by node and every text is a text node, so that no
// name from a data file can become markup.
"use strict";
{
    /** @param {Child[]} children @returns {(Node | string)[]} */
    const nodes = (children) => {
        const kept = [];
        for (const child of children) {
            if (child === null || child === undefined || child === false) continue;
            kept.push(child instanceof Node ? child : String(child));
        }
        return kept;
    };

    playground.element = (tag, properties, ...children) => {
        const made = document.createElement(tag);
        for (const [name, value] of Object.entries(properties ?? {})) {
            if (value === null || value === undefined || value === false) continue;
            if (name.startsWith("on") && typeof value === "function") {
                made.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
            } else if (name === "class") made.className = String(value);
            else made.setAttribute(name, value === true ? "" : String(value));
        }
        made.append(...nodes(children));
        return made;
    };

    playground.drawing = (tag, attributes, ...children) => {
        const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [name, value] of Object.entries(attributes))
            made.setAttribute(name, String(value));
        made.append(...nodes(children));
        return made;
    };

    playground.replace = (parent, ...children) => parent.replaceChildren(...nodes(children));

    playground.picture = (source, alt, properties) => {
        const made = playground.element("img", {
            alt,
            loading: "lazy",
            decoding: "async",
            draggable: "false",
            ...properties,
        });
        made.addEventListener("error", () => made.classList.add("missing"));
        made.addEventListener("load", () => made.classList.remove("missing"));
        made.src = source;
        return made;
    };

    playground.announce = (text) => {
        const place = document.getElementById("announcements");
        if (place && place.textContent !== text) place.textContent = text;
    };

    const whole = new Intl.NumberFormat("en");
    playground.count = (number) => whole.format(number);

    // 25.6 M, 9,408: parameters.
    playground.amount = (number) =>
        number >= 1e6
            ? `${(number / 1e6).toFixed(number >= 1e8 ? 0 : 1)} M`
            : number >= 1e5
              ? `${Math.round(number / 1e3)} k`
              : whole.format(number);

    playground.short = (number) =>
        number === 0
            ? "0"
            : Math.abs(number) >= 1000
              ? whole.format(Math.round(number))
              : String(+number.toPrecision(3));

    playground.percent = (share) => {
        const value = share * 100;
        return `${value > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} %`;
    };

    playground.plural = (number, one, many) =>
        `${whole.format(number)} ${number === 1 ? one : many}`;

    playground.facts = (rows) => {
        const list = playground.element("dl", { class: "facts" });
        for (const [name, value] of rows) {
            list.append(
                playground.element(
                    "div",
                    {},
                    playground.element("dt", {}, name),
                    playground.element("dd", {}, value),
                ),
            );
        }
        return list;
    };

    playground.bar = (share, kind) => {
        const fill = playground.element("span", { class: kind ? `fill ${kind}` : "fill" });
        fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
        return playground.element("span", { class: "bar", "aria-hidden": "true" }, fill);
    };
}
