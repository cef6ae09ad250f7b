/**
 * The editor of the definitions of messages, and their preview as a customer gets them.
 */

import { address, go } from "./address.js";
import { exchangeText, withQuery } from "./api.js";
import { Choice } from "./filters.js";
import { formatted } from "./json-text.js";
import { useJson } from "./loading.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { plain, Text } from "./text.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

const PATH = "/sandbox/messages";
const SECTIONS = { in_app_messages: "In-app messages", content_blocks: "Content blocks", inbox: "Inbox" };

/** The view of the messages. */
export function MessagesView() {
  const [saved, setSaved] = useState({ definitions: null, version: 0 });
  return html`<div class="messages-view">
    <${Editor} onSaved=${(definitions) => setSaved((old) => ({ definitions, version: old.version + 1 }))} />
    <${Preview} definitions=${saved.definitions ?? {}} version=${saved.version} />
  </div>`;
}

/** What is in the editor, also while another view is shown or before it is rendered, and what was loaded into it. */
const draft = { text: "", loaded: "" };
const isWritten = () => draft.text !== draft.loaded;

function Editor({ onSaved }) {
  const [text, setText] = useState(draft.text);
  const [result, setResult] = useState({ error: "", message: "" });
  const area = useRef(null);
  const loading = useRef(null);
  const saving = useRef(Promise.resolve());
  const { epoch, connection } = useStore(session);
  const write = (next) => {
    draft.text = next;
    setText(next);
  };
  /** Show the definitions of the sandbox. What the user has written stays, also if it was written meanwhile. */
  const show = (received) => {
    if (!isWritten()) {
      draft.loaded = formatted(received);
      write(draft.loaded);
      setResult({ error: "", message: "" });
    }
    onSaved(JSON.parse(received));
  };
  const load = async (signal) => {
    try {
      await saving.current;
      const received = await exchangeText("GET", PATH, { signal });
      if (!signal.aborted) show(received);
    } catch (error) {
      if (error.name !== "AbortError" && !isWritten()) setResult({ error: error.message, message: "" });
    }
  };
  useEffect(() => {
    loading.current = new AbortController();
    load(loading.current.signal);
    return () => loading.current.abort();
  }, [epoch, connection]);
  const save = async () => {
    const written = draft.text;
    try {
      const body = checked(written);
      const putting = saving.current.then(() => exchangeText("PUT", PATH, { body }));
      saving.current = putting.catch(() => null);
      // What is on its way is older than what is saved.
      loading.current.abort();
      const received = await putting;
      draft.loaded = written;
      show(received);
      setResult({ error: "", message: "Saved. The next request gets these messages." });
    } catch (error) {
      setResult({ error: error.message, message: "" });
      area.current?.focus();
    }
  };
  return html`<section class="editor" aria-labelledby="editor-title">
    <h2 id="editor-title">Definitions of messages</h2>
    <p class="muted">What the sandbox has for its customers, in the format of the API. ${"{{ first_name }}"} in a text is the
      property of the customer; <code>for</code> chooses the customers of a message.</p>
    <textarea id="definitions" ref=${area} spellcheck=${false} wrap="off" aria-label="Definitions as JSON" value=${text}
      aria-invalid=${result.error ? "true" : "false"} aria-describedby="definitions-result"
      onInput=${(event) => write(event.target.value)}></textarea>
    <div id="definitions-result" aria-live="polite">
      ${result.error && html`<p class="failure"><${Text} value=${result.error} limit=${1000} /></p>`}
      ${result.message && html`<p class="success">${result.message}</p>`}
    </div>
    <div class="actions"><button type="button" class="primary" id="save-definitions" onClick=${save}>Check and save</button></div>
  </section>`;
}

/** Return the text if it is JSON. It is sent as it is: parsed and written again, 5.0 would be 5. */
function checked(text) {
  const written = text.trim() || "{}";
  try {
    JSON.parse(written);
    return written;
  } catch (error) {
    throw new Error(`This is not valid JSON: ${error.message}`);
  }
}

function Preview({ definitions, version }) {
  const { person } = useStore(address);
  const { activity } = useStore(session);
  const { value } = useJson("/sandbox/customers?limit=200", activity);
  const all = messagesOf(definitions);
  const [chosen, setChosen] = useState("");
  const current = all.find(([key]) => key === chosen) ?? all[0];
  const customers = (value?.customers ?? []).map((each) => [`${each.project}/${each.key}`, plain(each.name, 60)]);
  const [project, key] = split(person);
  return html`<section class="message-preview" aria-labelledby="preview-title">
    <h2 id="preview-title">Preview</h2>
    ${current
      ? html`<div class="filters">
          <${Choice} id="preview-message" label="Message" value=${current[0]} options=${all.map(([each, label]) => [each, label])} onChange=${setChosen} />
          <${Choice} id="preview-customer" label="Customer" all="Nobody in particular" value=${person} options=${customers}
            onChange=${(next) => go({ person: next }, { replace: true })} />
        </div>
        <${Frame} src=${withQuery("/sandbox/preview", { section: current[2], id: current[3], project, customer: key, version })} />
        <p class="muted">Scripts do not run here, and images of other hosts are not loaded.</p>`
      : html`<p class="muted">There is no in-app message, content block or inbox message.</p>`}
  </section>`;
}

/** A frame is replaced, not navigated: its own history would be in the way of the back button. */
function Frame({ src }) {
  return html`<iframe key=${src} id="preview-frame" title="Preview of the message" sandbox="" referrerpolicy="no-referrer" src=${src}></iframe>`;
}

function messagesOf(definitions) {
  return Object.entries(SECTIONS).flatMap(([section, title]) =>
    (definitions[section] ?? [])
      .filter((each) => each !== null && typeof each === "object" && each.id)
      .map((each) => [`${section} ${each.id}`, `${title}: ${plain(each.name ?? each.id, 60)}`, section, each.id]),
  );
}

function split(person) {
  const slash = person.lastIndexOf("/");
  return slash < 0 ? ["", ""] : [person.slice(0, slash), person.slice(slash + 1)];
}
