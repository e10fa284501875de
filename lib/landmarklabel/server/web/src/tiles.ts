/** Tiles of a large image: what is visible of it, with no more than a screen pixel for a sample; few at once, few kept. */

const TILE = 512; // samples of a tile as sent, along a side
const MARGIN = 1; // samples around it, so that neighbours are interpolated as one picture
const AT_ONCE = 4; // requests; browsers have six for a server, and saves need one
const MOST = 128; // tiles that are kept or asked for: 1 MiB each, and a screen of 4 MPixel needs some 90
const PAUSE_MS = 5_000; // after a request that failed

type Pair = readonly [number, number];

/** Part of an image, in its samples; of every `step` along x and y the mean. */
export interface Part {
  readonly first: Pair;
  readonly size: Pair;
  readonly step: number;
}

/** How an image lies on a canvas, in pixels of that: where its corner is, how large a sample is, and the canvas. */
export interface Placing {
  readonly corner: Pair;
  readonly sample: Pair;
  readonly canvas: Pair;
}

interface Tile {
  readonly key: string;
  readonly column: number;
  readonly row: number;
  readonly step: number;
}

export class Tiles {
  version = 0; // counts tiles that came
  private readonly kept = new Map<string, { readonly tile: Tile; readonly picture: ImageBitmap }>(); // the one used last comes last
  private readonly asked = new Map<string, AbortController>();
  private wanted = new Map<string, Tile>();
  private pause: ReturnType<typeof setTimeout> | undefined;
  private isClosed = false;

  /** `step`: of the picture that lies below; `onCome` is called when there is more to paint. */
  constructor(
    private readonly size: Pair,
    private readonly step: number,
    private readonly fetch: (part: Part, signal: AbortSignal) => Promise<Blob>,
    private readonly onCome: () => void,
  ) {}

  /** What is visible is said anew, by `want`, until `settle`. */
  begin(): void {
    this.wanted = new Map();
  }

  /** Those nearest the middle come first. */
  want(on: Placing): void {
    const middle = on.canvas.map((n) => n / 2);
    const off = (tile: Tile): number => {
      const [x0, y0, x1, y1] = this.edges(tile, on);
      return Math.hypot((x0 + x1) / 2 - (middle[0] ?? 0), (y0 + y1) / 2 - (middle[1] ?? 0));
    };
    const found = this.visible(on).sort((a, b) => off(a) - off(b));
    for (const tile of found.slice(0, MOST - this.wanted.size)) this.wanted.set(tile.key, tile);
  }

  /** Ask for what is missing; what is wanted no more is broken off, or goes when there are too many. */
  settle(): void {
    for (const [key, request] of this.asked)
      if (!this.wanted.has(key)) {
        this.asked.delete(key);
        request.abort();
      }
    for (const [key, { picture }] of this.kept) {
      if (this.kept.size <= MOST) break;
      if (this.wanted.has(key)) continue;
      this.kept.delete(key);
      picture.close();
    }
    if (this.pause !== undefined || this.isClosed) return;
    for (const [key, tile] of this.wanted) {
      if (this.asked.size >= AT_ONCE) return;
      if (!this.kept.has(key) && !this.asked.has(key)) void this.ask(tile);
    }
  }

  /** Whether all that is wanted is there, or cannot be had now. */
  get isComplete(): boolean {
    return this.pause !== undefined || [...this.wanted.keys()].every((key) => this.kept.has(key));
  }

  close(): void {
    this.isClosed = true;
    clearTimeout(this.pause);
    for (const request of this.asked.values()) request.abort();
    for (const { picture } of this.kept.values()) picture.close();
    this.kept.clear();
  }

  /** Every tile fills whole pixels and is interpolated beyond them: no seam. Coarser ones lie below. */
  paint(context: CanvasRenderingContext2D, on: Placing): void {
    const least = this.levelFor(on);
    if (least === null) return;
    const shown = [...this.kept.values()].filter(({ tile }) => tile.step >= least).sort((a, b) => b.tile.step - a.tile.step);
    context.imageSmoothingQuality = "medium"; // "low" would miss single samples where several fall into a pixel
    for (const { tile, picture } of shown) {
      const [x0, y0, x1, y1] = this.edges(tile, on);
      if (x1 <= 0 || y1 <= 0 || x0 >= on.canvas[0] || y0 >= on.canvas[1]) continue;
      this.kept.delete(tile.key);
      this.kept.set(tile.key, { tile, picture });
      const { first, step } = this.part(tile);
      context.save();
      context.beginPath();
      context.rect(x0, y0, x1 - x0, y1 - y0);
      context.clip();
      const [x, y] = [on.corner[0] + first[0] * on.sample[0], on.corner[1] + first[1] * on.sample[1]];
      context.drawImage(picture, x, y, picture.width * step * on.sample[0], picture.height * step * on.sample[1]);
      context.restore();
    }
  }

  private async ask(tile: Tile): Promise<void> {
    const request = new AbortController();
    this.asked.set(tile.key, request);
    try {
      const picture = await createImageBitmap(await this.fetch(this.part(tile), request.signal));
      if (this.asked.get(tile.key) === request && !this.isClosed) {
        this.kept.set(tile.key, { tile, picture });
        this.version++;
      } else picture.close();
    } catch {
      if (this.asked.get(tile.key) === request && !this.isClosed) this.rest(); // the picture below stays
    }
    if (this.asked.get(tile.key) === request) this.asked.delete(tile.key);
    if (!this.isClosed) this.onCome();
  }

  private rest(): void {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => {
      this.pause = undefined;
      this.onCome();
    }, PAUSE_MS);
  }

  /** The step of tiles for this size of a sample: a power of two; null where the picture below is fine enough. */
  private levelFor(on: Placing): number | null {
    const sample = Math.max(...on.sample);
    if (sample * this.step <= 1) return null;
    return 2 ** Math.max(0, Math.floor(Math.log2(1 / sample)));
  }

  private visible(on: Placing): Tile[] {
    const step = this.levelFor(on);
    if (step === null) return [];
    const span = TILE * step;
    const along = (axis: 0 | 1): number[] => {
      const at = (pixel: number): number => (pixel - on.corner[axis]) / on.sample[axis] / span;
      const [low, high] = [Math.max(0, Math.floor(at(0))), Math.min(Math.ceil(this.size[axis] / span), Math.ceil(at(on.canvas[axis])))];
      return Array.from({ length: Math.max(0, high - low) }, (_, i) => low + i);
    };
    const columns = along(0);
    return along(1).flatMap((row) => columns.map((column) => ({ key: `${step} ${column} ${row}`, column, row, step })));
  }

  private part({ column, row, step }: Tile): Part {
    const first = [column, row].map((n) => Math.max(0, (n * TILE - MARGIN) * step));
    const size = [column, row].map((n, axis) => ((n + 1) * TILE + MARGIN) * step - (first[axis] ?? 0));
    return { first: pair(first), size: pair(size), step };
  }

  /** Left, top, right, bottom on the canvas, without the margin. */
  private edges({ column, row, step }: Tile, on: Placing): readonly [number, number, number, number] {
    const edge = (n: number, axis: 0 | 1): number => Math.round(on.corner[axis] + Math.min(n * TILE * step, this.size[axis]) * on.sample[axis]);
    return [edge(column, 0), edge(row, 1), edge(column + 1, 0), edge(row + 1, 1)];
  }
}

const pair = (values: readonly number[]): Pair => [values[0] ?? 0, values[1] ?? 0];
