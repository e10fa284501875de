/** The samples of a volume as they came: all of them averaged to the screen's resolution, and a block of them as they are. */

import type { Frame, Position } from "./wire";

export const LEVELS = 2 ** 16; // of a sample
const SCREEN_SAMPLES = 256; // along an axis: two planes beside each other on a common screen
const BLOCK = 96; // samples along an axis of a block at full resolution
const BLOCK_MARGIN = 16; // from the block's edge, within which another one is fetched

export type Triple = readonly [number, number, number];

/** Samples on a grid of their own: `first` and `step` in samples of the volume. */
export interface Grid {
  readonly samples: Int16Array;
  readonly size: Triple;
  readonly first: Triple;
  readonly step: Triple;
}

export type Fetch = (first: Triple, size: Triple, step: Triple) => Promise<Int16Array>;

/** Which axis of a volume runs along each axis of the world (left, back, up), and whether against it. */
export interface Axis {
  readonly axis: 0 | 1 | 2;
  readonly isReversed: boolean;
}

export class Volume {
  block: Grid | null = null;
  onBlock: () => void = () => undefined;
  readonly size: Triple;
  readonly spacing: Triple;
  readonly axes: readonly [Axis, Axis, Axis];
  private asked = "";

  private constructor(
    readonly frame: Frame,
    readonly whole: Grid,
    private readonly fetch: Fetch,
  ) {
    this.size = triple(frame.size);
    this.spacing = triple([0, 1, 2].map((axis) => Math.hypot(...frame.toMm.map((row) => row[axis] ?? 0))));
    this.axes = axesOf(frame.toMm);
  }

  static async of(frame: Frame, fetch: Fetch): Promise<Volume> {
    const size = triple(frame.size);
    const step = triple(size.map((n) => Math.ceil(n / SCREEN_SAMPLES)));
    const samples = await fetch([0, 0, 0], size, step);
    const shape = triple(size.map((n, axis) => Math.ceil(n / (step[axis] ?? 1))));
    return new Volume(frame, grid(samples, shape, [0, 0, 0], step), fetch);
  }

  get isWhole(): boolean {
    return this.whole.step.every((s) => s === 1);
  }

  /** Fetch the samples around a place, unless they are there; `onBlock` is called when they have come. */
  async look(index: Position): Promise<void> {
    this.asked = ""; // what was asked for before is wanted no more
    if (this.isWhole || (this.block !== null && holds(this.block, index, this.size))) return;
    const size = triple(this.size.map((n) => Math.min(n, BLOCK)));
    const first = triple(this.size.map((n, axis) => Math.min(Math.max(0, Math.round(index[axis] ?? 0) - BLOCK / 2), n - (size[axis] ?? 0))));
    const mark = (this.asked = String(first));
    const samples = await this.fetch(first, size, [1, 1, 1]).catch(() => null); // the coarse picture stays
    if (samples === null || mark !== this.asked) return;
    if (samples.length !== size[0] * size[1] * size[2]) return; // of an image that was exchanged meanwhile
    this.block = grid(samples, size, first, [1, 1, 1]);
    this.onBlock();
  }
}

function grid(samples: Int16Array, size: Triple, first: Triple, step: Triple): Grid {
  if (samples.length !== size[0] * size[1] * size[2]) throw new RangeError(`${samples.length} samples are not ${size.join(" × ")}`);
  return { samples, size, first, step };
}

export function triple(values: readonly number[]): Triple {
  return [values[0] ?? 0, values[1] ?? 0, values[2] ?? 0];
}

/** Whether a block reaches far enough around a place, or as far as the volume does. */
function holds(block: Grid, index: Position, size: Triple): boolean {
  return [0, 1, 2].every((axis) => {
    const at = index[axis] ?? 0;
    const low = block.first[axis] ?? 0;
    const high = low + (block.size[axis] ?? 0);
    return (low === 0 || at >= low + BLOCK_MARGIN) && (high === size[axis] || at < high - BLOCK_MARGIN);
  });
}

const ORDERS: readonly (readonly [0 | 1 | 2, 0 | 1 | 2, 0 | 1 | 2])[] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/** Rows of a frame to the axis of the volume that lies nearest to each of the world's: each serves once. */
export function axesOf(toMm: readonly (readonly number[])[]): [Axis, Axis, Axis] {
  const cosine = (world: number, axis: number): number => {
    const length = Math.hypot(...toMm.map((row) => row[axis] ?? 0));
    return (toMm[world]?.[axis] ?? 0) / (length || 1);
  };
  const worth = (order: readonly number[]): number => order.reduce((sum, axis, world) => sum + Math.abs(cosine(world, axis)), 0);
  const [x, y, z] = ORDERS.reduce((best, order) => (worth(order) > worth(best) + 1e-9 ? order : best));
  const of = (world: number, axis: 0 | 1 | 2): Axis => ({ axis, isReversed: cosine(world, axis) < 0 });
  return [of(0, x), of(1, y), of(2, z)];
}

/** One slice of a grid as it lies on the screen: `across` and `down` are axes of the volume, and may run backwards. */
export interface Cut {
  readonly across: Axis;
  readonly down: Axis;
  readonly through: 0 | 1 | 2;
}

/** Paint the slice of a grid through a sample of the volume into an image; false where the grid has no such slice. */
export function paintSlice(into: ImageData, from: Grid, cut: Cut, slice: number, greys: Uint8Array): boolean {
  const strides = [1, from.size[0], from.size[0] * from.size[1]];
  const k = Math.floor((slice - from.first[cut.through]) / from.step[cut.through]);
  if (k < 0 || k >= from.size[cut.through]) return false;
  const [start, dx, dy] = steps(from, cut, strides, k * (strides[cut.through] ?? 0));
  const pixels = new Uint32Array(into.data.buffer);
  for (let y = 0, out = 0; y < into.height; y++)
    for (let x = 0, at = start + y * dy; x < into.width; x++, at += dx, out++) pixels[out] = grey(greys[(from.samples[at] ?? 0) + LEVELS / 2] ?? 0);
  return true;
}

/** The brightest sample behind every pixel, whatever lies before it. */
export function brightest(from: Grid, cut: Cut): Int16Array {
  const strides = [1, from.size[0], from.size[0] * from.size[1]];
  const [wide, high, deep] = [from.size[cut.across.axis], from.size[cut.down.axis], from.size[cut.through]];
  const [start, dx, dy] = steps(from, cut, strides, 0);
  const dz = strides[cut.through] ?? 0;
  const made = new Int16Array(wide * high).fill(-LEVELS / 2);
  for (let z = 0; z < deep; z++)
    for (let y = 0, out = 0; y < high; y++)
      for (let x = 0, at = start + z * dz + y * dy; x < wide; x++, at += dx, out++) {
        const value = from.samples[at] ?? 0;
        if (value > (made[out] ?? 0)) made[out] = value;
      }
  return made;
}

export function paintSamples(into: ImageData, samples: Int16Array, greys: Uint8Array): void {
  const pixels = new Uint32Array(into.data.buffer);
  for (let out = 0; out < samples.length; out++) pixels[out] = grey(greys[(samples[out] ?? 0) + LEVELS / 2] ?? 0);
}

const grey = (value: number): number => 0xff000000 | (value * 0x010101);

/** Where the pixel in the corner has its sample, and how far it is to the next across and down. */
function steps(from: Grid, cut: Cut, strides: readonly number[], start: number): [number, number, number] {
  const stride = ({ axis, isReversed }: Axis): number => (strides[axis] ?? 0) * (isReversed ? -1 : 1);
  const corner = ({ axis, isReversed }: Axis): number => (isReversed ? (strides[axis] ?? 0) * (from.size[axis] - 1) : 0);
  return [start + corner(cut.across) + corner(cut.down), stride(cut.across), stride(cut.down)];
}

/** What every sample looks like: black up to one value, white from another on. */
export function greysFor(frame: Frame, window: readonly [number, number], isInverted: boolean): Uint8Array {
  const [slope, intercept] = frame.voxels;
  const [black, white] = frame.window;
  const width = white - black || 1;
  const [low, high] = window;
  const made = new Uint8Array(LEVELS);
  for (let level = 0; level < LEVELS; level++) {
    const share = ((level - LEVELS / 2) * slope + intercept - black) / width;
    const shown = Math.min(1, Math.max(0, (share - low) / (high - low)));
    made[level] = Math.round(255 * (isInverted ? 1 - shown : shown));
  }
  return made;
}
