/** A 2D image with its points; brightness and contrast by a filter of the browser. */

import { Plane, SVG, type Place, type Window } from "./plane";
import type { CaseView, Picture, ViewEvents } from "./view";
import { apply, type Frame, type Position } from "./wire";

export class View2D extends Plane implements CaseView {
  private readonly transfer: SVGFEFuncRElement[] = [];
  private frame: Frame | null = null;
  private shares: Window = [0, 1];
  private isInverted = false;
  private url = "";

  constructor(events: ViewEvents) {
    super(events, document.createElement("img"));
    this.element.classList.add("view");
    this.image.draggable = false;
    this.name("");
    this.svg.prepend(this.filter());
  }

  private get image(): HTMLImageElement {
    return this.picture as HTMLImageElement;
  }

  async show(picture: Picture | null, frame: Frame | null, label: string): Promise<void> {
    URL.revokeObjectURL(this.url);
    const blob = picture instanceof Blob ? picture : null;
    this.frame = frame;
    this.url = blob === null ? "" : URL.createObjectURL(blob);
    this.name(label);
    this.image.hidden = blob === null;
    delete this.element.dataset["shown"];
    if (blob === null) {
      this.image.removeAttribute("src");
      this.draw();
      return;
    }
    this.image.src = this.url;
    const { url } = this;
    await this.image.decode().catch(() => undefined);
    if (url !== this.url) return; // another one was asked for meanwhile
    this.isInverted = false;
    this.setWindow([0, 1]);
    this.fit();
    this.drawNow();
    this.element.dataset["shown"] = label;
  }

  /** For screen readers; without a name there is nothing to see. */
  private name(label: string): void {
    if (label) this.svg.setAttribute("role", "img");
    else this.svg.removeAttribute("role");
    this.svg.setAttribute("aria-label", label);
    this.image.alt = label;
  }

  invert(): void {
    this.isInverted = !this.isInverted;
    this.setWindow(this.window);
  }

  scroll(): void {}

  protected get isReady(): boolean {
    return this.frame !== null;
  }

  protected get size(): readonly [number, number] {
    const [width, height] = this.frame?.size ?? [];
    return [width ?? 1, height ?? 1];
  }

  protected get scale(): readonly [number, number] {
    const [across, down] = this.spacing;
    return [1, down / across];
  }

  protected get unitsPerPixel(): number {
    return this.spacing[0];
  }

  private get spacing(): readonly [number, number] {
    const along = (axis: number): number => Math.hypot(...(this.frame?.toMm ?? []).map((row) => row[axis] ?? 0)) || 1;
    return [along(0), along(1)];
  }

  protected toPlace(position: Position): Place {
    const [x, y] = apply(this.frame?.toIndex ?? [], position);
    return { x: x ?? 0, y: y ?? 0, depth: 0 };
  }

  protected toPosition(x: number, y: number): number[] {
    return apply(this.frame?.toMm ?? [], [x, y]);
  }

  protected get window(): Window {
    return this.shares;
  }

  protected setWindow(window: Window): void {
    this.shares = window;
    const [low, high] = window;
    const slope = (this.isInverted ? -1 : 1) / (high - low);
    const intercept = this.isInverted ? high / (high - low) : -low / (high - low);
    for (const one of this.transfer) {
      one.setAttribute("slope", String(slope));
      one.setAttribute("intercept", String(intercept));
    }
    this.image.style.filter = low === 0 && high === 1 && !this.isInverted ? "" : "url(#window)";
  }

  protected paint(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number, side: number): void {
    context.filter = this.image.style.filter ? "url(#window)" : "none";
    context.drawImage(this.image, x, y, width, height, 0, 0, side, side);
    context.filter = "none";
  }

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
}
