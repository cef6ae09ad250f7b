/**
 * A list of any length, of which only the visible rows are in the document.
 */

import { html, useEffect, useLayoutEffect, useReducer, useRef } from "./vendor/preact-htm.js";

/** Rows that are rendered above and below the visible ones. */
const MARGIN = 6;
/** How many rows from the end of the list older ones are loaded. */
const NEAR_END = 100;

/**
 * A list box. One tab stop: the arrow keys, Page Up, Page Down, Home, End and j, k move within it, Enter opens a row.
 *
 * @param {object} props
 * @param {string} props.label The name of the list for screen readers.
 * @param {number} props.count The number of rows.
 * @param {number} props.rowHeight The height of each row, in pixels.
 * @param {(index: number) => any} props.row Renders the content of a row.
 * @param {(index: number) => string|number} props.keyOf Returns the identity of a row.
 * @param {number} props.active The index of the active row; -1 for none.
 * @param {(index: number) => void} props.onActive Called when the user moves to a row.
 * @param {(index: number) => void} props.onOpen Called when the user opens a row.
 * @param {() => void} [props.onNearEnd] Called near the end of the list.
 * @param {number} [props.added] The number of rows ever added in front, so that the visible rows stay in place.
 * @param {string|number} [props.list] Another value stands for another list, which begins at its top.
 * @param {string} [props.id] The id of the element.
 */
export function VirtualList({
  label, count, rowHeight, row, keyOf, active, onActive, onOpen, onNearEnd, added = 0, list = 0, id = "list",
}) {
  const box = useRef(null);
  const [, render] = useReducer((number) => number + 1, 0);
  const view = useRef({ top: 0, height: 600, added, moved: false });
  const { top, height } = view.current;

  useEffect(() => {
    const observer = new ResizeObserver(() => {
      view.current.height = box.current.clientHeight;
      render();
    });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);

  // New rows in front push the others down: unless the user is at the top, the visible ones stay where they are.
  useLayoutEffect(() => {
    const delta = added - view.current.added;
    view.current.added = added;
    if (delta > 0 && box.current.scrollTop > 0) box.current.scrollTop += delta * rowHeight;
  }, [added]);

  useLayoutEffect(() => {
    box.current.scrollTop = 0;
  }, [list]);

  // The row that the user moved to has to be visible. Rows that move by themselves don't scroll the list.
  useLayoutEffect(() => {
    if (!view.current.moved) return;
    view.current.moved = false;
    reveal(box.current, active, rowHeight);
  });

  const first = Math.max(0, Math.floor(top / rowHeight) - MARGIN);
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + MARGIN);

  useEffect(() => {
    if (onNearEnd && last > count - NEAR_END) onNearEnd();
  }, [last, count, list]);

  const scrolled = () => {
    const previous = Math.floor(view.current.top / rowHeight);
    view.current.top = box.current.scrollTop;
    if (Math.floor(view.current.top / rowHeight) !== previous) render();
  };

  const move = (index) => {
    if (!count) return;
    view.current.moved = true;
    onActive(Math.max(0, Math.min(count - 1, index)));
    render();
  };

  const pressed = (event) => {
    const page = Math.max(1, Math.floor(height / rowHeight) - 1);
    const targets = {
      ArrowDown: active + 1, j: active + 1, ArrowUp: Math.max(0, active - 1), k: Math.max(0, active - 1),
      PageDown: active + page, PageUp: active - page, Home: 0, End: count - 1,
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in targets) move(targets[event.key]);
    else if (event.key === "Enter" && active >= 0) onOpen(active);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const rows = [];
  for (let index = first; index < last; index++) {
    rows.push(html`<div
      key=${keyOf(index)} id=${`${id}-${keyOf(index)}`} class="row" role="option"
      aria-selected=${index === active ? "true" : "false"} aria-setsize=${count} aria-posinset=${index + 1}
      style=${{ transform: `translateY(${index * rowHeight}px)`, height: `${rowHeight}px` }}
      onClick=${() => onOpen(index)}
    >${row(index)}</div>`);
  }
  const activeId = active >= first && active < last ? `${id}-${keyOf(active)}` : undefined;
  return html`<div
    ref=${box} id=${id} class="virtual" role="listbox" tabindex="0" aria-label=${label}
    aria-activedescendant=${activeId} onScroll=${scrolled} onKeyDown=${pressed}
  ><div class="spacer" role="presentation" style=${{ height: `${count * rowHeight}px` }}>${rows}</div></div>`;
}

function reveal(box, index, rowHeight) {
  if (index < 0) return;
  const start = index * rowHeight;
  if (start < box.scrollTop) box.scrollTop = start;
  else if (start + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = start + rowHeight - box.clientHeight;
}
