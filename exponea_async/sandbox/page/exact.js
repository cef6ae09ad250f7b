/**
 * JSON whose numbers keep the digits they were sent with: 1.0 stays 1.0, and integers above 2^53 are not rounded.
 */

/** A number that JavaScript would write differently. */
export class ExactNumber {
  /**
   * @param {string} source As it stands in the JSON text.
   * @param {number} value The nearest number of JavaScript.
   */
  constructor(source, value) {
    this.source = source;
    this.value = value;
  }

  toString() {
    return this.source;
  }
}

/**
 * Parse JSON. Numbers within what a user sent may become an `ExactNumber`; all others stay plain.
 * @param {string} text
 */
export function parseExact(text) {
  const parsed = JSON.parse(text);
  // Without source text access, which older browsers lack, the numbers are those of JavaScript.
  if (!hasSources) return parsed;
  return merge(parsed, JSON.parse(text, revive));
}

const hasSources = (() => {
  let has = false;
  JSON.parse("1", (_key, value, context) => {
    has = context?.source === "1";
    return value;
  });
  return has;
})();

function revive(_key, value, context) {
  if (typeof value !== "number" || context?.source === undefined || String(value) === context.source) return value;
  return new ExactNumber(context.source, value);
}

/** The parts of a response that hold what a user sent; everything else is the journal's own. */
const FOREIGN = new Set(["data", "properties", "old", "new"]);

function merge(plain, exact) {
  if (Array.isArray(plain)) return plain.map((each, index) => merge(each, exact[index]));
  if (plain === null || typeof plain !== "object") return plain;
  for (const key of Object.keys(plain)) {
    plain[key] = FOREIGN.has(key) ? exact[key] : merge(plain[key], exact[key]);
  }
  return plain;
}
