/** What hangs together: everything that a box gets its data from, and everything that its data goes to. */
import type { Link, Model } from "./model";

export interface Highlight {
  boxes: Set<string>;
  links: Set<string>;
}

/** All that is up- and downstream of a box, with the box itself. */
export function pipelineOf(model: Model, id: string): Highlight {
  const outs = new Map<string, Link[]>();
  const ins = new Map<string, Link[]>();
  const put = (map: Map<string, Link[]>, key: string, link: Link): void => {
    const list = map.get(key);
    if (list === undefined) map.set(key, [link]);
    else list.push(link);
  };
  for (const link of model.links) {
    put(outs, link.from, link);
    put(ins, link.to, link);
  }
  const boxes = new Set([id]);
  const links = new Set<string>();
  const walk = (map: Map<string, Link[]>, next: (link: Link) => string): void => {
    const seen = new Set([id]);
    const queue = [id];
    for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
      for (const link of map.get(at) ?? []) {
        links.add(link.id);
        const to = next(link);
        boxes.add(to);
        if (!seen.has(to)) {
          seen.add(to);
          queue.push(to);
        }
      }
    }
  };
  walk(outs, (link) => link.to);
  walk(ins, (link) => link.from);
  return { boxes, links };
}
