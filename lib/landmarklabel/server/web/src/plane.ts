/** One picture on the screen with points on it: pan, zoom, dragging, a loupe. What the picture is, its subclasses know. */

import { Loupe, type Paint } from "./loupe";
import { SVG, mark, shape } from "./marks";
import type { Drawn, ViewEvents } from "./view";
import type { Point, Position } from "./wire";

const MOST_ZOOM = 32; // screen pixels for one of the image
const LEAST_SHARE = 0.5; // of the fitting zoom
const GRAB_PX = 14; // from a point, within which it is grabbed
const NAMED = 24; // points, up to which all have their name beside them; of more, those that are selected, flagged or under the mouse
const ON_SLICE = 0.501; // slices that a point may lie off the one that is shown and be grabbed there
const DOUBLE_CLICK_MS = 400;
const DOUBLE_CLICK_PX = 6;
const SHOWN_SLICES = 4; // off the slice, within which a point is still drawn, faintly
const WINDOW_PX = 300; // of the hand, by which the window moves by its own width
const WIDTH_PX = 100; // by which it becomes e times as wide

/** Zoom in screen pixels for one unit of the picture's scale, and where its upper left corner is on the screen. */
interface Look {
  zoom: number;
  x: number;
  y: number;
}

/** A place in the picture, in samples from the middle of the first; `depth` is how many slices it lies behind or before the one that is shown. */
export interface Place {
  readonly x: number;
  readonly y: number;
  readonly depth: number;
}

/** What a hand is doing: `off` is how far the mouse was from the point that it grabbed. */
interface Drag {
  readonly kind: "point" | "pan" | "window";
  readonly name: string;
  readonly id: number;
  readonly from: [number, number];
  readonly off: [number, number];
  readonly look: Look;
  readonly window: Window;
  moved: boolean;
}

/** Shares of the grey values between those that are black and white at first; what is shown black and white now. */
export type Window = readonly [number, number];

export abstract class Plane {
  readonly element = document.createElement("div");
  isPlacing = false;
  private look: Look = { zoom: 1, x: 0, y: 0 };
  protected readonly svg = document.createElementNS(SVG, "svg");
  protected readonly behind = document.createElementNS(SVG, "g"); // what a subclass draws under the points
  protected canGrab = true;
  private readonly marks = document.createElementNS(SVG, "g");
  private readonly loupe = new Loupe();
  private held: [number, number] | null = null; // the place on the screen that the loupe shows
  private points: readonly Point[] = [];
  private others: readonly Point[] = []; // of another version
  private beside: Drawn = { lines: [], expected: null };
  private selected: string | null = null;
  private hovered: string | null = null;
  private isAlone = false; // whether only the selected point is drawn
  private drag: Drag | null = null;
  private isDue = false;
  private isFitted = true;
  private lastClick = -Infinity; // that placed a landmark
  private clickedAt: [number, number] = [-1000, -1000];
  private extent: [number, number] = [0, 0]; // of the element

  constructor(
    protected readonly events: ViewEvents,
    protected readonly picture: HTMLElement,
  ) {
    this.element.className = "plane";
    this.svg.append(this.behind, this.marks);
    picture.classList.add("picture");
    this.element.append(picture, this.svg, this.loupe.element);
    this.element.addEventListener("pointerdown", (e) => this.down(e));
    this.element.addEventListener("pointermove", (e) => this.move(e));
    this.element.addEventListener("pointerup", (e) => this.up(e));
    this.element.addEventListener("pointercancel", () => this.letGo());
    this.element.addEventListener("lostpointercapture", () => this.letGo()); // after a release there is nothing to let go
    this.element.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    this.element.addEventListener("contextmenu", (e) => e.preventDefault());
    this.element.addEventListener("dblclick", () => {
      if (performance.now() - this.lastClick > DOUBLE_CLICK_MS && !this.isPlacing) this.fit();
    });
    new ResizeObserver(() => this.resized()).observe(this.element);
  }

  /** Whether there is a picture. */
  protected abstract get isReady(): boolean;
  /** Samples across and down. */
  protected abstract get size(): readonly [number, number];
  /** Screen pixels of one sample across and down at zoom 1. */
  protected abstract get scale(): readonly [number, number];
  /** mm, or pixels where there are none, of one screen pixel at zoom 1. */
  protected abstract get unitsPerPixel(): number;
  protected abstract toPlace(position: Position): Place;
  /** `like`: a position that keeps its distance from the slice; null for one on the slice. */
  protected abstract toPosition(x: number, y: number, like: Position | null): number[];
  protected abstract paint(...how: Parameters<Paint>): void;
  protected abstract get window(): Window;
  protected abstract setWindow(window: Window): void;
  /** The narrowest window that a hand can set. */
  protected get leastWindow(): number {
    return 0.02;
  }
  /** The hand that changed the window has let it go. */
  protected windowKept(): void {}
  /** A click beside all points, while nothing is being placed. */
  protected pressed(_x: number, _y: number): void {}
  protected turned(event: WheelEvent): void {
    this.zoomBy(Math.exp(-event.deltaY / 400), this.at(event));
  }

  letGo(): void {
    const { drag } = this;
    this.drag = this.held = null;
    this.loupe.hide();
    if (drag?.kind === "point" && drag.moved) this.events.cancelled();
    if (drag?.kind === "window" && drag.moved) this.windowKept();
  }

  get isDragging(): boolean {
    return this.drag !== null;
  }

  resetWindow(): void {
    this.setWindow([0, 1]);
  }

  /** Drawn with the points, which the page sets right afterwards. */
  setDrawn(drawn: Drawn): void {
    this.beside = drawn;
  }

  setPoints(points: readonly Point[], others: readonly Point[], selected: string | null): void {
    this.points = points;
    this.others = others;
    this.selected = selected;
    this.drawNow(); // the page calls this before the screen is drawn: the frame after would be a frame too late
  }

  fit(): void {
    this.isFitted = true;
    if (!this.isVisible) return; // when it is shown again
    const [width, height] = this.size;
    const [across, down] = this.scale;
    const { clientWidth, clientHeight } = this.element;
    const zoom = this.fitting;
    this.lookFrom(zoom, (clientWidth - zoom * width * across) / 2, (clientHeight - zoom * height * down) / 2, true);
  }

  /** Zoom by a factor around a place on the screen, the middle by default. */
  zoomBy(factor: number, at: [number, number] = [this.element.clientWidth / 2, this.element.clientHeight / 2]): void {
    if (!this.isVisible) return;
    const most = Math.max(MOST_ZOOM / Math.min(...this.scale), this.fitting); // of a tiny image all fits at more
    const zoom = Math.min(most, Math.max(LEAST_SHARE * this.fitting, this.look.zoom * factor));
    const ratio = zoom / this.look.zoom;
    this.lookFrom(zoom, at[0] - (at[0] - this.look.x) * ratio, at[1] - (at[1] - this.look.y) * ratio);
  }

  alone(isAlone: boolean): void {
    this.isAlone = isAlone;
    this.draw();
  }

  /** Bring a point into view, or the nearest place of the picture; nothing moves where that is well inside, or all is shown. */
  reveal(position: Position): void {
    if (!this.isVisible || this.isFitted) return;
    const [width, height] = this.size;
    const place = this.toPlace(position);
    const [x, y] = this.onScreen(Math.min(Math.max(place.x, 0), width - 1), Math.min(Math.max(place.y, 0), height - 1));
    const { clientWidth, clientHeight } = this.element;
    const margin = 0.1 * Math.min(clientWidth, clientHeight);
    const inside = x >= margin && y >= margin && x <= clientWidth - margin && y <= clientHeight - margin;
    if (inside) return;
    this.shift(clientWidth / 2 - x, clientHeight / 2 - y);
  }

  nudged(position: Position, dx: number, dy: number): Position {
    const { x, y } = this.toPlace(position);
    return this.toPosition(x + dx, y + dy, position);
  }

  /** What is in the middle stays there when the element changes its size. */
  private resized(): void {
    if (!this.isVisible) return;
    const { clientWidth, clientHeight } = this.element;
    const [dx, dy] = [(clientWidth - this.extent[0]) / 2, (clientHeight - this.extent[1]) / 2];
    this.extent = [clientWidth, clientHeight];
    if (this.isFitted) this.fit();
    else this.shift(dx, dy);
  }

  private get isVisible(): boolean {
    return this.element.clientWidth > 0;
  }

  private shift(dx: number, dy: number): void {
    this.lookFrom(this.look.zoom, this.look.x + dx, this.look.y + dy);
  }

  /** The corner lies on a whole pixel of the screen: browsers draw the picture there, and the points must lie as it does. */
  private lookFrom(zoom: number, x: number, y: number, isFitted = false): void {
    const { left, top } = this.element.getBoundingClientRect();
    const whole = (v: number, from: number): number => Math.round((from + v) * devicePixelRatio) / devicePixelRatio - from;
    this.look = { zoom, x: whole(x, left), y: whole(y, top) };
    this.isFitted = isFitted;
    this.draw();
  }

  // --- where things are -------------------------------------------------------------------------------------------------

  private get fitting(): number {
    const [width, height] = this.size;
    const [across, down] = this.scale;
    return Math.max(1e-3, Math.min(this.element.clientWidth / (width * across), this.element.clientHeight / (height * down)));
  }

  /** A sample is a rectangle on the screen; its middle is where the sample lies. */
  protected toScreen(position: Position): [number, number] {
    const { x, y } = this.toPlace(position);
    return this.onScreen(x, y);
  }

  protected onScreen(x: number, y: number): [number, number] {
    const [across, down] = this.scale;
    return [this.look.x + this.look.zoom * across * (x + 0.5), this.look.y + this.look.zoom * down * (y + 0.5)];
  }

  /** In samples from the middle of the first. */
  private fromScreen(x: number, y: number): [number, number] {
    const [across, down] = this.scale;
    return [(x - this.look.x) / (this.look.zoom * across) - 0.5, (y - this.look.y) / (this.look.zoom * down) - 0.5];
  }

  private at(event: MouseEvent): [number, number] {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // --- the mouse, a pen, a finger -----------------------------------------------------------------------------------------

  private down(event: PointerEvent): void {
    if (!this.isReady || this.drag !== null || event.target instanceof HTMLButtonElement) return;
    const at = this.at(event);
    const point = event.button === 0 && !this.isPlacing ? this.nearest(at) : null;
    const kind = event.button === 2 ? "window" : point !== null && this.canGrab ? "point" : "pan";
    const { name, off } = point ?? { name: "", off: [0, 0] };
    this.drag = { kind, name, off, id: event.pointerId, from: at, look: { ...this.look }, window: this.window, moved: false };
    this.element.setPointerCapture(event.pointerId);
    if (name) this.events.select(name);
  }

  private move(event: PointerEvent): void {
    const drag = this.drag;
    if (drag === null || drag.id !== event.pointerId) {
      this.hover(this.isPlacing ? null : (this.nearest(this.at(event))?.name ?? null));
      return;
    }
    const at = this.at(event);
    const [dx, dy] = [at[0] - drag.from[0], at[1] - drag.from[1]];
    drag.moved ||= Math.hypot(dx, dy) >= 2; // else a click that trembles would shift a point
    if (!drag.moved) return;
    if (drag.kind === "pan") {
      this.shift(drag.look.x + dx - this.look.x, drag.look.y + dy - this.look.y);
    } else if (drag.kind === "window") {
      const before = drag.window[1] - drag.window[0];
      const width = Math.max(this.leastWindow, before * Math.exp(dx / WIDTH_PX));
      const middle = (drag.window[0] + drag.window[1]) / 2 + (before * dy) / WINDOW_PX; // a narrow one is moved by less
      this.setWindow([middle - width / 2, middle + width / 2]);
    } else {
      this.held = [at[0] - drag.off[0], at[1] - drag.off[1]];
      this.events.place(drag.name, this.moved(drag.name, this.held), false);
      this.draw();
    }
  }

  private hover(name: string | null): void {
    if (name === this.hovered) return;
    this.hovered = name;
    this.element.classList.toggle("grabs", name !== null);
    this.draw();
  }

  private up(event: PointerEvent): void {
    const drag = this.drag;
    if (drag === null || drag.id !== event.pointerId) return;
    this.drag = this.held = null;
    this.loupe.hide();
    const at = this.at(event);
    if (drag.kind === "point" && drag.moved) this.events.place(drag.name, this.moved(drag.name, [at[0] - drag.off[0], at[1] - drag.off[1]]), true);
    if (drag.kind === "pan" && !drag.moved && event.button === 0) {
      const [x, y] = this.fromScreen(...at);
      const isThere = Math.hypot(at[0] - this.clickedAt[0], at[1] - this.clickedAt[1]) < DOUBLE_CLICK_PX;
      const isSecond = isThere && performance.now() - this.lastClick < DOUBLE_CLICK_MS; // not the next landmark at the same place
      if (this.isPlacing && this.canGrab) {
        this.lastClick = performance.now();
        this.clickedAt = at;
        if (!isSecond) this.events.clicked(this.toPosition(x, y, null));
      } else if (!drag.name) this.pressed(x, y);
    }
    if (drag.kind === "window" && drag.moved) this.windowKept();
    this.draw();
  }

  /** Where a point is when a hand has brought it to a place on the screen: as far from the slice as it was. */
  private moved(name: string, at: [number, number]): number[] {
    return this.toPosition(...this.fromScreen(...at), this.points.find((p) => p.name === name)?.position ?? null);
  }

  /** The point to grab at a place on the screen, and how far off it is: the selected one before others, else the nearest. */
  private nearest(at: [number, number]): { name: string; off: [number, number] } | null {
    let best: { name: string; off: [number, number] } | null = null;
    let least = GRAB_PX;
    for (const point of this.points) {
      if (point.position === null || (this.isAlone && point.name !== this.selected)) continue;
      const place = this.toPlace(point.position);
      if (Math.abs(place.depth) > ON_SLICE) continue;
      const [x, y] = this.onScreen(place.x, place.y);
      const off = Math.hypot(x - at[0], y - at[1]) - (point.name === this.selected ? 4 : 0);
      if (off < least) {
        best = { name: point.name, off: [at[0] - x, at[1] - y] };
        least = off;
      }
    }
    return best;
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    if (this.drag === null) this.turned(event); // what is dragged stays where it is
  }

  // --- drawing ------------------------------------------------------------------------------------------------------------

  /** Draw what has changed, once before the screen is drawn however often it changes. */
  protected draw(): void {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.drawNow();
    });
  }

  protected drawNow(): void {
    const { zoom, x, y } = this.look;
    const [width, height] = this.size;
    const [across, down] = this.scale;
    const { style } = this.picture;
    style.width = `${width}px`;
    style.height = `${height}px`;
    style.transform = `translate(${x}px, ${y}px) scale(${zoom * across}, ${zoom * down})`;
    style.imageRendering = zoom * Math.min(across, down) >= 3 ? "pixelated" : "auto";
    this.marks.replaceChildren(...(this.isReady ? this.drawn() : []));
    if (this.held !== null) this.showLoupe(this.held);
  }

  private drawn(): SVGElement[] {
    const near = (p: Point): boolean => p.position !== null && Math.abs(this.toPlace(p.position).depth) < SHOWN_SLICES;
    const shown = this.points.filter((p) => near(p) && (!this.isAlone || p.name === this.selected));
    const named = shown.length <= NAMED;
    const marks = this.others.filter(near).map((p) => this.mark(p, "other", false));
    const order = [...shown].sort((a, b) => Number(a.name === this.selected) - Number(b.name === this.selected)); // on top: the selected one
    return [...this.drawnBeside(), ...marks, ...order.map((p) => this.mark(p, p.state, named || p.flagged || p.name === this.selected || p.name === this.hovered))];
  }

  private drawnBeside(): SVGElement[] {
    const at = (position: Position): string => {
      const { x, y } = this.toPlace(position);
      return this.onScreen(x, y).join(" ");
    };
    const { lines, expected } = this.beside;
    const drawn = lines.map(([from, to]) => shape("path", { d: `M${at(from)}L${at(to)}`, class: "measure" }));
    return expected === null ? drawn : [...drawn, shape("path", { d: `M${at(expected)}m-9 -9l18 18m0 -18l-18 18`, class: "expected-here" })];
  }

  private mark(point: Point, kind: string, isNamed: boolean): SVGElement {
    const place = this.toPlace(point.position ?? []);
    const isAway = Math.abs(place.depth) > ON_SLICE;
    const error = ((point.error ?? 0) * this.look.zoom) / this.unitsPerPixel;
    return mark(point, { at: this.onScreen(place.x, place.y), kind, isSelected: point.name === this.selected, isNamed, isAway, error });
  }

  private showLoupe([x, y]: [number, number]): void {
    const [across, down] = this.scale.map((s) => s * this.look.zoom) as [number, number];
    const isRight = x < this.element.clientWidth / 2; // away from the hand
    this.loupe.show((x - this.look.x) / across, (y - this.look.y) / down, across, down, isRight, (...how) => this.paint(...how));
  }
}
