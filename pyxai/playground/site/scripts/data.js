// Loads data files. They are scripts that call playground.receive, as pages from disk may load those.
"use strict";

/**
 * @typedef {{type: "uint8" | "uint16" | "uint32" | "float32", shape: number[], data: string}} Packed
 * @typedef {Uint8Array | Uint16Array | Uint32Array | Float32Array} Numbers
 */

const playground = (() => {
  const FILES_KEPT = 400;
  /** @type {Map<string, Promise<any>>} */
  const kept = new Map();
  /** @type {Map<string, (value: any) => void>} */
  const waiting = new Map();

  /**
   * The content of a file below data/; the files used last are kept.
   * @param {string} address without ".js"
   * @returns {Promise<any>}
   */
  function load(address) {
    const known = kept.get(address);
    if (known) {
      kept.delete(address);
      kept.set(address, known);
      return known;
    }
    /** @type {Promise<any>} */
    const promise = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      waiting.set(address, resolve);
      /** @param {string} why */
      const fail = (why) => {
        waiting.delete(address);
        kept.delete(address);
        reject(new Error(`data/${address}.js ${why}`));
      };
      script.onload = () => {
        script.remove();
        if (waiting.has(address)) fail("is damaged");
      };
      script.onerror = () => {
        script.remove();
        fail("is missing");
      };
      script.src = `data/${address}.js`;
      document.head.append(script);
    });
    kept.set(address, promise);
    if (kept.size > FILES_KEPT) {
      const [oldest] = kept.keys();
      if (oldest !== undefined) kept.delete(oldest);
    }
    return promise;
  }

  /**
   * What every data file calls.
   * @param {string} address
   * @param {any} value
   */
  function receive(address, value) {
    const resolve = waiting.get(address);
    waiting.delete(address);
    if (resolve) resolve(value);
  }

  return Object.freeze({ load, receive });
})();

/**
 * The numbers of an array.
 * @param {Packed} packed
 * @returns {Numbers}
 */
function unpacked(packed) {
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const kinds = {
    uint8: Uint8Array,
    uint16: Uint16Array,
    uint32: Uint32Array,
    float32: Float32Array,
  };
  const found = new kinds[packed.type](bytes.buffer);
  const expected = packed.shape.reduce((product, length) => product * length, 1);
  if (found.length !== expected) throw new Error("a data file is damaged");
  return found;
}
