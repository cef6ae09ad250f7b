/**
 * Buttons that copy text.
 */

import { html, useEffect, useState } from "./vendor/preact-htm.js";

const SHOWN_MS = 4000;

/**
 * A button that copies a text, and says whether it did.
 * @param {{label: string, text: () => string|Promise<string>, id?: string}} props
 */
export function CopyButton({ label, text, id }) {
  const [result, setResult] = useState("");
  useEffect(() => {
    if (!result) return undefined;
    const timer = setTimeout(() => setResult(""), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [result]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(await text());
      setResult("Copied");
    } catch (error) {
      setResult(`Not copied: ${error.message}`);
    }
  };
  // Not in the button, whose content screen readers take for its name.
  return html`<span class="copy"><button type="button" id=${id} onClick=${copy}>${label}</button><span
    class=${result === "Copied" ? "copied" : "copied failed"} role="status">${result}</span></span>`;
}
