// The server: its JSON, its streams of events, and how it refuses.
import { session } from "./storage.js";

const KEY = "ernie-rt/key";

/** What the server did not do: `kind` is the name of the error's text, `detail` what the server says of it. */
export class Refusal extends Error {
  constructor(kind, detail = "", retryAfter = 0) {
    super(detail || kind);
    this.kind = kind;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }
}

const STATUSES = { 401: "key", 403: "forbidden", 404: "address", 413: "large", 429: "busy", 503: "stopping" };

/** The kinds of refusals. */
export const KINDS = [...Object.values(STATUSES), "refused", "failed", "broken", "unreachable"];

export function hasKey() {
  return session.getItem(KEY) !== null;
}

/** Keep a key as long as this tab; whoever asked in vain hears of it by the window's event `key`. */
export function useKey(key) {
  session.setItem(KEY, key);
  window.dispatchEvent(new Event("key"));
}

async function request(path, options = {}) {
  const key = session.getItem(KEY);
  const headers = { ...options.headers, ...(key === null ? {} : { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("unreachable");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const kind = STATUSES[response.status] ?? (response.status < 500 ? "refused" : "failed");
  const wait = Number(response.headers.get("retry-after"));
  return new Refusal(kind, detail(await response.text().catch(() => "")), wait > 0 ? Math.ceil(wait) : 0);
}

function detail(body) {
  try {
    return String(JSON.parse(body).error.message);
  } catch {
    return "";
  }
}

export async function get(path) {
  const response = await request(path);
  try {
    return await response.json();
  } catch {
    throw new Refusal("failed");
  }
}

/** Post `body`, and hand over what the answer streams, an object for each event; `ignored` hears what was left out. */
export async function* stream(path, body, signal, ignored) {
  const headers = { "content-type": "application/json", accept: "text/event-stream" };
  const response = await request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const names = response.headers.get("x-ernie-rt-ignored");
  if (names) ignored(names);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Refusal("failed", String(event.error.message ?? ""));
    yield event;
  }
  throw new Refusal("broken");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Refusal("broken");
    });
    if (done) return;
    const parts = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}
