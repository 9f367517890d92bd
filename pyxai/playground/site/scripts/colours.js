// Colours that people with any colour vision tell apart: classes from Okabe and Ito (2008), numbers
// by scales whose lightness rises evenly.
"use strict";
{
    // Their black would be lost on a dark page and their yellow on a light one: last, and by the page.
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    playground.colours = [
        "#0072b2",
        "#e69f00",
        "#009e73",
        "#cc79a7",
        "#56b4e9",
        "#d55e00",
        dark ? "#f4f4f2" : "#1b1d20",
        dark ? "#f0e442" : "#d2c01c",
    ];
    playground.others = "#9aa0a6";

    playground.rgb = (colour) => {
        const number = parseInt(colour.slice(1), 16);
        return [number >> 16, (number >> 8) & 255, number & 255];
    };

    // Anchors at even steps of lightness (Oklab L 0.20 to 0.95): dark violet, blue, teal, green, yellow.
    const RISING = ["#1b0b3b", "#3a2a7d", "#2f6090", "#1f9384", "#66c05a", "#f3e84b"];
    // Through a light middle at zero: blue speaks against, orange for.
    const DIVERGING = ["#08306b", "#2f74b8", "#a6cbe6", "#f4f2ee", "#f2b577", "#cf6a12", "#6f2f02"];

    /** @param {string[]} anchors @param {number} at 0 to 1 @returns {[number, number, number]} */
    function between(anchors, at) {
        const place = Math.max(0, Math.min(1, at)) * (anchors.length - 1);
        const left = Math.min(Math.floor(place), anchors.length - 2);
        const from = playground.rgb(anchors[left]);
        const to = playground.rgb(anchors[left + 1]);
        const mixed = from.map((value, i) => value + (to[i] - value) * (place - left));
        return [mixed[0], mixed[1], mixed[2]];
    }

    playground.scale = (low, high) => {
        if (low < 0 && high > 0) {
            const far = Math.max(-low, high);
            return (byte) => {
                const value = low + ((high - low) * byte) / 255;
                return between(DIVERGING, 0.5 + value / far / 2);
            };
        }
        return (byte) => between(RISING, byte / 255);
    };
}
