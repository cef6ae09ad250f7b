/**
 * The help on keys.
 */

import { html, useEffect, useRef } from "./vendor/preact-htm.js";

const KEYS = [
  ["/", "search"],
  ["j, k or arrows", "next, previous command"],
  ["Enter", "open the command"],
  ["Esc", "close it, or this help"],
  ["c", "copy the open command as a pytest assertion"],
  ["p", "pause or resume the list"],
  ["1 to 5", "change the view"],
  ["?", "this help"],
];

/** Open the help. */
export function openHelp() {
  document.getElementById("help").showModal();
}

/** The dialog. The browser closes it on Esc and returns the focus. */
export function Help() {
  const dialog = useRef(null);
  useEffect(() => {
    const closeOutside = (event) => event.target === dialog.current && dialog.current.close();
    dialog.current.addEventListener("click", closeOutside);
  }, []);
  return html`<dialog ref=${dialog} id="help" aria-labelledby="help-title">
    <h2 id="help-title">Keys</h2>
    <dl class="keys">${KEYS.map(([key, meaning]) => html`<dt><kbd>${key}</kbd></dt><dd>${meaning}</dd>`)}</dl>
    <p class="muted">The address of this page contains the filters and what is open: share it, or use the back button.</p>
    <form method="dialog"><button type="submit">Close</button></form>
  </dialog>`;
}
