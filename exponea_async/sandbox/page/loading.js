/**
 * Loading for components.
 */

import { get } from "./api.js";
import { Refresher } from "./refresher.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

/**
 * Load when the key changes, and again when the tick changes, at most once per second. Another key aborts what is being
 * loaded; another tick does not, or nothing would ever arrive while ticks are faster than responses.
 *
 * @param {string|null} key Names all that `load` depends on; null for nothing.
 * @param {number|string} tick
 * @param {(signal: AbortSignal) => Promise<void>} load It must not throw.
 */
export function useRefresher(key, tick, load) {
  const refresher = useRef(null);
  useEffect(() => {
    if (key === null) return undefined;
    const created = new Refresher(load);
    refresher.current = created;
    return () => created.end();
  }, [key]);
  useEffect(() => {
    if (key !== null) refresher.current.request();
  }, [key, tick]);
}

/**
 * Load JSON when the path or the tick changes; with another tick what is shown stays until the new value is there.
 *
 * @param {string|null} path The path with its query; null for nothing.
 * @param {number|string} [tick] Loads again when it changes.
 * @returns {{value: any, error: string, loading: boolean, missing: boolean}}
 */
export function useJson(path, tick = 0) {
  const [state, setState] = useState({ path: null, value: null, error: "", missing: false });
  useRefresher(path, tick, (signal) => load(path, signal, setState));
  if (state.path !== path) return { value: null, error: "", loading: path !== null, missing: false };
  return { ...state, loading: false };
}

async function load(path, signal, setState) {
  try {
    const value = await get(path, { signal, exact: true });
    setState({ path, value, error: "", missing: false });
  } catch (error) {
    if (error.name === "AbortError") return;
    const missing = error.status === 404;
    // What is shown stays while the sandbox does not respond.
    setState((old) => ({ path, value: !missing && old.path === path ? old.value : null, error: error.message, missing }));
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
