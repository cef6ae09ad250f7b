/**
 * Lists that are loaded in pages.
 */

import { get } from "./api.js";
import { useRefresher } from "./loading.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { useRef, useState } from "./vendor/preact-htm.js";

const PAGE = 200;
const NOTHING = { wanted: "", items: null, error: "", next: null };

/**
 * Load the first page of a list, again when the tick changes, and further pages on demand. What is shown stays until the
 * first page of another query is there.
 *
 * @param {string} path
 * @param {object} query What chooses the items.
 * @param {{name: string, keyOf: (item: object) => string|number, tick: number}} options The field with the items in a
 *   response, the identity of an item, and what changes when there are others.
 * @returns {{items: object[]|null, list: string, error: string, loadMore: () => Promise<void>}} `items` is null before the
 *   first page; another value of `list` stands for another list.
 */
export function usePages(path, query, { name, keyOf, tick }) {
  const { epoch } = useStore(session);
  const [state, setState] = useState(NOTHING);
  const loading = useRef("");
  const wanted = JSON.stringify([path, query, epoch]);
  const load = async (options) => {
    const page = await get(path, options);
    return { wanted, items: page[name], error: "", next: page.next ?? null };
  };
  useRefresher(wanted, tick, async (signal) => {
    try {
      const page = await load({ query: { ...query, limit: PAGE }, signal });
      setState((old) => refreshed(old, page, keyOf));
    } catch (error) {
      if (error.name !== "AbortError") setState((old) => ({ ...(old.wanted === wanted ? old : NOTHING), wanted, error: error.message }));
    }
  });
  const loadMore = async () => {
    const before = state.next;
    const place = `${state.wanted} ${before}`;
    if (before === null || state.wanted !== wanted || loading.current === place) return;
    loading.current = place;
    // Meanwhile the list may be another one, or end elsewhere: items of a later page would be wrong there.
    const ifSame = (change) => setState((old) => (`${old.wanted} ${old.next}` === place ? change(old) : old));
    try {
      const page = await load({ query: { ...query, limit: PAGE, before } });
      ifSame((old) => ({ ...page, items: merged(old.items, page.items, keyOf) }));
    } catch (error) {
      ifSame((old) => ({ ...old, error: error.message }));
    } finally {
      if (loading.current === place) loading.current = "";
    }
  };
  return { items: state.items, list: state.wanted, error: state.error, loadMore };
}

/** Keep what was loaded beyond the first page, unless that is the only one, or items may be missing between the two. */
function refreshed(old, page, keyOf) {
  if (old.wanted !== page.wanted || old.items === null || page.next === null) return page;
  const first = new Set(page.items.map(keyOf));
  if (!old.items.some((each) => first.has(keyOf(each)))) return page;
  return { ...page, items: merged(page.items, old.items, keyOf), next: old.next };
}

/** An item that moved up between two pages is in both of them. */
function merged(one, two, keyOf) {
  const known = new Set(one.map(keyOf));
  return [...one, ...two.filter((each) => !known.has(keyOf(each)))];
}
