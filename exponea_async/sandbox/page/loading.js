/**
 * Loading for components.
 */

import { get } from "./api.js";
import { html, useEffect, useState } from "./vendor/preact-htm.js";

const PAUSE_MS = 1000;

/**
 * Load JSON when the path or the tick changes; with another tick what is shown stays until the new value is there.
 *
 * @param {string|null} path The path with its query; null for nothing.
 * @param {number|string} [tick] Loads again when it changes, at most once per second.
 * @returns {{value: any, error: string, loading: boolean, missing: boolean}}
 */
export function useJson(path, tick = 0) {
  const [state, setState] = useState({ path: null, at: 0, value: null, error: "", missing: false });
  const isCurrent = state.path === path;
  useEffect(() => {
    if (path === null) return undefined;
    const controller = new AbortController();
    const wait = isCurrent ? Math.max(0, state.at + PAUSE_MS - performance.now()) : 0;
    const timer = setTimeout(() => load(path, controller.signal, setState), wait);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [path, tick]);
  if (!isCurrent) return { value: null, error: "", loading: path !== null, missing: false };
  return { ...state, loading: false };
}

async function load(path, signal, setState) {
  try {
    const value = await get(path, { signal, exact: true });
    setState({ path, at: performance.now(), value, error: "", missing: false });
  } catch (error) {
    if (error.name === "AbortError") return;
    const missing = error.status === 404;
    // What is shown stays while the sandbox does not respond.
    setState((old) => ({
      path, at: performance.now(), value: !missing && old.path === path ? old.value : null, error: error.message, missing,
    }));
  }
}

/**
 * What is shown instead of something that is not there.
 * @param {{loading: boolean, error: string}} props
 */
export function Pending({ loading, error }) {
  if (error) return html`<p class="failure" role="alert">${error}</p>`;
  return loading ? html`<p class="placeholder" role="status">Loading…</p>` : null;
}
