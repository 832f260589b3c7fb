// What the browser keeps. One that keeps nothing, as with its storage blocked, forgets when the page is closed.
class Forgetful {
  #items = new Map();
  getItem(key) {
    return this.#items.get(key) ?? null;
  }
  setItem(key, value) {
    this.#items.set(key, value);
  }
  removeItem(key) {
    this.#items.delete(key);
  }
  key(index) {
    return [...this.#items.keys()][index] ?? null;
  }
  get length() {
    return this.#items.size;
  }
}

function open(name) {
  try {
    return window[name];
  } catch {
    return new Forgetful();
  }
}

/** Kept until it is removed. */
export const local = open("localStorage");
/** Kept as long as this tab. */
export const session = open("sessionStorage");

/** Keep a text until it is removed; false where there is no more room. */
export function keep(key, value) {
  try {
    local.setItem(key, value);
    return true;
  } catch {
    return false;
  }
}
