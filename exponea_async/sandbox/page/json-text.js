/**
 * JSON text with line breaks, in which every value stays as it was written: 5.0 is not 5.
 */

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|\s+|[^\s"{}[\],:]+/g;
const OPEN = new Set(["{", "["]);
const CLOSED = new Set(["}", "]"]);

/**
 * Break the lines of JSON. Text that is not JSON loses its blanks at most.
 * @param {string} text
 * @returns {string}
 */
export function formatted(text) {
  const tokens = (text.match(TOKEN) ?? []).filter((token) => !/^\s/.test(token));
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return tokens
    .map((token, index) => {
      if (OPEN.has(token)) {
        if (CLOSED.has(tokens[index + 1])) return token;
        depth += 1;
        return token + line();
      }
      if (CLOSED.has(token)) {
        if (OPEN.has(tokens[index - 1])) return token;
        depth = Math.max(0, depth - 1);
        return line() + token;
      }
      if (token === ",") return token + line();
      return token === ":" ? ": " : token;
    })
    .join("");
}

/**
 * Return whether a text is JSON.
 * @param {string} text
 */
export function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
