/**
 * The picture of the pipeline: boxes are buttons, links are one SVG, and one transform moves all of it. Preact makes
 * the elements when the graph changes; the figures of each second are written into them without rendering, and only
 * where they can be read.
 */
import { effect } from "@preact/signals";
import type { Ref } from "preact";
import { memo } from "preact/compat";
import { useEffect, useImperativeHandle, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { HealthState } from "../api/types";
import { drops, health, isEarly, tick } from "../live/store";
import { byteRate, bytes, count, duration, rate } from "../parts/format";
import { healthRank } from "../parts/health";
import { itemsOf, kindClass } from "../parts/kinds";
import { type Camera, centre, detailOf, fit, FOOT, keepInView, zoomAt } from "./camera";
import { dropsByComponent, endOf, isLate, linkRates } from "./figures";
import type { Highlight } from "./highlight";
import { type Layout, type Placed, type Route, pathOf } from "./layout";
import { GROUP_NAMES, type Box, type Link, type Model } from "./model";

export interface GraphHandle {
  fit(): void;
  zoom(factor: number): void;
  /** Brings a box into view and gives it the focus. */
  show(id: string, focus?: boolean): void;
}

export interface GraphViewProps {
  model: Model;
  layout: Layout;
  /** Of the window, as it is when the picture is first drawn. */
  size: { width: number; height: number };
  selected: string | null;
  highlight: Highlight | null;
  /** What the search finds; all else is dimmed. */
  found: ReadonlySet<string> | null;
  onSelect(id: string | null): void;
  onOpen(id: string): void;
  onFold(module: string, folded: boolean): void;
  onHighlight(id: string): void;
  handle: Ref<GraphHandle>;
}

const STATES: HealthState[] = ["healthy", "unknown", "unhealthy", "exited"];

/** The health of a box now: of a module the worst that is in it. */
function stateOf(box: Box): HealthState {
  const of = (id: string, otherwise: HealthState): HealthState => health.peek().get(id)?.state ?? otherwise;
  if (box.is === "module") {
    let worst: HealthState = "healthy";
    for (const node of box.members) {
      const state = of(node.id, node.health.state);
      if (healthRank(state) < healthRank(worst)) worst = state;
    }
    return worst;
  }
  return box.node === null ? "unknown" : of(box.node.id, box.node.health.state);
}

/** Which texts are made: of a large picture no more than can be read at first. */
type Told = "nothing" | "names" | "all";

/** Smaller than this nothing can be read. */
const READ_MIN = 0.3;

/** After this long without a move the picture rests. */
const SETTLE_MS = 160;

/** What was seen last, so that who comes back from another page finds it again. */
let left: { camera: Camera; w: number; h: number } | null = null;

export const GraphView = memo(function GraphView(props: GraphViewProps) {
  const { model, layout, selected, highlight, found, onSelect, onOpen, onFold, onHighlight, handle } = props;
  const view = useRef<HTMLDivElement>(null);
  const world = useRef<HTMLDivElement>(null);
  const camera = useRef<Camera>({ x: 0, y: 0, k: 1 });
  const latest = useRef(props);
  latest.current = props;
  const moved = useRef(false);
  const frame = useRef(0);
  const settle = useRef(0);
  const painter = useRef<Painter | null>(null);
  const titles = useRef({ size: "" });
  const measured = useRef(props.size);
  const firstDetail = useRef<string | null>(null);
  firstDetail.current ??= detailOf(fit(layout.w, layout.h, props.size.width, props.size.height, FOOT).k);

  const apply = (next: Camera): void => {
    camera.current = next;
    const [outer, inner] = [view.current, world.current];
    if (outer === null || inner === null) return;
    inner.style.transform = `translate(${next.x}px, ${next.y}px) scale(${next.k})`;
    if (!outer.classList.contains("moving")) sharpen();
  };
  /** The part of the picture that is in the window, and half a window around. */
  const seen = (): { x: number; y: number; w: number; h: number } => {
    const { width, height } = size();
    const { x, y, k } = camera.current;
    return { x: (-x - width / 2) / k, y: (-y - height / 2) / k, w: (2 * width) / k, h: (2 * height) / k };
  };
  /** Tells as much as can be read now. It takes a while where there are many boxes, so it waits until nothing moves. */
  const sharpen = (): void => {
    const [outer, inner] = [view.current, world.current];
    if (outer === null || inner === null) return;
    const { k } = camera.current;
    const detail = detailOf(k);
    const other = outer.dataset.detail !== detail;
    if (other) outer.dataset.detail = detail;
    if (painter.current?.cull(seen()) === true || other) painter.current?.paint();
    // Titles of sections keep their size in the window.
    const title = `${Math.round(Math.min(layout.close ? 60 : 32, Math.max(17, 15 / k)))}px`;
    if (titles.current.size !== title) {
      titles.current.size = title;
      for (const element of inner.querySelectorAll<HTMLElement>(".graph-section > h2")) element.style.fontSize = title;
    }
  };
  /** While it moves the browser moves what it has drawn; when it rests all is drawn sharp. */
  const moving = (): void => {
    view.current?.classList.add("moving");
    window.clearTimeout(settle.current);
    settle.current = window.setTimeout(() => {
      view.current?.classList.remove("moving");
      sharpen();
    }, SETTLE_MS);
  };
  // Asking the element would have all of it laid out first.
  const size = (): { width: number; height: number } => measured.current;
  const move = (next: Camera): void => {
    const { width, height } = size();
    moving();
    apply(keepInView(next, layout.w, layout.h, width, height));
  };
  const glide = (to: Camera): void => {
    cancelAnimationFrame(frame.current);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return apply(to);
    const from = camera.current;
    const began = performance.now();
    const step = (now: number): void => {
      const t = Math.min(1, (now - began) / 220);
      const e = 1 - (1 - t) ** 3;
      moving();
      apply({ x: from.x + (to.x - from.x) * e, y: from.y + (to.y - from.y) * e, k: from.k + (to.k - from.k) * e });
      if (t < 1) frame.current = requestAnimationFrame(step);
    };
    frame.current = requestAnimationFrame(step);
  };
  const fitted = (): Camera => {
    const { width, height } = size();
    return fit(layout.w, layout.h, width, height, FOOT);
  };
  const show = (id: string, focus = true): void => {
    const box = layout.boxes.get(id);
    if (box === undefined) return;
    const { width, height } = size();
    const now = camera.current;
    const [x, y] = [box.x * now.k + now.x, box.y * now.k + now.y];
    const seen = x > 8 && y > 8 && x + box.w * now.k < width - 8 && y + box.h * now.k < height - 8;
    moved.current = true;
    if (!seen || now.k < READ_MIN) glide(centre(box, Math.max(now.k, 0.85), width, height));
    if (focus) elementOf(view.current, id)?.focus({ preventScroll: true });
  };
  useImperativeHandle(
    handle,
    () => ({
      fit: () => {
        moved.current = false;
        glide(fitted());
      },
      zoom: (factor) => {
        const { width, height } = size();
        moved.current = true;
        glide(zoomAt(camera.current, factor, width / 2, height / 2));
      },
      show,
    }),
    [layout],
  );

  // A new picture is fitted, unless the user has chosen a view.
  useLayoutEffect(() => {
    titles.current.size = "";
    if (left !== null && left.w === layout.w && left.h === layout.h) {
      camera.current = left.camera;
      moved.current = true;
    }
    left = null;
    apply(moved.current ? camera.current : fitted());
    const outer = view.current;
    if (outer === null) return;
    const observer = new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = outer;
      if (width === measured.current.width && height === measured.current.height) return;
      measured.current = { width, height };
      if (!moved.current) apply(fitted());
    });
    observer.observe(outer);
    return () => {
      observer.disconnect();
      left = moved.current ? { camera: camera.current, w: layout.w, h: layout.h } : null;
      cancelAnimationFrame(frame.current);
      window.clearTimeout(settle.current);
      outer.classList.remove("moving");
    };
  }, [layout]);

  // From afar no text is seen, so the first picture is made without, and the texts when there is time.
  const [told, setTold] = useState<Told>(firstDetail.current === "far" ? "nothing" : firstDetail.current === "low" ? "names" : "all");
  useEffect(() => {
    if (told === "all") return;
    const idle = window.requestIdleCallback ?? ((then: () => void) => window.setTimeout(then, 300));
    const handle = idle(() => setTold("all"), { timeout: 1500 });
    return () => (window.cancelIdleCallback ?? window.clearTimeout)(handle);
  }, [told]);

  // The figures.
  useLayoutEffect(() => {
    const outer = view.current;
    if (outer === null) return;
    const own = new Painter(outer, model, layout);
    own.cull(seen());
    painter.current = own;
    const stop = effect(() => {
      void tick.value;
      void health.value;
      void drops.value;
      own.paint();
    });
    return () => {
      stop();
      painter.current = null;
    };
  }, [model, layout, told]);

  useLayoutEffect(() => painter.current?.mark(highlight, found, selected), [model, layout, told, highlight, found, selected]);

  usePointer(view, camera, move, moved, onSelect);

  const key = (event: KeyboardEvent): void => {
    if (event.metaKey || event.ctrlKey || event.altKey) return;
    const at = event.target instanceof HTMLElement ? (event.target.dataset.box ?? null) : null;
    const take = (): void => {
      event.preventDefault();
      event.stopPropagation();
    };
    const go = (id: string | null): void => {
      take();
      if (id === null) return;
      latest.current.onSelect(id);
      show(id);
    };
    switch (event.key) {
      case "ArrowRight":
      case "ArrowLeft":
        return go(at === null ? first(layout) : along(model, layout, at, event.key === "ArrowRight"));
      case "ArrowDown":
      case "ArrowUp":
        return go(at === null ? first(layout) : beside(layout, at, event.key === "ArrowDown"));
      case "Enter":
        if (at !== null) {
          take();
          onOpen(at);
        }
        return;
      case "h":
        if (at !== null) {
          take();
          onHighlight(at);
        }
        return;
    }
  };

  const order = useMemo(() => inReadingOrder(model, layout), [model, layout]);
  const stop = selected !== null && layout.boxes.has(selected) ? selected : (order[0]?.id ?? null);
  return (
    <div class={`graph${layout.close ? " close" : layout.narrow ? " narrow" : ""}`} ref={view} data-detail={firstDetail.current} onKeyDown={key} role="group" aria-label="Pipeline: arrow keys go along the data, Enter opens">
      <div class="world" ref={world}>
        <Still model={model} layout={layout} told={told} onFold={onFold} />
        <div class="boxes">
          {order.map((box) => (
            <BoxButton key={box.id} box={box} placed={layout.boxes.get(box.id)} tab={box.id === stop} told={told} onSelect={onSelect} onOpen={onOpen} />
          ))}
        </div>
      </div>
      {/* While it moves nothing is looked up below the pointer. */}
      <div class="shield" />
    </div>
  );
});

/** What does not change until the graph does: sections, frames, links and their labels. */
const Still = memo(function Still({ model, layout, told, onFold }: { model: Model; layout: Layout; told: Told; onFold: GraphViewProps["onFold"] }) {
  const names = new Map(model.boxes.map((box) => [box.id, box]));
  return (
    <>
      {layout.sections.map((section) => (
        <div key={section.group} class="graph-section" style={{ left: section.x, top: section.y, width: section.w, height: section.h }}>
          <h2>
            {GROUP_NAMES[section.group]} <span>{section.boxes}</span>
          </h2>
        </div>
      ))}
      {layout.frames.map((frame) => (
        <div key={frame.module} class="graph-frame" style={{ left: frame.x, top: frame.y, width: frame.w, height: frame.h }}>
          <button type="button" tabIndex={-1} onClick={() => onFold(frame.module, true)} title="Fold this module">
            <span aria-hidden="true">▾</span> {frame.module}
          </button>
        </div>
      ))}
      <svg class="links" width={layout.w} height={layout.h} aria-hidden="true">
        {model.links.map((link) => {
          const route = layout.routes.get(link.id);
          return route === undefined ? null : <LinkPath key={link.id} link={link} route={route} />;
        })}
      </svg>
      <div class="link-labels" aria-hidden="true">
        {told === "all" && model.links.map((link) => {
          const route = layout.routes.get(link.id);
          if (route === undefined || route.label === null) return null;
          const other = names.get(route.stub === "in" ? link.from : link.to);
          return (
            <div key={link.id} class={`link-label${route.stub !== null ? ` stub stub-${route.stub}` : route.tall ? " tall" : ""}`} data-label={link.id} style={{ left: route.label.x, top: route.label.y }}>
              {link.kinds.slice(0, 3).map((kind) => (
                <span key={kind} class={kindClass(kind)}>
                  {route.stub !== null && <b>{route.stub === "out" ? `→ ${shortOf(other)}` : `${shortOf(other)} →`}</b>}
                  <span class="items" />
                  <span class="size" />
                </span>
              ))}
            </div>
          );
        })}
      </div>
    </>
  );
});

function LinkPath({ link, route }: { link: Link; route: Route }) {
  const spread = link.kinds.slice(0, 3);
  return (
    <g data-link={link.id} class={route.stub === null ? undefined : "stub"}>
      {spread.map((kind, i) => (
        <path key={kind} class={kindClass(kind)} d={pathOf(route, false)} transform={spread.length > 1 ? `translate(0 ${(i - (spread.length - 1) / 2) * 4})` : undefined} />
      ))}
    </g>
  );
}

function shortOf(box: Box | undefined): string {
  if (box === undefined) return "";
  if (box.is === "module") return box.module;
  return box.end?.name ?? (box.node?.label || box.node?.name || "");
}

interface BoxButtonProps {
  box: Box;
  placed: Placed | undefined;
  tab: boolean;
  /** Whether its texts are there. */
  told: Told;
  onSelect(id: string): void;
  onOpen(id: string): void;
}

const BoxButton = memo(function BoxButton({ box, placed, tab, told, onSelect, onOpen }: BoxButtonProps) {
  if (placed === undefined) return null;
  const { node, end } = box;
  const title = box.is === "module" ? "module" : end !== null ? endName(end).title : (node?.name ?? "");
  const name = box.is === "module" ? box.module : end !== null ? endName(end).name : node?.label || "";
  return (
    <button
      type="button"
      class={`graph-box box-${box.is}`}
      data-box={box.id}
      tabIndex={tab ? 0 : -1}
      title={box.id}
      style={{ left: placed.x, top: placed.y, width: placed.w, height: placed.h }}
      onClick={() => onSelect(box.id)}
      onDblClick={() => onOpen(box.id)}
    >
      {told === "all" && (
        <>
          <span class="box-title">{title}</span>
          <span class="box-short">{node !== null && end === null ? shortName(node.name) : title}</span>
        </>
      )}
      {told !== "nothing" && <span class="box-name">{name === "" ? title : name}</span>}
      {told === "all" && (
        <>
          <span class="box-sign" />
          <span class="visually-hidden box-told" />
          <span class="box-note" />
        </>
      )}
    </button>
  );
}, (a, b) => a.box === b.box && a.placed === b.placed && a.tab === b.tab && a.told === b.told);

/** What a reader without sight is told of a box first. */
function labelOf(box: Box): string {
  if (box.is === "module") return `module ${box.module}, ${box.members.length} components`;
  if (box.end !== null) return `${box.end.name} of ${box.node?.id ?? ""}`;
  return box.id;
}

/** Without the family, which the section tells: `source.file` of `loki.source.file`. */
export function shortName(name: string): string {
  const dot = name.indexOf(".");
  return dot < 0 ? name : name.slice(dot + 1);
}

/**
 * What an end is called: a name that the user did not give (six digits of a hash, as the reference makes them) says
 * nothing, its host does.
 */
export function endName({ name, url }: { name: string; url: string }): { name: string; title: string } {
  const host = hostOf(url);
  const own = name.replace(/^name:/, "");
  if (/^[0-9a-f]{6}$/.test(own)) return { name: host, title: `endpoint ${own}` };
  if (own === url) return { name: host, title: "endpoint" };
  return { name: own, title: host === "" || own.startsWith(host) ? "endpoint" : host };
}

export function hostOf(url: string): string {
  try {
    return new URL(url).host || url;
  } catch {
    return url;
  }
}

function elementOf(view: HTMLElement | null, id: string): HTMLElement | null {
  return view?.querySelector<HTMLElement>(`[data-box="${CSS.escape(id)}"]`) ?? null;
}

/** By section, rank and height: the order in which Tab and a screen reader go. */
function inReadingOrder(model: Model, layout: Layout): Box[] {
  const section = (box: Placed | undefined): number =>
    box === undefined ? 0 : layout.sections.findIndex(({ y, h }) => box.y >= y && box.y < y + h);
  return model.boxes
    .map((box) => ({ box, at: layout.boxes.get(box.id) }))
    .map(({ box, at }) => ({ box, at, section: section(at) }))
    .sort((a, b) => a.section - b.section || (a.at?.rank ?? 0) - (b.at?.rank ?? 0) || (a.at?.y ?? 0) - (b.at?.y ?? 0) || (a.at?.x ?? 0) - (b.at?.x ?? 0))
    .map(({ box }) => box);
}

function first(layout: Layout): string | null {
  let best: Placed | null = null;
  for (const box of layout.boxes.values()) if (best === null || box.y < best.y || (box.y === best.y && box.x < best.x)) best = box;
  return best?.id ?? null;
}

/** The nearest box that the data goes to, or comes from. */
export function along(model: Model, layout: Layout, id: string, down: boolean): string | null {
  const from = layout.boxes.get(id);
  if (from === undefined) return null;
  let best: { id: string; far: number } | null = null;
  for (const link of model.links) {
    if ((down ? link.from : link.to) !== id) continue;
    const to = layout.boxes.get(down ? link.to : link.from);
    if (to === undefined) continue;
    const far = Math.abs(to.y - from.y);
    if (best === null || far < best.far) best = { id: to.id, far };
  }
  return best?.id ?? null;
}

/** The nearest box above or below, in the same column if there is one. */
export function beside(layout: Layout, id: string, down: boolean): string | null {
  const from = layout.boxes.get(id);
  if (from === undefined) return null;
  let best: { id: string; far: number } | null = null;
  for (const box of layout.boxes.values()) {
    const dy = down ? box.y - from.y : from.y - box.y;
    if (dy <= 1) continue;
    const far = dy + 4 * Math.abs(box.x - from.x);
    if (best === null || far < best.far) best = { id: box.id, far };
  }
  return best?.id ?? null;
}

/** Pan, pinch and wheel. */
function usePointer(
  view: { current: HTMLDivElement | null },
  camera: { current: Camera },
  move: (next: Camera) => void,
  moved: { current: boolean },
  onSelect: (id: string | null) => void,
): void {
  const latest = useRef({ move, onSelect });
  latest.current = { move, onSelect };
  useEffect(() => {
    const outer = view.current;
    if (outer === null) return;
    const pointers = new Map<number, { x: number; y: number }>();
    let dragged = false;
    let began = { x: 0, y: 0 };
    let pending: Camera | null = null;
    let frame = 0;
    // More events than frames come: only the last counts.
    const later = (next: Camera): void => {
      pending = next;
      moved.current = true;
      if (frame !== 0) return;
      frame = requestAnimationFrame(() => {
        frame = 0;
        if (pending !== null) latest.current.move(pending);
        pending = null;
      });
    };
    const now = (): Camera => pending ?? camera.current;
    const wheel = (event: WheelEvent): void => {
      event.preventDefault();
      const unit = event.deltaMode === 1 ? 18 : event.deltaMode === 2 ? 400 : 1;
      const box = outer.getBoundingClientRect();
      if (event.shiftKey || (!event.ctrlKey && event.deltaX !== 0)) {
        const { x, y, k } = now();
        const [dx, dy] = event.shiftKey && event.deltaX === 0 ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
        later({ k, x: x - dx * unit, y: y - dy * unit });
        return;
      }
      const power = event.ctrlKey ? 0.01 : 0.0016;
      const factor = Math.exp(-Math.max(-240, Math.min(240, event.deltaY * unit)) * power);
      later(zoomAt(now(), factor, event.clientX - box.left, event.clientY - box.top));
    };
    const down = (event: PointerEvent): void => {
      if (event.pointerType === "mouse" && event.button !== 0 && event.button !== 1) return;
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (pointers.size === 1) {
        dragged = false;
        began = { x: event.clientX, y: event.clientY };
      }
    };
    const drag = (event: PointerEvent): void => {
      const old = pointers.get(event.pointerId);
      if (old === undefined) return;
      if (!dragged && Math.hypot(event.clientX - began.x, event.clientY - began.y) < 5 && pointers.size === 1) return;
      if (!dragged) {
        dragged = true;
        outer.classList.add("dragging");
        outer.setPointerCapture(event.pointerId);
      }
      const at = { x: event.clientX, y: event.clientY };
      const { x, y, k } = now();
      if (pointers.size === 1) later({ k, x: x + at.x - old.x, y: y + at.y - old.y });
      else if (pointers.size === 2) {
        const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
        if (other !== undefined) {
          const box = outer.getBoundingClientRect();
          const before = Math.hypot(old.x - other.x, old.y - other.y);
          const after = Math.hypot(at.x - other.x, at.y - other.y);
          const mx = (at.x + other.x) / 2 - box.left;
          const my = (at.y + other.y) / 2 - box.top;
          const shifted = { k, x: x + (at.x - old.x) / 2, y: y + (at.y - old.y) / 2 };
          later(before > 0 ? zoomAt(shifted, after / before, mx, my) : shifted);
        }
      }
      pointers.set(event.pointerId, at);
    };
    const up = (event: PointerEvent): void => {
      pointers.delete(event.pointerId);
      if (pointers.size === 0) outer.classList.remove("dragging");
    };
    const click = (event: MouseEvent): void => {
      // The click at the end of a drag is none.
      if (dragged) {
        event.stopPropagation();
        event.preventDefault();
        dragged = false;
        return;
      }
      const on = event.target instanceof Element ? event.target.closest("button") : null;
      if (on === null) latest.current.onSelect(null);
    };
    outer.addEventListener("wheel", wheel, { passive: false });
    outer.addEventListener("pointerdown", down);
    outer.addEventListener("pointermove", drag);
    outer.addEventListener("pointerup", up);
    outer.addEventListener("pointercancel", up);
    outer.addEventListener("click", click, true);
    return () => {
      cancelAnimationFrame(frame);
      outer.removeEventListener("wheel", wheel);
      outer.removeEventListener("pointerdown", down);
      outer.removeEventListener("pointermove", drag);
      outer.removeEventListener("pointerup", up);
      outer.removeEventListener("pointercancel", up);
      outer.removeEventListener("click", click, true);
    };
  }, []);
}

/** Writes what changes into the elements, where it differs from what they say. */
class Painter {
  #boxes: { box: Box; element: HTMLElement; placed: Placed; sign: Element | null; told: Element | null; note: Element | null; state: HealthState | null; label: string; out: boolean }[] = [];
  #links: { link: Link; route: Route; group: SVGGElement; label: HTMLElement | null; rows: { row: Element; items: Element | null; size: Element | null }[]; whole: boolean; out: boolean }[] = [];
  #text = new WeakMap<Element, string>();

  constructor(
    private readonly view: HTMLElement,
    model: Model,
    layout: Layout,
  ) {
    const boxes = new Map([...view.querySelectorAll<HTMLElement>("[data-box]")].map((element) => [element.dataset.box, element]));
    const groups = new Map([...view.querySelectorAll<SVGGElement>("[data-link]")].map((element) => [element.dataset.link, element]));
    const labels = new Map([...view.querySelectorAll<HTMLElement>("[data-label]")].map((element) => [element.dataset.label, element]));
    for (const box of model.boxes) {
      const element = boxes.get(box.id);
      const placed = layout.boxes.get(box.id);
      if (element === undefined || placed === undefined) continue;
      const part = (name: string): Element | null => element.querySelector(`.${name}`);
      this.#boxes.push({ box, element, placed, sign: part("box-sign"), told: part("box-told"), note: part("box-note"), state: null, label: "", out: element.classList.contains("out") });
    }
    for (const link of model.links) {
      const group = groups.get(link.id);
      const route = layout.routes.get(link.id);
      if (group === undefined || route === undefined) continue;
      const label = labels.get(link.id) ?? null;
      const rows = [...(label?.children ?? [])].map((row) => ({ row, items: row.querySelector(".items"), size: row.querySelector(".size") }));
      this.#links.push({ link, route, group, label, rows, whole: false, out: label?.classList.contains("out") === true });
    }
  }

  #say(element: Element | null, text: string): void {
    if (element === null || (this.#text.get(element) ?? "") === text) return;
    this.#text.set(element, text);
    element.textContent = text;
  }

  /** Leaves out the texts of what is not in the window. Says whether some came in. */
  cull({ x, y, w, h }: { x: number; y: number; w: number; h: number }): boolean {
    let came = false;
    for (const own of this.#boxes) {
      const { placed } = own;
      const out = placed.x > x + w || placed.x + placed.w < x || placed.y > y + h || placed.y + placed.h < y;
      if (out === own.out) continue;
      own.out = out;
      own.element.classList.toggle("out", out);
    }
    for (const own of this.#links) {
      const at = own.route.label;
      if (own.label === null || at === null) continue;
      const out = at.x > x + w || at.x < x || at.y > y + h || at.y < y;
      if (out === own.out) continue;
      own.out = out;
      own.label.classList.toggle("out", out);
      came ||= !out;
    }
    return came;
  }

  /** Writes the figures of now. What cannot be read is not written. */
  paint(): void {
    const detail = this.view.dataset.detail;
    const dropped = dropsByComponent();
    for (const own of this.#boxes) {
      const { box, element } = own;
      const state = stateOf(box);
      if (state !== own.state) {
        own.state = state;
        for (const other of STATES) element.classList.toggle(`is-${other}`, other === state);
        this.#say(own.told, state === "healthy" ? "" : state);
        this.#say(own.sign, state === "healthy" ? "" : state === "unhealthy" ? "!" : state === "exited" ? "×" : "?");
      }
      const end = endOf(box);
      const losses = box.is === "end" ? [] : box.is === "module" ? box.members.flatMap((node) => dropped.get(node.id) ?? []) : (dropped.get(box.id) ?? []);
      const late = end !== null && isLate(end);
      element.classList.toggle("late", late);
      element.classList.toggle("drops", losses.length > 0);
      let note = "";
      if (box.is === "end") {
        if (end !== null) note = end.pending > 0 ? `${count(end.pending)} wait${end.oldestMs === null ? "" : ` · ${duration(end.oldestMs)}`}` : (end.lastAnswer ?? "");
      } else if (losses.length > 0) {
        const [most] = [...losses].sort((a, b) => b.perSecond - a.perSecond);
        note = `−${rate(losses.reduce((sum, drop) => sum + drop.perSecond, 0))} ${most?.reason ?? ""}${losses.length > 1 ? ` +${losses.length - 1}` : ""}`;
      } else if (box.is === "module") note = `${box.members.length} components`;
      this.#say(own.note, note);
      const waits = end === null || end.pending === 0 ? "" : `, ${count(end.pending)} items and ${bytes(end.pendingBytes)} wait`;
      const told = `${labelOf(box)}, ${box.is === "end" ? "end" : state}${losses.length > 0 ? `, drops ${losses.map((drop) => `${rate(drop.perSecond)} ${drop.reason}`).join(", ")}` : ""}${waits}`;
      if (told !== own.label) {
        own.label = told;
        element.setAttribute("aria-label", told);
      }
    }
    const early = isEarly();
    for (const { link, route, group, label, rows, out } of this.#links) {
      const figures = linkRates(link);
      let items = 0;
      let lost = 0;
      for (const figure of figures) {
        items += figure.items;
        lost += figure.lost;
      }
      // Targets do not flow: it is told how many there are.
      const targets = link.kinds.length === 1 && link.kinds[0] === "target";
      const idle = items === 0 && !targets;
      group.classList.toggle("idle", idle && !early);
      group.classList.toggle("losing", lost > 0);
      if (label === null || out || detail === "far" || detail === "low") continue;
      let top = 0;
      figures.forEach((figure, i) => {
        if (figure.items > (figures[top]?.items ?? 0)) top = i;
      });
      rows.forEach(({ row, items, size }, i) => {
        const figure = figures[i];
        if (figure === undefined) return;
        row.classList.toggle("top", i === top);
        if (figure.kind === "target") {
          const name = itemsOf("target", figure.inFlight);
          this.#say(items, route.stub === null ? count(figure.inFlight) : `${count(figure.inFlight)} ${name}`);
          this.#say(size, name);
          return;
        }
        this.#say(items, idle && early ? "–" : figure.lost > 0 ? `${rate(figure.items)} −${rate(figure.lost)}` : rate(figure.items));
        this.#say(size, figure.bytes === 0 ? "" : byteRate(figure.bytes));
      });
    }
  }

  /** Brings out what is highlighted, found and selected; all else steps back. */
  mark(highlight: Highlight | null, found: ReadonlySet<string> | null, selected: string | null): void {
    this.view.classList.toggle("focus", highlight !== null || found !== null);
    for (const { box, element } of this.#boxes) {
      const on = highlight?.boxes.has(box.id) === true || found?.has(box.id) === true;
      element.classList.toggle("on", on);
      element.classList.toggle("selected", box.id === selected);
      element.setAttribute("aria-pressed", String(box.id === selected));
    }
    for (const own of this.#links) {
      const on = highlight?.links.has(own.link.id) === true;
      own.group.classList.toggle("on", on);
      own.label?.classList.toggle("on", on);
      if (own.route.stub !== null && own.whole !== on) {
        own.whole = on;
        const path = pathOf(own.route, on);
        for (const element of own.group.children) element.setAttribute("d", path);
      }
    }
  }
}
