// Pictures and videos of messages: what they are, how they look, and how a request has them.
import { h, icon, notify, text } from "./dom.js";
import { measure } from "./language.js";

const MIB = 2 ** 20;
const BEGINNING = 16; // bytes that tell what a file is
const BASE64 = 1.35; // characters of a request for each byte of a file
const TYPES = [
  ["image/png", /^\x89PNG\r\n\x1a\n/],
  ["image/jpeg", /^\xff\xd8\xff/],
  ["image/webp", /^RIFF[^]{4}WEBP/],
  ["image/gif", /^GIF8[79]a/],
  ["video/mp4", /^[^]{4}ftyp(?!avif|avis|hei|hev|mif1|msf1)/],
  ["video/webm", /^\x1aE\xdf\xa3/],
];
/** Data URIs, by the ids of files, as long as the page is open: what the browser keeps has room for text alone. */
const urls = new Map();
let kinds = []; // of files that the model takes in
let most = Infinity; // bytes of a request

/** Take files as the card of a model has it; whether it sees. */
export function useModel(card) {
  kinds = card.architecture?.input_modalities ?? [];
  most = card.max_body_bytes ?? Infinity;
  return kinds.includes("image");
}

/** A file as messages have it; null, and told, where it is none that the model takes in. */
export async function opened(file) {
  const { name } = file;
  const type = await typeOf(file);
  const limit = megabytes(most / BASE64);
  if (!kinds.includes("image")) notify("sees_nothing");
  else if (!kinds.includes(type?.split("/")[0])) notify("no_picture", { name });
  else if (file.size * BASE64 > most) notify("too_large", { name, limit });
  else {
    const id = newId();
    urls.set(id, await dataUrl(new Blob([file], { type })));
    return { id, type, name };
  }
  return null;
}

/** What it is by its beginning, whatever its name says; undefined for what cannot be read, such as a folder. */
async function typeOf(file) {
  const bytes = await file.slice(0, BEGINNING).arrayBuffer().catch(() => new ArrayBuffer());
  const beginning = String.fromCharCode(...new Uint8Array(bytes));
  return TYPES.find(([, begins]) => begins.test(beginning))?.[0];
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

export function newId() {
  // Of crypto, pages that come by plain HTTP have the random numbers alone.
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function forget(files) {
  for (const { id } of files) urls.delete(id);
}

/** What the browser keeps of files, or a file of conversations has: what they were. */
export function filesOf(value) {
  const known = (file) => /^[0-9a-f]{24}$/.test(file?.id) && TYPES.some(([type]) => type === file.type);
  return (Array.isArray(value) ? value : []).filter(known).map(({ id, type, name }) => ({ id, type, name: String(name) }));
}

/** How a file is shown: a picture as itself, a video by its name, and one that is no longer here as that. */
export function thumbnail(file) {
  const { id, type, name } = file;
  const url = urls.get(id);
  if (url && type.startsWith("image/")) return h("img", { src: url, alt: name, title: name, decoding: "async" });
  const words = url ? h("span", {}, name) : text("span", "file_gone", { name });
  return h("figure", { className: url ? "" : "gone" }, icon(type.startsWith("video/") ? "video" : "picture"), words);
}

/** The content of a user's message as a request has it: its files, as far as they are here, then its text. */
export function contentOf({ content, files }) {
  const here = files.filter(({ id }) => urls.has(id));
  if (!here.length) return content;
  const parts = here.map(({ id, type }) => {
    const name = type.startsWith("video/") ? "video_url" : "image_url";
    return { type: name, [name]: { url: urls.get(id) } };
  });
  return content ? [...parts, { type: "text", text: content }] : parts;
}

/** Whether the server takes so many messages at once; told where it does not. */
export function fit(messages) {
  let size = 0;
  const rest = JSON.stringify(messages, (key, value) => { // of which a string has no room for all files there may be
    if (key !== "url") return value;
    size += value.length;
    return "";
  });
  const fits = size + new Blob([rest]).size < most;
  if (!fits) notify("too_much", { limit: megabytes(most) });
  return fits;
}

function megabytes(bytes) {
  return measure(bytes / MIB);
}
