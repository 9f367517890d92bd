// Every state of the site is an address: #/screen?name=value&…
"use strict";

/**
 * @typedef {Record<string, string>} Params
 * @typedef {{update: (params: Params) => void, close?: () => void}} Opened
 * @typedef {{title: string, open: (main: HTMLElement) => Opened, within?: string}} PageScreen
 */

/** A link leads to something that this site does not have. */
class BadLink extends Error {}

/**
 * @returns {{screen: string, params: Params}}
 */
function readAddress() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { screen: path || "search", params: Object.fromEntries(new URLSearchParams(query || "")) };
}

/**
 * The address of a state; parts that are null are left out.
 * @param {string} screen
 * @param {Record<string, string | number | null | undefined>} params
 */
function addressOf(screen, params) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined) query.set(name, String(value));
  }
  const text = query.toString();
  return `#/${screen}${text ? `?${text}` : ""}`;
}

/**
 * Goes to a state. What changes often, such as a slider, does not fill the history.
 * @param {string} screen
 * @param {Record<string, string | number | null | undefined>} params
 * @param {boolean} [replace]
 */
function go(screen, params, replace = false) {
  const address = addressOf(screen, params);
  if (replace) {
    history.replaceState(null, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = address;
  }
}

/**
 * A number of an address.
 * @param {Params} params
 * @param {string} name
 * @param {number} count it is below
 * @param {number | null} missing what to take if there is none
 * @returns {any}
 */
function numberOf(params, name, count, missing) {
  const text = params[name];
  if (text === undefined) return missing;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value >= count) {
    throw new BadLink(`there is no ${name} ${text} here`);
  }
  return value;
}

/**
 * A word of an address.
 * @param {Params} params
 * @param {string} name
 * @param {readonly string[]} known
 * @param {string} missing
 */
function wordOf(params, name, known, missing) {
  const text = params[name];
  if (text === undefined) return missing;
  if (!known.includes(text)) throw new BadLink(`there is no ${name} “${text}” here`);
  return text;
}
