/**
 * Observable state, and the hook with which components follow it.
 */

import { useEffect, useReducer } from "./vendor/preact-htm.js";

/** An object whose changes are published to subscribers, at most once per frame. */
export class Store {
  /** @param {object} state The initial state. */
  constructor(state) {
    this.state = state;
    /** Grows with each change. */
    this.version = 0;
    this._subscribers = new Set();
    this._scheduled = false;
  }

  /**
   * Change some fields.
   * @param {object} patch
   */
  set(patch) {
    this.state = { ...this.state, ...patch };
    this.changed();
  }

  /** Publish a change. A hidden page gets no frames, so a timer takes their place there. */
  changed() {
    this.version += 1;
    if (this._scheduled) return;
    this._scheduled = true;
    const publish = () => {
      this._scheduled = false;
      for (const each of [...this._subscribers]) each(this.state);
    };
    if (document.visibilityState === "visible") requestAnimationFrame(publish);
    else setTimeout(publish, 200);
  }

  /**
   * Call a function after each change.
   * @param {(state: object) => void} subscriber
   * @returns {() => void} Ends the subscription.
   */
  subscribe(subscriber) {
    this._subscribers.add(subscriber);
    return () => this._subscribers.delete(subscriber);
  }
}

/**
 * Return the state of a store, and render the component again after each change.
 * @param {Store} store
 * @returns {object}
 */
export function useStore(store) {
  const [, render] = useReducer((count) => count + 1, 0);
  const rendered = store.version;
  useEffect(() => {
    // Effects run after the paint: what has changed since the component was rendered would be missed.
    if (store.version !== rendered) render();
    return store.subscribe(render);
  }, [store]);
  return store.state;
}
