// Makes elements. Text is only ever text: nothing here parses markup.
"use strict";

/**
 * @typedef {Node | string | null | undefined | false} Child
 */

/**
 * An element with attributes and children.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] functions are listeners; true is an empty attribute;
 *   null and false leave one out
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

/**
 * Puts children in the place of others.
 * @param {Element} node
 * @param {...(Child | Child[])} children
 */
function fill(node, ...children) {
  node.replaceChildren(
    .../** @type {(Node | string)[]} */ (
      children.flat().filter((child) => child !== null && child !== undefined && child !== false)
    ),
  );
}

/**
 * A picture in a box that keeps its place while it loads.
 * @param {string} source
 * @param {string} alt
 * @param {Record<string, any>} [attributes]
 */
function picture(source, alt, attributes = {}) {
  return make("img", { src: source, alt, loading: "lazy", decoding: "async", ...attributes });
}

/**
 * A bar of a length in per cent.
 * @param {number} percent
 * @param {string} [kind] a class
 */
function bar(percent, kind = "") {
  const inner = make("span", { class: "bar-inner" });
  inner.style.width = `${Math.max(0, Math.min(100, percent))}%`;
  return make("span", { class: `bar ${kind}`, "aria-hidden": "true" }, inner);
}

/**
 * Says that something could not be had.
 * @param {unknown} error
 */
function failure(error) {
  const text = error instanceof Error ? error.message : String(error);
  return make("p", { class: "error", role: "alert" }, `This cannot be shown: ${text}.`);
}

/** @param {number} count */
function grouped(count) {
  return count.toLocaleString("en").replaceAll(",", "\u202f");
}

/** @param {number} share */
function percent(share) {
  return `${(100 * share).toFixed(1)}\u202f%`;
}

/**
 * A distance or activation with four digits.
 * @param {number} value
 */
function short(value) {
  return String(Number(value.toPrecision(4)));
}

/**
 * "1 photo", "2 photos".
 * @param {number} count
 * @param {string} noun
 */
function counted(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}
