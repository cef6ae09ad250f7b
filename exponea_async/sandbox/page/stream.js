/**
 * The live stream of the sandbox.
 */

import { withQuery } from "./api.js";

const RETRY_MS = 2000;
const EVENTS = ["entries", "requests", "gap", "reset", "full"];

/** Follows the stream, reconnects after failures, and continues after the last entry it has got. */
export class Stream {
  /**
   * @param {Record<string, (data: any) => void>} handlers By name of the event; `state` gets "live" or "reconnecting".
   */
  constructor(handlers) {
    this._handlers = handlers;
    this._source = null;
    this._timer = 0;
    this._after = "";
  }

  /** Whether it is connected, or tries to be. */
  get isOpen() {
    return this._source !== null;
  }

  /** Connect again, and get everything after the last entry. */
  resume() {
    this.open(this._after);
  }

  /**
   * Connect, and get the entries after a position.
   * @param {string} after The position: the id of an entry and the run of the sandbox; empty for the present one.
   */
  open(after) {
    this.close();
    this._after = after;
    const source = new EventSource(withQuery("/sandbox/stream", { after }));
    this._source = source;
    source.addEventListener("open", () => this._handlers.state("live"));
    source.addEventListener("error", () => this._failed(source));
    for (const name of EVENTS) source.addEventListener(name, (event) => this._received(name, event));
  }

  /** Disconnect. */
  close() {
    clearTimeout(this._timer);
    this._source?.close();
    this._source = null;
  }

  _received(name, event) {
    const data = JSON.parse(event.data);
    if (event.lastEventId) this._after = event.lastEventId;
    this._handlers[name](data);
  }

  _failed(source) {
    this._handlers.state("reconnecting");
    // The browser reconnects by itself, except after a response that is not a stream, as of another program.
    if (source.readyState !== EventSource.CLOSED) return;
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.resume(), RETRY_MS);
  }
}
