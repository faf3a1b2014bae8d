/** Finds components by what the user types: every word must be somewhere; where it is decides the order. */
import type { GraphNode } from "../api/types";

export interface Found {
  node: GraphNode;
  score: number;
}

/** A word's place within a component, the smaller the better; `null` where it is not. */
function place(word: string, node: GraphNode): number | null {
  const label = node.label.toLowerCase();
  const name = node.name.toLowerCase();
  if (label === word || node.id.toLowerCase() === word) return 0;
  if (label.startsWith(word)) return 1;
  if (name === word) return 2;
  if (label.includes(word)) return 3;
  if (name.split(".").some((part) => part.startsWith(word))) return 4;
  if (node.id.toLowerCase().includes(word)) return 5;
  if (word === node.health.state) return 6;
  if (node.ends.some(({ name, url }) => `${name} ${url}`.toLowerCase().includes(word))) return 7;
  if (node.file.toLowerCase().includes(word)) return 8;
  return null;
}

/** The components that have every word of `text`, the best first; nothing for no words. */
export function search(nodes: readonly GraphNode[], text: string, max = Infinity): Found[] {
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "");
  if (words.length === 0) return [];
  const found: Found[] = [];
  for (const node of nodes) {
    let score = 0;
    let all = true;
    for (const word of words) {
      const at = place(word, node);
      if (at === null) {
        all = false;
        break;
      }
      score += at;
    }
    if (all) found.push({ node, score });
  }
  found.sort((a, b) => a.score - b.score || (a.node.id < b.node.id ? -1 : a.node.id > b.node.id ? 1 : 0));
  return found.slice(0, max);
}

/** Cuts a text at the words that were searched, to mark them. */
export function marked(text: string, query: string): { text: string; hit: boolean }[] {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const lower = text.toLowerCase();
  const hits = new Array<boolean>(text.length).fill(false);
  // Lower case of some letters is longer: places would not agree.
  if (lower.length !== text.length) return [{ text, hit: false }];
  for (const word of words) {
    for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + 1)) hits.fill(true, at, at + word.length);
  }
  const parts: { text: string; hit: boolean }[] = [];
  for (let i = 0; i < text.length; i++) {
    const last = parts.at(-1);
    if (last !== undefined && last.hit === hits[i]) last.text += text[i];
    else parts.push({ text: text[i] ?? "", hit: hits[i] ?? false });
  }
  return parts;
}
