/** Keys that work on every page: `/`, `?` and the pairs that begin with `g`. */

/** Whether a key belongs to what has the focus. */
export function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches("input:not([type=checkbox]):not([type=radio]), textarea, select"))
  );
}

/** The second key must follow within this time. */
const PAIR_MS = 1500;

/** Tells which action keys mean: `g t` is the action "g t". */
export class KeyPairs {
  #first = "";
  #at = 0;

  push(key: string, now: number): string {
    const pair = this.#first !== "" && now - this.#at <= PAIR_MS ? `${this.#first} ${key}` : key;
    this.#first = pair === "g" ? "g" : "";
    this.#at = now;
    return pair;
  }
}
