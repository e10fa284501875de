/** A plane through a volume: its slice, where the other planes cross it, and the letters at its edges. */

import { make } from "./dom";
import { shape } from "./marks";
import { Plane, type Place, type Window } from "./plane";
import { say, type TextName } from "./texts";
import type { ViewEvents } from "./view";
import { paintSlice, type Axis, type Cut, type Grid, type Volume } from "./volume";
import { apply, type Position } from "./wire";

const WHEEL_PX = 50; // that the wheel turns for a slice

/** What all planes of a volume share. */
export interface Shared {
  volume: Volume | null;
  crossing: readonly number[]; // samples of the volume: the place that all planes go through
  window: Window;
  isInverted: boolean;
  greys: Uint8Array;
  version: number; // of what is painted: changes with the volume, its block and its window
}

export interface Links {
  readonly shared: Shared;
  /** All planes go through this place. */
  cross(index: readonly number[]): void;
  setWindow(window: Window): void;
  /** The mouse is in this plane. */
  entered(plane: SlicePlane): void;
}

/** Which axes of the world (0 left, 1 back, 2 up) run across, down and through, and the letters at the edges. */
export interface Orientation {
  readonly name: TextName;
  readonly across: readonly [number, boolean];
  readonly down: readonly [number, boolean];
  readonly through: number;
  readonly letters: readonly [string, string, string, string]; // left, right, top, bottom
}

export const AXIAL: Orientation = { name: "planeAxial", across: [0, false], down: [1, false], through: 2, letters: ["R", "L", "A", "P"] };
export const SAGITTAL: Orientation = { name: "planeSagittal", across: [1, false], down: [2, true], through: 0, letters: ["A", "P", "S", "I"] };
export const CORONAL: Orientation = { name: "planeCoronal", across: [0, false], down: [2, true], through: 1, letters: ["R", "L", "S", "I"] };

/** Samples as the browser draws them, and where their corner lies in the picture. */
interface Layer {
  readonly canvas: HTMLCanvasElement;
  left: number;
  top: number;
  step: readonly [number, number];
}

export class SlicePlane extends Plane {
  protected readonly coarse: Layer = layer();
  private readonly fine: Layer = layer();
  private readonly lines = shape("path", { class: "crosshair" });
  private readonly letters: SVGElement[];
  private painted = "";
  private wheeled = 0; // pixels, towards the next slice

  constructor(
    events: ViewEvents,
    protected readonly links: Links,
    protected readonly orientation: Orientation,
  ) {
    super(events, make("div"));
    this.picture.append(this.coarse.canvas, this.fine.canvas);
    this.letters = orientation.letters.map((letter) => {
      const made = shape("text", { class: "letter" });
      made.textContent = letter;
      return made;
    });
    this.behind.append(this.lines, ...this.letters);
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", say(orientation.name));
    this.element.append(make("span", { class: "plane-name", text: say(orientation.name) }));
    this.element.addEventListener("pointerenter", () => this.links.entered(this));
  }

  /** The slice that is shown, counted along the volume's own axis. */
  get slice(): number {
    return Math.min(this.slices - 1, Math.max(0, Math.round(this.crossing[this.cut.through] ?? 0)));
  }

  /** Go through the volume, by slices. */
  scroll(by: number): void {
    const { through } = this.cut;
    const to = Math.min(this.slices - 1, Math.max(0, this.slice + by));
    this.links.cross(this.crossing.map((v, axis) => (axis === through ? to : v)));
  }

  refresh(): void {
    this.draw();
  }

  protected get volume(): Volume | null {
    return this.links.shared.volume;
  }

  private get slices(): number {
    return this.volume?.size[this.cut.through] ?? 1;
  }

  private get crossing(): readonly number[] {
    return this.links.shared.crossing;
  }

  protected get cut(): Cut {
    const axes = this.volume?.axes;
    const { across, down, through } = this.orientation;
    const along = ([world, isAgainst]: readonly [number, boolean]): Axis => {
      const axis = axes?.[world] ?? { axis: world as 0 | 1 | 2, isReversed: false };
      return { axis: axis.axis, isReversed: axis.isReversed !== isAgainst };
    };
    return { across: along(across), down: along(down), through: axes?.[through]?.axis ?? (through as 0 | 1 | 2) };
  }

  protected get isReady(): boolean {
    return this.volume !== null;
  }

  protected get size(): readonly [number, number] {
    const { across, down } = this.cut;
    return [this.volume?.size[across.axis] ?? 1, this.volume?.size[down.axis] ?? 1];
  }

  /** At zoom 1 a screen pixel is 1 mm. */
  protected get scale(): readonly [number, number] {
    const { across, down } = this.cut;
    return [this.volume?.spacing[across.axis] ?? 1, this.volume?.spacing[down.axis] ?? 1];
  }

  protected get unitsPerPixel(): number {
    return 1;
  }

  protected toPlace(position: Position): Place {
    const index = apply(this.volume?.frame.toIndex ?? [], position);
    const [x, y] = this.flat(index);
    return { x, y, depth: (index[this.cut.through] ?? 0) - this.slice };
  }

  /** Samples of the volume to those across and down. */
  private flat(index: readonly number[]): [number, number] {
    const { across, down } = this.cut;
    const [wide, high] = this.size;
    const along = ({ axis, isReversed }: Axis, size: number): number => (isReversed ? size - 1 - (index[axis] ?? 0) : (index[axis] ?? 0));
    return [along(across, wide), along(down, high)];
  }

  protected toPosition(x: number, y: number, like: Position | null): number[] {
    return apply(this.volume?.frame.toMm ?? [], this.toIndex(x, y, like));
  }

  private toIndex(x: number, y: number, like: Position | null): number[] {
    const { across, down, through } = this.cut;
    const [wide, high] = this.size;
    const index = [0, 0, 0];
    index[across.axis] = across.isReversed ? wide - 1 - x : x;
    index[down.axis] = down.isReversed ? high - 1 - y : y;
    index[through] = like === null ? this.slice : (apply(this.volume?.frame.toIndex ?? [], like)[through] ?? 0);
    return index;
  }

  protected get window(): Window {
    return this.links.shared.window;
  }

  protected setWindow(window: Window): void {
    this.links.setWindow(window);
  }

  protected override pressed(x: number, y: number): void {
    const [wide, high] = this.size;
    if (x >= -0.5 && y >= -0.5 && x <= wide - 0.5 && y <= high - 0.5) this.links.cross(this.toIndex(x, y, null));
  }

  protected override turned(event: WheelEvent): void {
    if (event.ctrlKey) {
      super.turned(event);
      return;
    }
    const by = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : Math.sign(event.deltaY) * WHEEL_PX;
    this.wheeled += Math.max(-WHEEL_PX, Math.min(WHEEL_PX, by)); // a touch pad sends many small turns
    if (Math.abs(this.wheeled) < WHEEL_PX) return;
    this.scroll(Math.sign(this.wheeled));
    this.wheeled = 0;
  }

  protected override drawNow(): void {
    this.paintSlices();
    super.drawNow();
    const { clientWidth, clientHeight } = this.element;
    const edges: [number, number][] = [[8, clientHeight / 2], [clientWidth - 8, clientHeight / 2], [clientWidth / 2, 18], [clientWidth / 2, clientHeight - 8]];
    this.letters.forEach((letter, i) => {
      letter.setAttribute("x", String(edges[i]?.[0] ?? 0));
      letter.setAttribute("y", String(edges[i]?.[1] ?? 0));
    });
    const [x, y] = this.onScreen(...this.flat(this.crossing));
    this.lines.setAttribute("d", this.isReady ? `M0 ${y}H${clientWidth}M${x} 0V${clientHeight}` : "");
    this.element.dataset["slice"] = String(this.slice);
    this.element.dataset["resolution"] = this.volume?.isWhole || !this.fine.canvas.hidden ? "full" : "screen";
  }

  protected paintSlices(): void {
    const { volume } = this;
    const wanted = `${this.slice} ${this.links.shared.version}`;
    if (this.painted === wanted) return;
    this.painted = wanted;
    this.lay(this.coarse, volume?.whole ?? null);
    this.lay(this.fine, volume?.block ?? null);
  }

  private lay(on: Layer, grid: Grid | null): void {
    on.canvas.hidden = grid === null || !this.put(on, grid, (image) => paintSlice(image, grid, this.cut, this.slice, this.links.shared.greys));
  }

  /** Paint a grid's slice onto a canvas, and lay that where it belongs; false where nothing was painted. */
  protected put(on: Layer, grid: Grid, paint: (image: ImageData) => boolean): boolean {
    const { across, down } = this.cut;
    const { canvas } = on;
    const [wide, high] = [grid.size[across.axis], grid.size[down.axis]];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const context = canvas.getContext("2d");
    const image = context?.createImageData(wide, high);
    if (!context || !image || !paint(image)) return false;
    context.putImageData(image, 0, 0);
    const corner = ({ axis, isReversed }: Axis): number => {
      const [first, reach] = [grid.first[axis], grid.size[axis] * grid.step[axis]];
      return isReversed ? (this.volume?.size[axis] ?? 0) - first - reach : first;
    };
    on.left = corner(across);
    on.top = corner(down);
    on.step = [grid.step[across.axis], grid.step[down.axis]];
    Object.assign(canvas.style, {
      left: `${on.left}px`,
      top: `${on.top}px`,
      width: `${wide * on.step[0]}px`,
      height: `${high * on.step[1]}px`,
    });
    return true;
  }

  protected paint(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number, side: number): void {
    for (const { canvas, left, top, step } of [this.coarse, this.fine])
      if (!canvas.hidden)
        context.drawImage(canvas, (x - left) / step[0], (y - top) / step[1], width / step[0], height / step[1], 0, 0, side, side);
  }
}

function layer(): Layer {
  return { canvas: make("canvas"), left: 0, top: 0, step: [1, 1] };
}
