/**
 * Loading again and again, as things change.
 */

const PAUSE_MS = 1000;

/**
 * Calls a function that loads something: at once when it is requested first, then at most once per second, and one call
 * at a time. A request during a call leads to another call, since the response may be older than the change.
 */
export class Refresher {
  /** @param {(signal: AbortSignal) => Promise<void>} load It must not throw. */
  constructor(load) {
    this._load = load;
    this._controller = new AbortController();
    this._timer = 0;
    this._ended = -PAUSE_MS;
    this._isLoading = false;
    this._isRequested = false;
  }

  /** Load, or load again. */
  request() {
    this._isRequested = true;
    if (this._isLoading || this._timer) return;
    this._timer = setTimeout(() => this._call(), Math.max(0, this._ended + PAUSE_MS - performance.now()));
  }

  /** Load nothing any more, and abort what is being loaded. */
  end() {
    clearTimeout(this._timer);
    this._controller.abort();
  }

  async _call() {
    const { signal } = this._controller;
    this._timer = 0;
    this._isRequested = false;
    this._isLoading = true;
    await this._load(signal);
    this._isLoading = false;
    this._ended = performance.now();
    if (this._isRequested && !signal.aborted) this.request();
  }
}
