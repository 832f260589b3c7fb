// Conversations, each kept under a key of its own, so that two tabs do not overwrite each other's.
import { KINDS } from "./api.js";
import { notify } from "./dom.js";
import { filesOf, forget, newId } from "./files.js";
import { keep, local } from "./storage.js";

const PREFIX = "ernie-rt/chat/";
const CUT = { kind: "broken", detail: "", retryAfter: 0 }; // of an answer that was still coming when the page was left
const FORMAT = "ernie-rt conversations";

export function fresh(system) {
  return { id: newId(), title: "", updated: Date.now(), system, messages: [] };
}

/** All that are kept, the latest first. */
export function all() {
  const keys = Array.from({ length: local.length }, (_, index) => local.key(index));
  const texts = keys.filter((key) => key.startsWith(PREFIX)).map((key) => local.getItem(key));
  return texts.map(read).filter(Boolean).sort((a, b) => b.updated - a.updated);
}

export function isKept(key) {
  return key === null || key.startsWith(PREFIX);
}

export function save(conversation) {
  const kept = keep(PREFIX + conversation.id, JSON.stringify(conversation));
  if (!kept) notify("not_kept");
  return kept;
}

export function remove(id) {
  for (const { files } of read(local.getItem(PREFIX + id))?.messages ?? []) forget(files ?? []);
  local.removeItem(PREFIX + id);
}

export function exported() {
  return JSON.stringify({ format: FORMAT, version: 1, conversations: all() }, null, 1);
}

/** Add what a file holds; of a conversation that is here already the later one stays. Returns how many came, or null. */
export function imported(content) {
  const file = parsed(content);
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) return null;
  const here = new Map(all().map((conversation) => [conversation.id, conversation]));
  const coming = file.conversations.map(conversationOf).filter(Boolean);
  return coming.filter((one) => !(here.get(one.id)?.updated >= one.updated) && save(one)).length;
}

function read(content) {
  return conversationOf(parsed(content));
}

function parsed(content) {
  try {
    return JSON.parse(content);
  } catch {
    return null;
  }
}

/** A conversation of what a file or the browser holds, with what belongs in one and nothing else; or null. */
function conversationOf(value) {
  if (!/^[0-9a-f]{24}$/.test(value?.id) || !Array.isArray(value.messages)) return null;
  return {
    id: value.id,
    title: string(value.title),
    updated: Number(value.updated) || 0,
    system: string(value.system),
    messages: value.messages.map(messageOf).filter(Boolean),
  };
}

function messageOf(value) {
  if (value?.role === "user") return { role: "user", content: string(value.content), files: filesOf(value.files) };
  if (value?.role !== "assistant") return null;
  const calls = Array.isArray(value.calls) ? value.calls : [];
  return {
    role: "assistant",
    content: string(value.content),
    reasoning: string(value.reasoning),
    calls: calls.map((call) => ({ name: string(call?.name), arguments: string(call?.arguments) })),
    finish: string(value.finish) || "failed",
    ignored: string(value.ignored),
    refusal: value.finish ? refusalOf(value.refusal) : CUT,
    figures: numbers(value.figures),
  };
}

function refusalOf(value) {
  if (!KINDS.includes(value?.kind)) return null;
  return { kind: value.kind, detail: string(value.detail), retryAfter: 0 };
}

function string(value) {
  return typeof value === "string" ? value : "";
}

function numbers(value) {
  return Object.fromEntries(Object.entries(value ?? {}).filter(([, number]) => Number.isFinite(number)));
}
