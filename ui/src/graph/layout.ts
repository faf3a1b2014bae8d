/**
 * Where everything stands. A pure function: the same graph gives the same picture.
 *
 * Boxes that many others send to (the one sink of a hundred pipelines) would tie all of them to one picture that is a
 * hundred rows high and six columns wide, with a fan of lines that says nothing. They are hubs: links to them are
 * drawn as a short connector with the hub's name, and as lines only where they are highlighted. What is left falls
 * into pipelines, and each is laid out in layers: ranks by the longest way to a sink, order by barycentres, and places
 * by the mean of the neighbours with the least displacement that keeps the order. The pipelines are packed by signal
 * into columns so that all of it fits the window as large as can be. A small picture for which only the width of the
 * window is too little has its columns closer together, and its rows further apart where height is left.
 */
import { naturally } from "../parts/format";
import { GROUPS, type Box, type Group, type Link, type Model } from "./model";

export interface Placed {
  id: string;
  x: number;
  y: number;
  w: number;
  h: number;
  rank: number;
}

export interface Point {
  x: number;
  y: number;
}

export interface Route {
  id: string;
  /** From the right side of one box to the left side of another, through the gaps between. */
  points: Point[];
  /** Whether it is drawn as a connector only: at the side of the box that is not the hub. */
  stub: "out" | "in" | null;
  /** The middle of the label. `null` where there is no room for it. */
  label: Point | null;
  /** Whether there is room for its bytes below its items. */
  tall: boolean;
}

export interface Section {
  group: Group;
  x: number;
  y: number;
  w: number;
  h: number;
  boxes: number;
}

export interface Frame {
  module: string;
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Layout {
  w: number;
  h: number;
  /** Whether boxes and labels are small. */
  close: boolean;
  /** Whether columns stand so close that a label has its figures one below the other. */
  narrow: boolean;
  boxes: Map<string, Placed>;
  routes: Map<string, Route>;
  sections: Section[];
  frames: Frame[];
}

/** The measures of a picture. Many boxes stand closer together. */
interface Sizes {
  boxW: number;
  boxH: number;
  /** Between two columns: the label of a link stands there. */
  rankGap: number;
  /** Between two columns that only targets pass, of which is told how many there are. */
  targetGap: number;
  rowGap: number;
  blockGapX: number;
  blockGapY: number;
  sectionGap: number;
  sectionHead: number;
  /** How far a connector's text goes. */
  stubW: number;
  labelW: number;
  targetLabelW: number;
  frameHead: number;
  /** Whether a label has two rows for each kind where there is room, and no bytes where there is none. */
  stacked: boolean;
}
const WIDE: Sizes = {
  boxW: 204, boxH: 46, rankGap: 132, targetGap: 96, rowGap: 18, blockGapX: 70, blockGapY: 22, sectionGap: 28, sectionHead: 50,
  stubW: 150, labelW: 116, targetLabelW: 80, frameHead: 20, stacked: false,
};
const NARROW: Sizes = { ...WIDE, boxW: 180, boxH: 52, rankGap: 92, targetGap: 74, labelW: 76, targetLabelW: 54, stacked: true };
const CLOSE: Sizes = {
  boxW: 176, boxH: 44, rankGap: 116, targetGap: 96, rowGap: 16, blockGapX: 44, blockGapY: 16, sectionGap: 40, sectionHead: 84,
  stubW: 128, labelW: 112, targetLabelW: 80, frameHead: 50, stacked: false,
};
/** More boxes stand close. */
const WIDE_MAX = 140;

const MARGIN = 16;
const FRAME_PAD = 14;
/** Rows stand this many times as far apart at most. */
const SPREAD_MAX = 2.2;
/** Closer columns have to make the picture larger by so much to be worth it. */
const NARROW_GAIN = 1.04;
/** More neighbours on one side make a hub. */
const HUB_MIN = 14;
const SWEEPS = 8;
const LABEL_H = 15;

export interface LayoutOptions {
  /** Width by height of the window. */
  aspect?: number;
  /** The window's width. Where it is known, a small picture is made for it. */
  width?: number;
}

export function layout(model: Model, { aspect = 1.6, width }: LayoutOptions = {}): Layout {
  const byId = new Map(model.boxes.map((box) => [box.id, box]));
  const ids = model.boxes.map((box) => box.id).sort(compare);
  const links = [...model.links].sort((a, b) => compare(a.id, b.id));

  const { hubs, cut } = findHubs(ids, links);
  const kept = links.filter((link) => !cut.has(link.id));
  const found = findBlocks(ids, kept, byId);
  // The links of each block, and those of hubs that touch it.
  const blockOf = new Map<string, number>();
  found.forEach((members, i) => members.forEach((id) => blockOf.set(id, i)));
  const own: Link[][] = found.map(() => []);
  const stubs: Link[][] = found.map(() => []);
  for (const link of links) {
    const [a, b] = [blockOf.get(link.from) ?? 0, blockOf.get(link.to) ?? 0];
    if (!cut.has(link.id)) own[a]?.push(link);
    else {
      stubs[a]?.push(link);
      if (b !== a) stubs[b]?.push(link);
    }
  }
  const draw = (sizes: Sizes): Drawn => {
    const blocks = found.map((members, i) => layBlock(members, own[i] ?? [], cut, stubs[i] ?? [], byId, hubs, sizes));
    return { ...pack(blocks, aspect, sizes), sizes };
  };
  const { w, h, at, sections, sizes } =
    model.boxes.length > WIDE_MAX ? draw(CLOSE) : width === undefined ? draw(WIDE) : drawFor(width, width / aspect, cut.size === 0, draw);

  const boxes = new Map<string, Placed>();
  const bends = new Map<string, Point[]>();
  for (const { block, x, y } of at) {
    for (const placed of block.at) boxes.set(placed.id, { ...placed, x: placed.x + x, y: placed.y + y });
    for (const [id, points] of block.bends) bends.set(id, points.map((point) => ({ x: point.x + x, y: point.y + y })));
  }
  const routes = route(links, cut, boxes, bends);
  placeLabels(routes, links, boxes, sizes);
  return { w, h, close: sizes === CLOSE, narrow: sizes.stacked, boxes, routes, sections, frames: frames(model, boxes, sizes) };
}

interface Drawn extends Packed {
  sizes: Sizes;
}

/** Draws a small picture so that it uses a window: first as large as can be, then as high as there is room. */
function drawFor(width: number, height: number, mayBeNarrow: boolean, draw: (sizes: Sizes) => Drawn): Drawn {
  const scale = ({ w, h }: Drawn): number => Math.min(1, width / Math.max(1, w), height / Math.max(1, h));
  let drawn = draw(WIDE);
  // Connectors of hubs need the wide gaps.
  if (mayBeNarrow && scale(drawn) < 1) {
    const narrow = draw(NARROW);
    if (scale(narrow) > scale(drawn) * NARROW_GAIN) drawn = narrow;
  }
  const { sizes, h } = drawn;
  const least = scale(drawn) * 0.999;
  // Some room is left: the window is known only about.
  const room = (0.94 * height) / scale(drawn);
  if (drawn.at.length < 1 || h >= room) return drawn;
  const spread = (by: number): Drawn =>
    draw({ ...sizes, rowGap: sizes.rowGap * by, blockGapY: sizes.blockGapY * by, sectionGap: sizes.sectionGap * by });
  const most = spread(SPREAD_MAX);
  if (most.h <= room) return scale(most) >= least ? most : drawn;
  const some = spread(1 + ((SPREAD_MAX - 1) * (room - h)) / (most.h - h));
  return some.h <= room + 1 && scale(some) >= least ? some : drawn;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The links to or from what has too many neighbours. */
function findHubs(ids: string[], links: Link[]): { hubs: Set<string>; cut: Map<string, "out" | "in"> } {
  const into = new Map<string, number>(ids.map((id) => [id, 0]));
  const outOf = new Map<string, number>(ids.map((id) => [id, 0]));
  for (const { from, to } of links) {
    into.set(to, (into.get(to) ?? 0) + 1);
    outOf.set(from, (outOf.get(from) ?? 0) + 1);
  }
  const cut = new Map<string, "out" | "in">();
  const hubs = new Set<string>();
  for (const { id, from, to } of links) {
    if ((into.get(to) ?? 0) > HUB_MIN) {
      cut.set(id, "out");
      hubs.add(to);
    } else if ((outOf.get(from) ?? 0) > HUB_MIN) {
      cut.set(id, "in");
      hubs.add(from);
    }
  }
  return { hubs, cut };
}

/** What hangs together by links or by a module. */
function findBlocks(ids: string[], links: Link[], byId: Map<string, Box>): string[][] {
  const parent = new Map(ids.map((id) => [id, id]));
  const find = (id: string): string => {
    let root = id;
    for (let up = parent.get(root); up !== undefined && up !== root; up = parent.get(root)) root = up;
    for (let at = id; at !== root; ) {
      const up = parent.get(at) ?? root;
      parent.set(at, root);
      at = up;
    }
    return root;
  };
  const join = (a: string, b: string): void => {
    const [x, y] = [find(a), find(b)];
    if (x !== y) parent.set(compare(x, y) < 0 ? y : x, compare(x, y) < 0 ? x : y);
  };
  for (const { from, to } of links) join(from, to);
  // A module is one block where it hangs together with nothing else.
  const ofRoot = new Map<string, Set<string>>();
  for (const id of ids) {
    const box = byId.get(id);
    const module = box === undefined || box.is === "module" ? "" : box.module;
    const root = find(id);
    const modules = ofRoot.get(root);
    if (modules === undefined) ofRoot.set(root, new Set([module]));
    else modules.add(module);
  }
  const firstOf = new Map<string, string>();
  for (const [root, modules] of [...ofRoot].sort(([a], [b]) => compare(a, b))) {
    const [module] = modules;
    if (modules.size !== 1 || module === undefined || module === "") continue;
    const first = firstOf.get(module);
    if (first === undefined) firstOf.set(module, root);
    else join(first, root);
  }
  const blocks = new Map<string, string[]>();
  for (const id of ids) {
    const root = find(id);
    const members = blocks.get(root);
    if (members === undefined) blocks.set(root, [id]);
    else members.push(id);
  }
  return [...blocks.values()];
}

interface Block {
  /** What it is sorted by. */
  name: string;
  group: Group;
  /** Whether it holds a hub: those stand at the sides. */
  side: "left" | "right" | null;
  w: number;
  h: number;
  at: Placed[];
  bends: Map<string, Point[]>;
}

/** A box, or the place in a rank that a long link passes. */
interface Cell {
  id: string;
  rank: number;
  h: number;
  y: number;
  ins: Cell[];
  outs: Cell[];
  order: number;
  group: number;
  module: string;
  real: boolean;
}

function layBlock(
  members: string[],
  inside: Link[],
  cut: Map<string, "out" | "in">,
  stubs: Link[],
  byId: Map<string, Box>,
  hubs: Set<string>,
  sizes: Sizes,
): Block {
  const own = new Set(members);
  const ranks = rankOf(members, inside);
  const cells = new Map<string, Cell>();
  for (const id of members) {
    const box = byId.get(id);
    cells.set(id, {
      id, rank: ranks.get(id) ?? 0, h: sizes.boxH, y: 0, ins: [], outs: [], order: 0,
      group: box === undefined ? 0 : GROUPS.indexOf(box.group), module: box?.module ?? "", real: true,
    });
  }
  // A link over several ranks passes a thin cell in each, so that boxes make room for it.
  const passes = new Map<string, Cell[]>();
  for (const { id, from, to } of inside) {
    let [a, b] = [cells.get(from), cells.get(to)];
    if (a === undefined || b === undefined) continue;
    const back = a.rank > b.rank;
    if (back) [a, b] = [b, a];
    const way: Cell[] = [];
    let last = a;
    for (let rank = a.rank + 1; rank < b.rank; rank++) {
      const cell: Cell = { id: `${id}@${rank}`, rank, h: 10, y: 0, ins: [last], outs: [], order: 0, group: a.group, module: a.module === b.module ? a.module : "", real: false };
      last.outs.push(cell);
      way.push(cell);
      last = cell;
    }
    if (a.rank === b.rank) continue;
    last.outs.push(b);
    b.ins.push(last);
    passes.set(id, back ? way.reverse() : way);
  }
  const layers: Cell[][] = [];
  const everything = [...cells.values(), ...[...passes.values()].flat()];
  for (const cell of everything) (layers[cell.rank] ??= []).push(cell);
  for (let i = 0; i < layers.length; i++) layers[i] ??= [];
  orderLayers(layers);
  placeRows(layers, sizes);

  const real = everything.filter((cell) => cell.real);
  // Connectors stick out at the sides.
  const lastRank = Math.max(0, layers.length - 1);
  let left = 0;
  let right = 0;
  for (const { id, from, to } of stubs) {
    const how = cut.get(id);
    if (how === "out" && own.has(from) && (ranks.get(from) ?? 0) === lastRank) right = sizes.stubW;
    if (how === "in" && own.has(to) && (ranks.get(to) ?? 0) === 0) left = sizes.stubW;
  }
  // A column after which items flow needs room for their rates.
  const flows = new Set<number>();
  for (const { from, to, kinds } of inside) {
    if (kinds.every((kind) => kind === "target")) continue;
    const [a, b] = [ranks.get(from) ?? 0, ranks.get(to) ?? 0];
    for (let rank = Math.min(a, b); rank < Math.max(a, b); rank++) flows.add(rank);
  }
  for (const { id, from } of stubs) if (cut.get(id) === "out" && own.has(from)) flows.add(ranks.get(from) ?? 0);
  for (const { id, to } of stubs) if (cut.get(id) === "in" && own.has(to)) flows.add((ranks.get(to) ?? 0) - 1);
  const xs: number[] = [];
  for (let rank = 0, x = 0; rank < layers.length; rank++) {
    xs.push(x);
    x += sizes.boxW + (flows.has(rank) ? sizes.rankGap : sizes.targetGap);
  }
  const xOf = (rank: number): number => xs[rank] ?? 0;
  const top = Math.min(...everything.map((cell) => cell.y - cell.h / 2));
  const bottom = Math.max(...everything.map((cell) => cell.y + cell.h / 2));
  const modules = new Set(real.map((cell) => cell.module).filter((module) => module !== ""));
  // Frames of modules need room around.
  const pad = modules.size > 0 ? FRAME_PAD : 0;
  const head = modules.size > 0 ? sizes.frameHead : 0;
  const bends = new Map<string, Point[]>();
  for (const [id, way] of passes) {
    bends.set(
      id,
      way.flatMap((cell) => {
        const x = pad + left + xOf(cell.rank);
        const y = cell.y - top + pad + head;
        const ends: Point[] = [{ x, y }, { x: x + sizes.boxW, y }];
        return ranksFall(way) ? ends.reverse() : ends;
      }),
    );
  }
  const groups = new Set(real.map((cell) => cell.group));
  const flowing = [...groups].map((i) => GROUPS[i]).filter((group): group is Group => group !== undefined && group !== "targets" && group !== "values");
  const only = [...groups].map((i) => GROUPS[i])[0] ?? "values";
  const hub = members.find((id) => hubs.has(id));
  const isSource = hub !== undefined && stubs.some(({ id, from }) => from === hub && cut.get(id) === "in");
  const module = real.map((cell) => cell.module).sort(compare)[0] ?? "";
  const linked = inside.length > 0 || stubs.length > 0;
  return {
    name: [module, real.map(({ id }) => byId.get(id)?.node?.label ?? "").sort(compare)[0] ?? "", members[0] ?? ""].join("\u0000"),
    group: flowing.length === 1 ? (flowing[0] ?? only) : flowing.length > 1 ? "mixed" : groups.size > 1 && linked ? "targets" : only,
    side: hub === undefined ? null : isSource ? "left" : "right",
    w: left + right + xOf(lastRank) + sizes.boxW + 2 * pad,
    h: bottom - top + 2 * pad + head,
    at: real.map((cell) => ({ id: cell.id, x: pad + left + xOf(cell.rank), y: cell.y - cell.h / 2 - top + pad + head, w: sizes.boxW, h: sizes.boxH, rank: cell.rank })),
    bends,
  };
}

function ranksFall(way: Cell[]): boolean {
  const [a, b] = [way[0], way.at(-1)];
  return a !== undefined && b !== undefined && a.rank > b.rank;
}

/**
 * The rank of each: as near to what it sends to as can be, so that all sinks stand at the right. Links that would
 * close a circle count the other way round.
 */
function rankOf(members: string[], links: Link[]): Map<string, number> {
  const outs = new Map<string, string[]>(members.map((id) => [id, []]));
  const hasIn = new Set<string>();
  for (const { from, to } of links) {
    outs.get(from)?.push(to);
    hasIn.add(to);
  }
  for (const list of outs.values()) list.sort(compare);
  /** The longest way to a sink. */
  const height = new Map<string, number>();
  const active = new Set<string>();
  // Without recursion: a chain may be long. Sources come first, so that a circle is cut where it is entered.
  const starts = [...members.filter((id) => !hasIn.has(id)), ...members];
  for (const start of starts) {
    if (height.has(start)) continue;
    const stack: { id: string; next: number; best: number }[] = [{ id: start, next: 0, best: 0 }];
    active.add(start);
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      if (top === undefined) break;
      const to = outs.get(top.id)?.[top.next];
      if (to !== undefined) {
        const known = height.get(to);
        if (active.has(to)) top.next += 1;
        else if (known !== undefined) {
          top.best = Math.max(top.best, known + 1);
          top.next += 1;
        } else {
          active.add(to);
          stack.push({ id: to, next: 0, best: 0 });
        }
        continue;
      }
      height.set(top.id, top.best);
      active.delete(top.id);
      stack.pop();
    }
  }
  const deepest = Math.max(0, ...height.values());
  return new Map(members.map((id) => [id, deepest - (height.get(id) ?? 0)]));
}

function orderLayers(layers: Cell[][]): void {
  // First by what belongs together, so that ties stay that way.
  for (const layer of layers) {
    layer.sort((a, b) => a.group - b.group || compare(a.module, b.module) || compare(a.id, b.id));
    layer.forEach((cell, i) => (cell.order = i));
  }
  let best = layers.map((layer) => [...layer]);
  let least = crossings(layers);
  for (let sweep = 0; sweep < SWEEPS && least > 0; sweep++) {
    const down = sweep % 2 === 0;
    const from = down ? 1 : layers.length - 2;
    for (let i = from; i >= 0 && i < layers.length; i += down ? 1 : -1) {
      const layer = layers[i];
      if (layer === undefined) continue;
      const centre = new Map<Cell, number>();
      for (const cell of layer) {
        const near = down ? cell.ins : cell.outs;
        centre.set(cell, near.length === 0 ? cell.order : near.reduce((sum, other) => sum + other.order, 0) / near.length);
      }
      layer.sort((a, b) => (centre.get(a) ?? 0) - (centre.get(b) ?? 0) || a.order - b.order);
      layer.forEach((cell, i) => (cell.order = i));
    }
    const now = crossings(layers);
    if (now < least) {
      least = now;
      best = layers.map((layer) => [...layer]);
    }
  }
  best.forEach((layer, i) => {
    layers[i] = layer;
    layer.forEach((cell, order) => (cell.order = order));
  });
}

/** How many pairs of links cross, counted with a tree of sums. */
function crossings(layers: Cell[][]): number {
  let total = 0;
  for (let i = 0; i + 1 < layers.length; i++) {
    const next = layers[i + 1]?.length ?? 0;
    const sums = new Array<number>(next + 1).fill(0);
    let seen = 0;
    for (const cell of layers[i] ?? []) {
      const targets = cell.outs.map((other) => other.order).sort((a, b) => a - b);
      for (const target of targets) {
        let upTo = 0;
        for (let at = target + 1; at > 0; at -= at & -at) upTo += sums[at] ?? 0;
        total += seen - upTo;
      }
      for (const target of targets) {
        seen += 1;
        for (let at = target + 1; at <= next; at += at & -at) sums[at] = (sums[at] ?? 0) + 1;
      }
    }
  }
  return total;
}

function placeRows(layers: Cell[][], { rowGap }: Sizes): void {
  for (const layer of layers) {
    let y = 0;
    for (const cell of layer) {
      cell.y = y + cell.h / 2;
      y += cell.h + rowGap;
    }
  }
  // The rank with the most is the measure; the others follow it, there and back.
  for (let pass = 0; pass < 6; pass++) {
    const down = pass % 2 === 1;
    for (let k = 0; k < layers.length; k++) {
      const layer = layers[down ? k : layers.length - 1 - k];
      if (layer === undefined) continue;
      const wish = layer.map((cell) => {
        const near = pass < 2 ? (down ? cell.ins : cell.outs) : [...cell.ins, ...cell.outs];
        return near.length === 0 ? cell.y : near.reduce((sum, other) => sum + other.y, 0) / near.length;
      });
      // What nothing pulls gives way, and what a long link passes stays straight.
      const weight = layer.map((cell) => (cell.ins.length + cell.outs.length === 0 ? 0.1 : cell.real ? 1 : 4));
      const apart = layer.map((cell, i) => {
        const before = layer[i - 1];
        return before === undefined ? 0 : (before.h + cell.h) / 2 + rowGap;
      });
      const ys = nearest(wish, apart, weight);
      layer.forEach((cell, i) => (cell.y = ys[i] ?? 0));
    }
  }
}

/**
 * The places nearest to what is wished for, in the same order and at least `apart[i]` after the one before. Least
 * squares: neighbours that would overlap are pooled.
 */
export function nearest(wish: number[], apart: number[], weight: number[]): number[] {
  const offset: number[] = [];
  let sum = 0;
  for (const gap of apart) offset.push((sum += gap));
  const pools: { mean: number; weight: number; size: number }[] = [];
  wish.forEach((y, i) => {
    let pool = { mean: y - (offset[i] ?? 0), weight: weight[i] ?? 1, size: 1 };
    for (let last = pools.at(-1); last !== undefined && last.mean > pool.mean; last = pools.at(-1)) {
      pools.pop();
      const both = last.weight + pool.weight;
      pool = { mean: (last.mean * last.weight + pool.mean * pool.weight) / both, weight: both, size: last.size + pool.size };
    }
    pools.push(pool);
  });
  const result: number[] = [];
  for (const pool of pools) for (let k = 0; k < pool.size; k++) result.push(pool.mean + (offset[result.length] ?? 0));
  return result;
}

interface Columns {
  w: number;
  h: number;
  at: { block: Block; x: number; y: number }[];
}

/** Puts blocks below one another, in as many columns as fit. */
function columns(blocks: Block[], width: number, { blockGapX, blockGapY }: Sizes): Columns {
  const cell = Math.max(0, ...blocks.map((block) => block.w));
  const count = Math.max(1, Math.min(blocks.length, Math.floor((width + blockGapX) / (cell + blockGapX))));
  const total = blocks.reduce((sum, block) => sum + block.h + blockGapY, 0);
  const at: Columns["at"] = [];
  let x = 0;
  let w = 0;
  let h = 0;
  let next = 0;
  let left = total;
  // In reading order, column by column, each as high as its share.
  for (let column = 0; column < count && next < blocks.length; column++) {
    const share = left / (count - column);
    let y = 0;
    let widest = 0;
    while (next < blocks.length) {
      const block = blocks[next];
      if (block === undefined) break;
      const rest = blocks.length - next;
      const high = block.h + blockGapY;
      if (y > 0 && column < count - 1 && (y + high / 2 > share || rest <= count - column - 1)) break;
      at.push({ block, x, y });
      y += high;
      widest = Math.max(widest, block.w);
      next += 1;
    }
    left -= y;
    h = Math.max(h, y - blockGapY);
    w = x + widest;
    x += widest + blockGapX;
  }
  return { w, h: Math.max(0, h), at };
}

interface Packed {
  w: number;
  h: number;
  at: { block: Block; x: number; y: number }[];
  sections: Section[];
}

function packInto(groups: [Group, Block[]][], width: number, sizes: Sizes): Packed {
  const { blockGapX, sectionGap, sectionHead } = sizes;
  const at: Packed["at"] = [];
  const sections: Section[] = [];
  let y = MARGIN;
  let w = 0;
  for (const [group, blocks] of groups) {
    const left = columns(blocks.filter(({ side }) => side === "left"), 0, sizes);
    const right = columns(blocks.filter(({ side }) => side === "right"), 0, sizes);
    const sides = (left.at.length > 0 ? left.w + blockGapX : 0) + (right.at.length > 0 ? right.w + blockGapX : 0);
    const middle = columns(blocks.filter(({ side }) => side === null), Math.max(0, width - sides), sizes);
    const h = Math.max(left.h, middle.h, right.h);
    const top = y + sectionHead;
    let x = MARGIN;
    for (const part of [left, middle, right]) {
      if (part.at.length === 0) continue;
      // A few hubs beside many pipelines stand in their middle.
      const down = part === middle ? 0 : Math.min((h - part.h) / 2, 400);
      for (const { block, x: dx, y: dy } of part.at) at.push({ block, x: x + dx, y: top + down + dy });
      x += part.w + blockGapX;
    }
    const right_ = x - blockGapX;
    sections.push({ group, x: MARGIN, y, w: right_ - MARGIN, h: sectionHead + h, boxes: blocks.reduce((sum, block) => sum + block.at.length, 0) });
    w = Math.max(w, right_);
    y = top + h + sectionGap;
  }
  return { w: w + MARGIN, h: Math.max(0, y - sizes.sectionGap + MARGIN), at, sections };
}

function pack(blocks: Block[], aspect: number, sizes: Sizes): Packed {
  blocks.sort((a, b) => naturally(a.name, b.name));
  const groups: [Group, Block[]][] = [];
  for (const group of GROUPS) {
    const own = blocks.filter((block) => block.group === group);
    if (own.length > 0) groups.push([group, own]);
  }
  // The width that lets the whole be shown the largest.
  let best: Packed | null = null;
  let scale = -1;
  const widest = Math.max(sizes.boxW, ...blocks.map((block) => block.w));
  for (let width = widest; width <= Math.max(widest, 24_000); width += 160) {
    const packed = packInto(groups, width, sizes);
    const fits = Math.min(aspect / Math.max(1, packed.w), 1 / Math.max(1, packed.h));
    if (fits > scale * 1.001) {
      scale = fits;
      best = packed;
    }
    // Wider than the window is, it becomes no larger again.
    if (packed.w > 1.3 * aspect * packed.h) break;
  }
  if (best === null || blocks.length === 0) return { w: 0, h: 0, at: [], sections: [] };
  for (const section of best.sections) section.w = best.w - 2 * MARGIN;
  return best;
}

/** Gives each link its way, and its own place at the sides of the boxes. */
function route(links: Link[], cut: Map<string, "out" | "in">, boxes: Map<string, Placed>, bends: Map<string, Point[]>): Map<string, Route> {
  const sides = new Map<string, { link: Link; at: "from" | "to"; other: number }[]>();
  for (const link of links) {
    const [a, b] = [boxes.get(link.from), boxes.get(link.to)];
    if (a === undefined || b === undefined) continue;
    const way = bends.get(link.id) ?? [];
    const first = way[0];
    const last = way.at(-1);
    const put = (side: string, at: "from" | "to", other: number): void => {
      const list = sides.get(side);
      if (list === undefined) sides.set(side, [{ link, at, other }]);
      else list.push({ link, at, other });
    };
    put(`${link.from}>`, "from", first?.y ?? b.y);
    put(`>${link.to}`, "to", last?.y ?? a.y);
  }
  const ports = new Map<string, number>();
  for (const [side, list] of sides) {
    const box = boxes.get(side.startsWith(">") ? side.slice(1) : side.slice(0, -1));
    if (box === undefined) continue;
    list.sort((x, y) => x.other - y.other || compare(x.link.id, y.link.id));
    const gap = Math.min(LABEL_H + 1, (box.h - 14) / Math.max(1, list.length - 1));
    list.forEach(({ link, at }, i) => ports.set(`${at} ${link.id}`, box.y + box.h / 2 + (i - (list.length - 1) / 2) * gap));
  }
  const routes = new Map<string, Route>();
  for (const link of links) {
    const [a, b] = [boxes.get(link.from), boxes.get(link.to)];
    if (a === undefined || b === undefined) continue;
    const start = { x: a.x + a.w, y: ports.get(`from ${link.id}`) ?? a.y };
    const end = { x: b.x, y: ports.get(`to ${link.id}`) ?? b.y };
    routes.set(link.id, { id: link.id, points: [start, ...(bends.get(link.id) ?? []), end], stub: cut.get(link.id) ?? null, label: null, tall: false });
  }
  return routes;
}

/** The path of a route for SVG: curves between its points. `stub` gives only the connector. */
export function pathOf({ points, stub }: Pick<Route, "points" | "stub">, whole = true): string {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) return "";
  if (stub !== null && !whole) {
    return stub === "out" ? `M${n(first.x)} ${n(first.y)}h16` : `M${n(last.x - 16)} ${n(last.y)}h16`;
  }
  let path = `M${n(first.x)} ${n(first.y)}`;
  for (let i = 1; i < points.length; i++) {
    const [a, b] = [points[i - 1], points[i]];
    if (a === undefined || b === undefined) continue;
    if (a.y === b.y && b.x > a.x) path += `H${n(b.x)}`;
    else {
      // Against the stream the curve goes out to the side first.
      const bow = b.x > a.x ? Math.min((b.x - a.x) / 2, 160) : Math.min(240, 60 + (a.x - b.x) / 4);
      path += `C${n(a.x + bow)} ${n(a.y)} ${n(b.x - bow)} ${n(b.y)} ${n(b.x)} ${n(b.y)}`;
    }
  }
  return path;
}

function n(value: number): number {
  return Math.round(value * 10) / 10;
}

/** The point of a route's first or last curve at `t`. */
function pointAt(a: Point, b: Point, t: number): Point {
  const bow = Math.min((b.x - a.x) / 2, 160);
  const u = 1 - t;
  const mix = (p0: number, p1: number, p2: number, p3: number): number => u * u * u * p0 + 3 * u * u * t * p1 + 3 * u * t * t * p2 + t * t * t * p3;
  return { x: mix(a.x, a.x + bow, b.x - bow, b.x), y: mix(a.y, a.y, b.y, b.y) };
}

/** Finds for each label a place on its link that covers no other label and no box. */
function placeLabels(routes: Map<string, Route>, links: Link[], boxes: Map<string, Placed>, { stubW, labelW, targetLabelW, stacked }: Sizes): void {
  const taken = new Grid();
  for (const box of boxes.values()) taken.add(box.x, box.y, box.w, box.h);
  const outs = new Map<string, number>();
  const ins = new Map<string, number>();
  for (const { from, to } of links) {
    outs.set(from, (outs.get(from) ?? 0) + 1);
    ins.set(to, (ins.get(to) ?? 0) + 1);
  }
  for (const link of links) {
    const found = routes.get(link.id);
    if (found === undefined) continue;
    const wide = link.kinds.every((kind) => kind === "target") ? targetLabelW : labelW;
    const { points, stub } = found;
    const least = LABEL_H * Math.max(1, Math.min(3, link.kinds.length));
    const [first, second] = [points[0], points[1]];
    const [before, last] = [points.at(-2), points.at(-1)];
    if (first === undefined || second === undefined || before === undefined || last === undefined) continue;
    if (stub !== null) {
      // Beside the connector; where several leave one box they stand one below the other.
      const at = stub === "out" ? { x: first.x + 20 + (stubW - 24) / 2, y: first.y } : { x: last.x - 20 - (stubW - 24) / 2, y: last.y };
      taken.add(at.x - (stubW - 24) / 2, at.y - LABEL_H / 2, stubW - 24, LABEL_H);
      found.label = at;
      continue;
    }
    const atStart = [0.32, 0.42, 0.5].map((t) => pointAt(first, second, t));
    const atEnd = [0.68, 0.58, 0.5].map((t) => pointAt(before, last, t));
    const way = (outs.get(link.from) ?? 0) > (ins.get(link.to) ?? 0) ? [...atEnd, ...atStart] : [...atStart, ...atEnd];
    const middle = points.length === 2 ? [pointAt(first, second, 0.5)] : [];
    for (const h of stacked ? [2 * least, least] : [least]) {
      const at = [...middle, ...way].find((at) => taken.free(at.x - wide / 2, at.y - h / 2, wide, h));
      if (at === undefined) continue;
      taken.add(at.x - wide / 2, at.y - h / 2, wide, h);
      found.label = at;
      found.tall = h > least;
      break;
    }
  }
}

/** Rectangles that are taken. */
class Grid {
  static readonly CELL = 200;
  #cells = new Map<string, [number, number, number, number][]>();

  #each(x: number, y: number, w: number, h: number, use: (key: string) => boolean): boolean {
    for (let i = Math.floor(x / Grid.CELL); i <= Math.floor((x + w) / Grid.CELL); i++) {
      for (let j = Math.floor(y / Grid.CELL); j <= Math.floor((y + h) / Grid.CELL); j++) if (use(`${i} ${j}`)) return true;
    }
    return false;
  }

  add(x: number, y: number, w: number, h: number): void {
    this.#each(x, y, w, h, (key) => {
      const list = this.#cells.get(key);
      if (list === undefined) this.#cells.set(key, [[x, y, w, h]]);
      else list.push([x, y, w, h]);
      return false;
    });
  }

  free(x: number, y: number, w: number, h: number): boolean {
    return !this.#each(x, y, w, h, (key) =>
      (this.#cells.get(key) ?? []).some(([a, b, c, d]) => x < a + c && a < x + w && y < b + d && b < y + h),
    );
  }
}

/** A frame around the boxes of each module, where nothing else stands between them. */
function frames(model: Model, boxes: Map<string, Placed>, { frameHead }: Sizes): Frame[] {
  const byModule = new Map<string, Placed[]>();
  for (const box of model.boxes) {
    if (box.module === "" || box.is === "module") continue;
    const placed = boxes.get(box.id);
    if (placed === undefined) continue;
    const list = byModule.get(box.module);
    if (list === undefined) byModule.set(box.module, [placed]);
    else list.push(placed);
  }
  const found: Frame[] = [];
  for (const [module, own] of byModule) {
    const x = Math.min(...own.map((box) => box.x)) - FRAME_PAD;
    const y = Math.min(...own.map((box) => box.y)) - FRAME_PAD - frameHead + 4;
    const w = Math.max(...own.map((box) => box.x + box.w)) + FRAME_PAD - x;
    const h = Math.max(...own.map((box) => box.y + box.h)) + FRAME_PAD - y;
    const inside = new Set(own.map((box) => box.id));
    const clean = [...boxes.values()].every((box) => inside.has(box.id) || box.x >= x + w || box.x + box.w <= x || box.y >= y + h || box.y + box.h <= y);
    if (clean) found.push({ module, x, y, w, h });
  }
  return found;
}
