/** A 2D image with its points: pan, zoom, brightness and contrast, a loupe while dragging. */

import type { Frame, Point, Position } from "./wire";

const MOST_ZOOM = 32; // screen pixels for one of the image
const LEAST_SHARE = 0.5; // of the fitting zoom
const LOUPE_ZOOM = 4; // times the zoom of the view
const LOUPE_PX = 180;
const GRAB_PX = 14; // from a point, within which it is grabbed
const NAMED = 24; // points, up to which all have their name beside them; of more, those that are selected, flagged or under the mouse
const SVG = "http://www.w3.org/2000/svg";

export interface ViewEvents {
  /** A point was moved; the answer is whether it may be there. */
  place(name: string, position: Position, isFinal: boolean): boolean;
  select(name: string): void;
  /** A drag was broken off: the point is where it was. */
  cancelled(): void;
  /** The place of a click while placing. */
  clicked(position: Position): void;
}

/** Zoom in screen pixels for one of the image, and where its upper left corner is on the screen. */
interface Look {
  zoom: number;
  x: number;
  y: number;
}

/** What a hand is doing: `off` is how far the mouse was from the point that it grabbed. */
interface Drag {
  readonly kind: "point" | "pan" | "window";
  readonly name: string;
  readonly id: number;
  readonly from: [number, number];
  readonly off: [number, number];
  readonly look: Look;
  readonly window: [number, number];
  moved: boolean;
}

export class View2D {
  readonly element = document.createElement("div");
  isPlacing = false;
  private readonly image = document.createElement("img");
  private readonly svg = document.createElementNS(SVG, "svg");
  private readonly marks = document.createElementNS(SVG, "g");
  private readonly transfer: SVGFEFuncRElement[] = [];
  private readonly loupe = document.createElement("canvas");
  private frame: Frame | null = null;
  private look: Look = { zoom: 1, x: 0, y: 0 };
  private window: [number, number] = [0, 1]; // shares of the picture's range that are shown black and white
  private isInverted = false;
  private points: readonly Point[] = [];
  private others: readonly Point[] = []; // of another version
  private selected: string | null = null;
  private hovered: string | null = null;
  private isAlone = false; // whether only the selected point is drawn
  private drag: Drag | null = null;
  private url = "";

  constructor(private readonly events: ViewEvents) {
    this.element.className = "view";
    this.image.draggable = false;
    this.svg.append(this.filter(), this.marks);
    this.svg.setAttribute("role", "img");
    this.loupe.className = "loupe";
    this.loupe.width = this.loupe.height = LOUPE_PX;
    this.loupe.hidden = true;
    this.element.append(this.image, this.svg, this.loupe);
    this.element.addEventListener("pointerdown", (e) => this.down(e));
    this.element.addEventListener("pointermove", (e) => this.move(e));
    this.element.addEventListener("pointerup", (e) => this.up(e));
    this.element.addEventListener("pointercancel", () => this.letGo());
    this.element.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    this.element.addEventListener("contextmenu", (e) => e.preventDefault());
    this.element.addEventListener("dblclick", () => this.fit());
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Show an image; null takes it away. */
  async show(picture: Blob | null, frame: Frame | null, label: string): Promise<void> {
    URL.revokeObjectURL(this.url);
    this.frame = frame;
    this.url = picture === null ? "" : URL.createObjectURL(picture);
    this.svg.setAttribute("aria-label", label);
    this.image.alt = label;
    this.image.hidden = picture === null;
    delete this.element.dataset["shown"];
    if (picture === null) {
      this.image.removeAttribute("src");
      this.draw();
      return;
    }
    this.image.src = this.url;
    const { url } = this;
    await this.image.decode().catch(() => undefined);
    if (url !== this.url) return; // another one was asked for meanwhile
    this.window = [0, 1];
    this.isInverted = false;
    this.setTransfer();
    this.fit();
    this.element.dataset["shown"] = label;
  }

  /** Whatever a hand is doing belongs to nothing any more. */
  letGo(): void {
    const { drag } = this;
    this.drag = null;
    this.loupe.hidden = true;
    if (drag?.kind === "point" && drag.moved) this.events.cancelled();
  }

  setPoints(points: readonly Point[], others: readonly Point[], selected: string | null): void {
    this.points = points;
    this.others = others;
    this.selected = selected;
    this.draw();
  }

  /** The whole image, in the middle. */
  fit(): void {
    const [width, height] = this.frame?.size ?? [1, 1];
    const { clientWidth, clientHeight } = this.element;
    const zoom = this.fitting;
    this.look = { zoom, x: (clientWidth - zoom * (width ?? 1)) / 2, y: (clientHeight - zoom * (height ?? 1)) / 2 };
    this.draw();
  }

  /** Zoom by a factor around a place on the screen, the middle by default. */
  zoomBy(factor: number, at: [number, number] = [this.element.clientWidth / 2, this.element.clientHeight / 2]): void {
    const zoom = Math.min(MOST_ZOOM, Math.max(LEAST_SHARE * this.fitting, this.look.zoom * factor));
    const ratio = zoom / this.look.zoom;
    this.look = { zoom, x: at[0] - (at[0] - this.look.x) * ratio, y: at[1] - (at[1] - this.look.y) * ratio };
    this.draw();
  }

  invert(): void {
    this.isInverted = !this.isInverted;
    this.setTransfer();
  }

  /** Draw only the selected point. */
  alone(isAlone: boolean): void {
    this.isAlone = isAlone;
    this.draw();
  }

  /** Bring a point into view, without changing anything where it is well inside already. */
  reveal(position: Position): void {
    const [x, y] = this.toScreen(position);
    const { clientWidth, clientHeight } = this.element;
    const margin = 0.1 * Math.min(clientWidth, clientHeight);
    const inside = x >= margin && y >= margin && x <= clientWidth - margin && y <= clientHeight - margin;
    if (inside) return;
    this.look = { ...this.look, x: this.look.x + clientWidth / 2 - x, y: this.look.y + clientHeight / 2 - y };
    this.draw();
  }

  /** A position moved by samples of the image along its axes. */
  nudged(position: Position, dx: number, dy: number): Position {
    const [i, j] = this.toSample(position);
    return this.toPosition(i + dx, j + dy);
  }

  // --- where things are -------------------------------------------------------------------------------------------------

  private get fitting(): number {
    const [width, height] = this.frame?.size ?? [1, 1];
    return Math.max(1e-3, Math.min(this.element.clientWidth / (width ?? 1), this.element.clientHeight / (height ?? 1)));
  }

  /** LPS mm to samples of the image. */
  private toSample(position: Position): [number, number] {
    const rows = this.frame?.toIndex ?? [];
    const [i, j] = rows.map((row) => row.reduce((sum, f, k) => sum + f * (k === row.length - 1 ? 1 : (position[k] ?? 0)), 0));
    return [i ?? 0, j ?? 0];
  }

  private toPosition(i: number, j: number): number[] {
    return (this.frame?.toMm ?? []).map(([a, b, c]) => (a ?? 0) * i + (b ?? 0) * j + (c ?? 0));
  }

  /** A sample is a square on the screen; its middle is where the sample lies. */
  private toScreen(position: Position): [number, number] {
    const [i, j] = this.toSample(position);
    return [this.look.x + this.look.zoom * (i + 0.5), this.look.y + this.look.zoom * (j + 0.5)];
  }

  private fromScreen(x: number, y: number): number[] {
    return this.toPosition((x - this.look.x) / this.look.zoom - 0.5, (y - this.look.y) / this.look.zoom - 0.5);
  }

  private at(event: MouseEvent): [number, number] {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // --- the mouse, a pen, a finger -----------------------------------------------------------------------------------------

  private down(event: PointerEvent): void {
    if (this.frame === null || this.drag !== null) return;
    const at = this.at(event);
    const point = event.button === 0 && !this.isPlacing ? this.nearest(at) : null;
    const kind = event.button === 2 ? "window" : point !== null ? "point" : "pan";
    const { name, off } = point ?? { name: "", off: [0, 0] };
    this.drag = { kind, name, off, id: event.pointerId, from: at, look: { ...this.look }, window: [...this.window], moved: false };
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
      this.look = { ...drag.look, x: drag.look.x + dx, y: drag.look.y + dy };
      this.draw();
    } else if (drag.kind === "window") {
      const width = Math.max(0.02, drag.window[1] - drag.window[0] + dx / 300);
      const middle = (drag.window[0] + drag.window[1]) / 2 + dy / 300;
      this.window = [middle - width / 2, middle + width / 2];
      this.setTransfer();
    } else {
      const held: [number, number] = [at[0] - drag.off[0], at[1] - drag.off[1]];
      this.events.place(drag.name, this.fromScreen(...held), false);
      this.showLoupe(held);
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
    this.drag = null;
    this.loupe.hidden = true;
    const at = this.at(event);
    if (drag.kind === "point" && drag.moved) this.events.place(drag.name, this.fromScreen(at[0] - drag.off[0], at[1] - drag.off[1]), true);
    if (drag.kind === "pan" && !drag.moved && this.isPlacing && event.type === "pointerup" && event.button === 0)
      this.events.clicked(this.fromScreen(...at));
    this.draw();
  }

  /** The point to grab at a place on the screen, and how far off it is: the selected one before others, else the nearest. */
  private nearest(at: [number, number]): { name: string; off: [number, number] } | null {
    let best: { name: string; off: [number, number] } | null = null;
    let least = GRAB_PX;
    for (const point of this.points) {
      if (point.position === null || (this.isAlone && point.name !== this.selected)) continue;
      const [x, y] = this.toScreen(point.position);
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
    this.zoomBy(Math.exp(-event.deltaY / 400), this.at(event));
  }

  // --- drawing ------------------------------------------------------------------------------------------------------------

  private filter(): SVGElement {
    const filter = document.createElementNS(SVG, "filter");
    filter.id = "window";
    filter.setAttribute("color-interpolation-filters", "sRGB");
    const all = document.createElementNS(SVG, "feComponentTransfer");
    for (const channel of ["R", "G", "B"]) {
      const one = document.createElementNS(SVG, `feFunc${channel}`) as SVGFEFuncRElement;
      one.setAttribute("type", "linear");
      this.transfer.push(one);
      all.append(one);
    }
    filter.append(all);
    return filter;
  }

  private setTransfer(): void {
    const [low, high] = this.window;
    const slope = (this.isInverted ? -1 : 1) / (high - low);
    const intercept = this.isInverted ? high / (high - low) : -low / (high - low);
    for (const one of this.transfer) {
      one.setAttribute("slope", String(slope));
      one.setAttribute("intercept", String(intercept));
    }
    this.image.style.filter = low === 0 && high === 1 && !this.isInverted ? "" : "url(#window)";
  }

  private draw(): void {
    const { zoom, x, y } = this.look;
    const [width, height] = this.frame?.size ?? [0, 0];
    this.image.style.width = `${width}px`;
    this.image.style.height = `${height}px`;
    this.image.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    this.image.style.imageRendering = zoom >= 3 ? "pixelated" : "auto";
    this.marks.replaceChildren(...(this.frame === null ? [] : this.drawn()));
  }

  private drawn(): SVGElement[] {
    const shown = this.points.filter((p) => p.position !== null && (!this.isAlone || p.name === this.selected));
    const named = shown.length <= NAMED;
    const marks = this.others.filter((p) => p.position !== null).map((p) => this.mark(p, "other", false));
    const order = [...shown].sort((a, b) => Number(a.name === this.selected) - Number(b.name === this.selected)); // on top: the selected one
    return [...marks, ...order.map((p) => this.mark(p, p.state, named || p.flagged || p.name === this.selected || p.name === this.hovered))];
  }

  /** State is told by shape as well as by colour: proposed is a ring, placed a cross in a ring, accepted a disc. */
  private mark(point: Point, kind: string, isNamed: boolean): SVGElement {
    const group = document.createElementNS(SVG, "g");
    const [x, y] = this.toScreen(point.position ?? []);
    group.setAttribute("transform", `translate(${x} ${y})`);
    group.setAttribute("class", `mark ${kind}${point.name === this.selected ? " selected" : ""}${point.flagged ? " flagged" : ""}`);
    group.dataset["name"] = point.name;
    const parts: SVGElement[] = [];
    if (point.error !== null && kind === "predicted" && (point.name === this.selected || point.flagged)) {
      const radius = point.error * this.look.zoom * this.samplesPerUnit;
      if (radius > 7) parts.push(shape("circle", { r: radius, class: "error" }));
    }
    if (kind === "other") parts.push(shape("path", { d: "M0-7 7 0 0 7-7 0Z" }));
    else parts.push(shape("circle", { r: 6 }));
    if (kind === "placed") parts.push(shape("path", { d: "M-6 0H6M0-6V6" }));
    if (kind === "predicted") parts.push(shape("circle", { r: 1.2, class: "dot" }));
    if (kind === "accepted") parts.push(shape("path", { d: "M-2.5 0-.5 2.2 3-2.4", class: "tick" }));
    if (point.name === this.selected) parts.push(shape("path", { d: "M-16 0h7M9 0h7M0-16v7M0 9v7", class: "cross" }));
    group.append(...parts);
    if (isNamed) {
      const label = shape("text", { x: 10, y: -8 });
      label.textContent = point.flagged ? `${point.name} ?` : point.name;
      group.append(label);
    }
    return group;
  }

  private get samplesPerUnit(): number {
    const [first] = this.frame?.toIndex ?? [];
    return first === undefined ? 1 : Math.hypot(...first.slice(0, -1));
  }

  private showLoupe([x, y]: [number, number]): void {
    const context = this.loupe.getContext("2d");
    if (context === null) return;
    const zoom = this.look.zoom * LOUPE_ZOOM;
    const [i, j] = [(x - this.look.x) / this.look.zoom, (y - this.look.y) / this.look.zoom];
    const side = LOUPE_PX / zoom;
    context.imageSmoothingEnabled = zoom < 3;
    context.filter = this.image.style.filter ? "url(#window)" : "none";
    context.clearRect(0, 0, LOUPE_PX, LOUPE_PX);
    context.drawImage(this.image, i - side / 2, j - side / 2, side, side, 0, 0, LOUPE_PX, LOUPE_PX);
    context.filter = "none";
    context.strokeStyle = "#ffb000";
    const half = LOUPE_PX / 2;
    for (const [x0, y0, x1, y1] of [[0, half, half - 6, half], [half + 6, half, LOUPE_PX, half], [half, 0, half, half - 6], [half, half + 6, half, LOUPE_PX]] as const) {
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      context.stroke();
    }
    this.loupe.classList.toggle("right", x < this.element.clientWidth / 2); // away from the hand
    this.loupe.hidden = false;
  }
}

function shape(kind: string, attributes: Record<string, string | number>): SVGElement {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}
