/** A 2D image with its points, and tiles where it is large; brightness and contrast by a filter of the browser.
 *
 * The filter has the 256 greys that came. Of an image with more values, greys for the window that was set come when the hand
 * has let go, and replace the others once all that is visible is there.
 */

import { make } from "./dom";
import { AT_FIRST, Flat, isSame } from "./flat";
import { SVG } from "./marks";
import { Plane, type Place, type Window } from "./plane";
import { Tiles, type Placing } from "./tiles";
import type { CaseView, Picture, ViewEvents } from "./view";
import { apply, type Frame, type Position } from "./wire";

const LEAST_WINDOW = 0.02; // of an image with 8 bits: five of its values
const GREYS = 256;
const BEYOND = 0.5; // of the greys' window, by which another one may reach beyond it before their clipping is seen

/** The image in the greys of a window. */
interface Layer {
  readonly window: Window;
  readonly image: HTMLImageElement;
  readonly tiles: Tiles | null;
}

/** A layer on its way. */
interface Coming {
  readonly window: Window;
  readonly request: AbortController;
  layer: Layer | null;
}

export class View2D extends Plane implements CaseView {
  private readonly transfer: SVGFEFuncRElement[] = [];
  private readonly canvas = make("canvas", { class: "tiles" });
  private flat: Flat | null = null;
  private frame: Frame | null = null;
  private layer: Layer | null = null;
  private coming: Coming | null = null;
  private shares: Window = AT_FIRST;
  private isInverted = false;
  private label = "";
  private painted = ""; // what the canvas shows

  constructor(events: ViewEvents) {
    super(events, make("div"));
    this.element.classList.add("view");
    this.picture.after(this.canvas);
    this.name("");
    this.svg.prepend(this.filter());
  }

  async show(picture: Picture | null, frame: Frame | null, label: string): Promise<void> {
    const flat = picture instanceof Flat ? picture : null;
    this.drop(this.coming);
    this.flat = flat;
    this.frame = frame;
    this.name(label);
    delete this.element.dataset["shown"];
    this.put(null);
    if (flat === null) {
      this.draw();
      return;
    }
    const coming = (this.coming = { window: AT_FIRST, request: new AbortController(), layer: null });
    const layer = await this.layerOf(flat, await flat.whole(AT_FIRST, coming.request.signal), AT_FIRST, false);
    if (this.coming !== coming) return; // another one was asked for meanwhile
    this.coming = null;
    this.isInverted = false;
    this.shares = AT_FIRST;
    this.put(layer);
    this.fit();
    this.drawNow();
    this.element.dataset["shown"] = label;
  }

  /** For screen readers; without a name there is nothing to see. */
  private name(label: string): void {
    if (label) this.svg.setAttribute("role", "img");
    else this.svg.removeAttribute("role");
    this.svg.setAttribute("aria-label", label);
    this.label = label;
  }

  invert(): void {
    this.isInverted = !this.isInverted;
    this.applyWindow();
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

  // --- the window ---------------------------------------------------------------------------------------------------------

  protected get window(): Window {
    return this.shares;
  }

  /** Of an image with more than 8 bits, so narrow that each of its values is a grey of its own. */
  protected override get leastWindow(): number {
    if (!this.flat?.isDeep) return LEAST_WINDOW;
    const [black, white] = this.flat.frame.window;
    return Math.min(LEAST_WINDOW, GREYS / (white - black));
  }

  protected setWindow(window: Window): void {
    this.shares = window;
    this.applyWindow();
    const [low, high] = this.layer?.window ?? AT_FIRST;
    const beyond = BEYOND * (high - low);
    if (window[0] < low - beyond || window[1] > high + beyond) void this.recode(AT_FIRST);
  }

  override resetWindow(): void {
    this.shares = AT_FIRST;
    if (this.layer === null || isSame(this.layer.window, AT_FIRST)) this.applyWindow();
    void this.recode(AT_FIRST); // else the window changes with the greys: before, they would be few
  }

  protected override windowKept(): void {
    if (this.flat?.isDeep) void this.recode(this.shares);
  }

  /** What the filter still has to do. */
  private applyWindow(): void {
    const [black, white] = this.layer?.window ?? AT_FIRST;
    const [low, high] = this.shares.map((share) => (share - black) / (white - black)) as [number, number];
    const slope = (this.isInverted ? -1 : 1) / (high - low);
    const intercept = this.isInverted ? high / (high - low) : -low / (high - low);
    for (const one of this.transfer) {
      one.setAttribute("slope", String(slope));
      one.setAttribute("intercept", String(intercept));
    }
    const filter = low === 0 && high === 1 && !this.isInverted ? "" : "url(#window)";
    this.picture.style.filter = this.canvas.style.filter = filter;
  }

  /** Replace the greys by those of a window; a later call wins, and where they do not come those that are there stay. */
  private async recode(window: Window): Promise<void> {
    const { flat, layer, coming } = this;
    if (flat === null || layer === null || (coming !== null && isSame(coming.window, window))) return;
    this.drop(coming);
    if (isSame(layer.window, window)) return;
    const next: Coming = (this.coming = { window, request: new AbortController(), layer: null });
    this.noteResolution();
    const made = await flat
      .whole(window, next.request.signal)
      .then((blob) => this.layerOf(flat, blob, window, true))
      .catch(() => null);
    if (this.coming !== next) made?.tiles?.close();
    else if (made === null) this.drop(next);
    else next.layer = made;
    this.draw(); // which asks for its tiles
  }

  private drop(coming: Coming | null): void {
    if (coming === null) return;
    coming.request.abort();
    coming.layer?.tiles?.close();
    if (this.coming === coming) this.coming = null;
  }

  /** Raises where the picture cannot be decoded and has to be. */
  private async layerOf(flat: Flat, blob: Blob, window: Window, isDecoded: boolean): Promise<Layer> {
    const image = make("img");
    const url = URL.createObjectURL(blob);
    image.draggable = false;
    image.alt = this.label;
    image.src = url;
    await image.decode().catch((error: unknown) => {
      if (isDecoded) throw error;
    });
    URL.revokeObjectURL(url);
    image.style.width = `${image.naturalWidth * flat.step}px`;
    image.style.height = `${image.naturalHeight * flat.step}px`;
    const tiles = flat.step === 1 ? null : new Tiles(flat.size, flat.step, (part, signal) => flat.part(part, window, signal), () => this.draw());
    return { window, image, tiles };
  }

  private put(layer: Layer | null): void {
    this.layer?.tiles?.close();
    this.layer = layer;
    this.painted = "";
    this.picture.replaceChildren(...(layer === null ? [] : [layer.image]));
    this.picture.classList.toggle("reduced", layer !== null && layer.tiles !== null);
    this.applyWindow();
  }

  // --- drawing ------------------------------------------------------------------------------------------------------------

  protected override drawNow(): void {
    const view = this.placing();
    const next = this.coming?.layer ?? null;
    for (const tiles of [this.layer?.tiles, next?.tiles]) {
      tiles?.begin();
      tiles?.want(view);
    }
    super.drawNow(); // the loupe says what it needs
    this.layer?.tiles?.settle();
    next?.tiles?.settle();
    if (next !== null && (next.tiles === null || next.tiles.isComplete)) {
      this.coming = null;
      this.put(next);
    }
    this.paintTiles(view);
    this.noteResolution();
  }

  /** Whether all that is visible is as sharp as it can be, in the greys that are wanted. */
  private noteResolution(): void {
    const isSharp = this.layer !== null && (this.layer.tiles === null || this.layer.tiles.isComplete);
    this.element.dataset["resolution"] = isSharp && this.coming === null ? "full" : "screen";
  }

  private placing(): Placing {
    const [x, y] = this.onScreen(-0.5, -0.5);
    const [right, bottom] = this.onScreen(0.5, 0.5);
    const { clientWidth, clientHeight } = this.element;
    const dense = (across: number, down: number): [number, number] => [across * devicePixelRatio, down * devicePixelRatio];
    const [width, height] = dense(clientWidth, clientHeight);
    return { corner: dense(x, y), sample: dense(right - x, bottom - y), canvas: [Math.ceil(width), Math.ceil(height)] };
  }

  private paintTiles(view: Placing): void {
    const tiles = this.layer?.tiles ?? null;
    const context = this.canvas.getContext("2d");
    this.canvas.hidden = tiles === null;
    const wanted = [tiles?.version, ...view.corner, ...view.sample, ...view.canvas].join(" ");
    if (tiles === null || context === null || wanted === this.painted) return;
    this.painted = wanted;
    [this.canvas.width, this.canvas.height] = view.canvas; // which also clears it
    this.canvas.style.width = `${view.canvas[0] / devicePixelRatio}px`;
    this.canvas.style.height = `${view.canvas[1] / devicePixelRatio}px`;
    context.imageSmoothingEnabled = this.picture.style.imageRendering !== "pixelated";
    tiles.paint(context, view);
  }

  protected paint(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number, side: number): void {
    if (this.layer === null || this.flat === null) return;
    const { image, tiles } = this.layer;
    const { step } = this.flat;
    context.filter = this.picture.style.filter ? "url(#window)" : "none";
    context.drawImage(image, x / step, y / step, width / step, height / step, 0, 0, side, side);
    if (tiles !== null) {
      const sample: [number, number] = [side / width, side / height];
      const on: Placing = { corner: [-x * sample[0], -y * sample[1]], sample, canvas: [side, side] };
      tiles.want(on);
      tiles.paint(context, on);
    }
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
