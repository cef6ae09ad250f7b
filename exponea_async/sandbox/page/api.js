/**
 * Requests to the sandbox that serves this page.
 */

import { parseExact } from "./exact.js";

/** A request failed; the message is for the user. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status The HTTP status; 0 where there was no response.
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Return a path with a query; empty values are left out, lists are repeated.
 * @param {string} path
 * @param {object} query
 * @returns {string}
 */
export function withQuery(path, query) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") parameters.append(name, each);
    }
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Get JSON.
 * @param {string} path
 * @param {{query?: object, signal?: AbortSignal, exact?: boolean}} [options] `exact` keeps the digits of numbers that
 *   users sent, which takes twice as long.
 */
export function get(path, { query = {}, signal, exact = false } = {}) {
  return request("GET", withQuery(path, query), { signal, parse: exact ? parseExact : JSON.parse });
}

/**
 * Send JSON.
 * @param {"POST"|"PUT"|"DELETE"} method
 * @param {string} path
 * @param {unknown} [body]
 */
export function send(method, path, body) {
  return request(method, path, { body: body === undefined ? undefined : JSON.stringify(body) });
}

/**
 * Get JSON as text, or send it as text, so that its numbers stay as they are written.
 * @param {"GET"|"PUT"} method
 * @param {string} path
 * @param {{body?: string, signal?: AbortSignal}} options
 * @returns {Promise<string>}
 */
export function exchangeText(method, path, { body, signal }) {
  return request(method, path, { body, signal, parse: (text) => text });
}

async function request(method, path, { body, signal, parse = JSON.parse }) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  let response;
  let text;
  try {
    response = await fetch(path, { method, headers, body, signal });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The sandbox does not respond. Is it still running?", 0);
  }
  if (!response.ok) throw new ApiError(reason(text, response), response.status);
  return text ? parse(text) : null;
}

function reason(text, response) {
  try {
    const { errors } = JSON.parse(text);
    const list = Array.isArray(errors) ? errors : Object.values(errors).flat();
    return list.join(" ");
  } catch {
    return `The sandbox responded with ${response.status} ${response.statusText}.`;
  }
}
