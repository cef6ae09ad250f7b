/**
 * Times, sizes and names as the page writes them.
 */

const pad = (number, length = 2) => String(number).padStart(length, "0");

/**
 * Return a time of day with milliseconds, such as "14:05:09.120".
 * @param {number} seconds UNIX seconds.
 */
export function timeOfDay(seconds) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return String(seconds);
  return `${clock(date)}.${pad(date.getMilliseconds(), 3)}`;
}

/**
 * Return a date and a time of day, such as "2026-11-29 14:05:09".
 * @param {number} seconds UNIX seconds.
 */
export function dateAndTime(seconds) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return String(seconds);
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${clock(date)}`;
}

/**
 * Return a time of day, such as "14:05:09".
 * @param {number} seconds UNIX seconds.
 */
export function shortTime(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? "?" : clock(date);
}

function clock(date) {
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

/**
 * Return a duration, such as "320 ms", "4.2 s" or "3 min 5 s".
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/**
 * Return a number of bytes, such as "1.2 MB".
 * @param {number} bytes
 */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1000).toFixed(1)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Return a number with separators, such as "50,000". */
export function count(number) {
  return number.toLocaleString("en");
}

/**
 * Return a number and its noun, such as "1 event" or "2 events".
 * @param {number} number
 * @param {string} noun
 */
export function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/**
 * Return the best name among the ids of a customer: a hard id before the cookie.
 * @param {object} ids Values, or lists of values, by kind.
 * @returns {string}
 */
export function bestId(ids) {
  const kinds = Object.keys(ids ?? {});
  const kind = kinds.includes("registered") ? "registered" : (kinds.find((each) => each !== "cookie") ?? kinds[0]);
  if (kind === undefined) return "";
  const value = ids[kind];
  return String(Array.isArray(value) ? value[0] : value);
}
