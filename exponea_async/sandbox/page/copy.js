/**
 * What the page copies: a request for curl, and a command in Python, as a call and as an assertion.
 */

import { ExactNumber } from "./exact.js";
import { escaped, replaceInvisible } from "./text.js";

const LINE = 100;
/** Headers that curl writes itself, or that belong to the compressed body, which is copied without compression. */
const OMITTED_HEADERS = new Set([
  "host", "content-length", "content-encoding", "accept-encoding", "transfer-encoding", "connection",
]);
const SECRET_HEADERS = new Set(["authorization", "cookie", "proxy-authorization"]);
/** Properties that the SDK adds by itself; no others, since an assertion has to contain what the application has set. */
const ADDED = new Set([
  "sdk", "sdk_version", "os_name", "os_version", "device_type", "device_id", "app_version", "application_id",
]);

/**
 * Return a value as a Python literal.
 * @param {any} value
 * @param {number} [indent] The number of spaces in front of the line on which it starts.
 * @returns {string}
 */
export function python(value, indent = 0) {
  const line = literal(value);
  const isNested = value !== null && typeof value === "object" && !(value instanceof ExactNumber);
  if (!isNested || indent + line.length <= LINE || line.length <= 2) return line;
  const inner = " ".repeat(indent + 4);
  const members = Array.isArray(value)
    ? value.map((each) => `${inner}${python(each, indent + 4)},`)
    : Object.entries(value).map(([key, each]) => `${inner}${quoted(key)}: ${python(each, indent + 4)},`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return [open, ...members, " ".repeat(indent) + close].join("\n");
}

function literal(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return quoted(value);
  if (typeof value === "number" || value instanceof ExactNumber) return String(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  return `{${Object.entries(value).map(([key, each]) => `${quoted(key)}: ${literal(each)}`).join(", ")}}`;
}

/** A JSON string is a Python string, too, once the invisible characters are escaped. */
function quoted(text) {
  const characters = escaped(JSON.stringify(text));
  // Python reads \ud83d\ude00 as two characters; JSON as one.
  return characters.replace(/\\u(d[89ab]..)\\u(d[c-f]..)/gi, (_, high, low) => {
    const code = (parseInt(high, 16) - 0xd800) * 0x400 + parseInt(low, 16) - 0xdc00 + 0x10000;
    return `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

/** Return the parts of the data that a call needs. The data of a rejected command may be anything. */
function partsOf({ data }) {
  const fields = asObject(data);
  return {
    ids: asObject(fields.customer_ids), properties: asObject(fields.properties), timestamp: fields.timestamp ?? null,
  };
}

const asObject = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});

/**
 * Return a command as a call of the SDK.
 * @param {object} entry An entry with its `data`.
 */
export function asPython(entry) {
  const { ids, properties, timestamp: sentAt } = partsOf(entry);
  if (entry.kind === "customer") {
    return [
      `await exponea.for_customer(${python(ids)}).identify_customer(`,
      `    Customer(${python(ids, 4)}, ${python(properties, 4)})`,
      ")",
    ].join("\n");
  }
  const timestamp = sentAt === null ? "" : `, timestamp=${python(sentAt)}`;
  if (entry.kind === "click") {
    return `await exponea.for_customer(${python(ids)}).handle_campaign_click(${python(asObject(entry.data).url)}${timestamp})`;
  }
  return [
    `await exponea.for_customer(${python(ids)}).track_event(`,
    `    Event(${quoted(entry.name)}, ${python(properties, 4)}${timestamp})`,
    ")",
  ].join("\n");
}

/**
 * Return a command as an assertion of a test with pytest.
 * @param {object} entry An entry with its `data`.
 */
export function asPytest(entry) {
  const sent = partsOf(entry);
  const properties = Object.fromEntries(Object.entries(sent.properties).filter(([name]) => !ADDED.has(name)));
  const hasProperties = Object.keys(properties).length > 0;
  const ids = hardIds(sent.ids);
  const name = entry.verdict === "rejected" ? "assert_not_tracked" : "assert_tracked";
  const parts = [quoted(entry.name)];
  if (hasProperties) parts.push(python(properties, 4));
  if (Object.keys(ids).length) parts.push(`customer=${python(ids, 4)}`);
  const line = `${name}(${parts.join(", ")})`;
  return line.length <= LINE && !line.includes("\n") ? line : `${name}(\n${parts.map((each) => `    ${each},\n`).join("")})`;
}

function hardIds(ids) {
  const hard = Object.entries(ids).filter(([kind]) => kind !== "cookie");
  return hard.length ? Object.fromEntries(hard) : ids;
}

/**
 * Return a request as a command of a shell, without keys.
 * @param {object} request A request with its headers and body.
 */
export function asCurl(request) {
  const url = `${location.origin}${request.raw_path}${request.query ? `?${request.query}` : ""}`;
  // Without --globoff curl takes [1-3] and {a,b} in an address for several addresses.
  const method = request.method === "HEAD" ? "--head" : `-X ${shell(request.method)}`;
  const lines = [`curl --globoff ${method} ${shell(url)}`];
  for (const [name, value] of headersOf(request)) lines.push(`-H ${shell(header(name, masked(name, value)))}`);
  if (request.body) lines.push(`--data-raw ${shell(request.body)}`);
  const comment = request.body_truncated ? "# The body was too long to keep, and is cut.\n" : "";
  return comment + lines.join(" \\\n  ");
}

/** Return the headers that curl has to be told, with an empty value for those that it would add by itself. */
function headersOf({ headers, body }) {
  const sent = headers.filter(([name]) => !OMITTED_HEADERS.has(name.toLowerCase()));
  const names = new Set(sent.map(([name]) => name.toLowerCase()));
  const added = ["Accept", "User-Agent", ...(body ? ["Content-Type"] : [])].filter((name) => !names.has(name.toLowerCase()));
  return [...sent, ...added.map((name) => [name, null])];
}

/** "X:" removes a header that curl adds, and "X;" sends one without a value. */
function header(name, value) {
  if (value === null) return `${name}:`;
  return value === "" ? `${name};` : `${name}: ${value}`;
}

/** The sandbox masks keys already. This is the second lock: nothing but the scheme is copied. */
export function masked(name, value) {
  if (!SECRET_HEADERS.has(name.toLowerCase())) return value;
  const scheme = /^(Token|Basic|Bearer) /i.exec(value);
  return scheme ? `${scheme[1]} ***` : "***";
}

/**
 * Return a text as one word of a shell. A terminal would act on control characters that are pasted, and would not show
 * others, so these are written as the bytes of their UTF-8 in the quotes $'...' of bash and zsh.
 */
function shell(text) {
  if (!hasControl(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  // JSON writes a null character as an escape, and no argument of a program can have one.
  const quotes = text.replaceAll("\u0000", "").replace(/[\\']/g, "\\$&");
  return `$'${replaceInvisible(quotes.replaceAll("\n", "\\n").replaceAll("\t", "\\t"), bytesOf)}'`;
}

function bytesOf(character) {
  // Exactly two digits, so that no digit that follows is taken for a third one.
  return [...new TextEncoder().encode(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}

const hasControl = (text) => /[\n\t]/.test(text) || replaceInvisible(text, () => "") !== text;
