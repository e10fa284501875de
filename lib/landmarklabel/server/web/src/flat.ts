/** A 2D image as it comes: all of it, reduced where it is large, and parts of it; in greys of 8 bits from black to white. */

import type { Window } from "./plane";
import type { Part } from "./tiles";
import type { Frame } from "./wire";

export const AT_FIRST: Window = [0, 1];

/** `step` of all of it is the server's choice. */
export type Fetch = (low: number, high: number, part: Part | null, signal: AbortSignal | null) => Promise<{ blob: Blob; step: number }>;

export class Flat {
  private constructor(
    readonly frame: Frame,
    private readonly first: Blob,
    readonly step: number, // samples along a side that became one
    private readonly fetch: Fetch,
  ) {}

  static async of(frame: Frame, fetch: Fetch): Promise<Flat> {
    const { blob, step } = await fetch(...frame.window, null, null);
    return new Flat(frame, blob, step, fetch);
  }

  /** Whether 256 greys cannot say all its values; an image of 8 bits comes as 0 to 255, whatever it holds. */
  get isDeep(): boolean {
    const { window, range } = this.frame;
    return window[0] !== 0 || window[1] !== 255 || range[0] < 0 || range[1] > 255;
  }

  get size(): readonly [number, number] {
    const [width, height] = this.frame.size;
    return [width ?? 1, height ?? 1];
  }

  async whole(window: Window, signal: AbortSignal): Promise<Blob> {
    return isSame(window, AT_FIRST) ? this.first : (await this.fetch(...this.values(window), null, signal)).blob;
  }

  async part(part: Part, window: Window, signal: AbortSignal): Promise<Blob> {
    return (await this.fetch(...this.values(window), part, signal)).blob;
  }

  private values([low, high]: Window): [number, number] {
    const [black, white] = this.frame.window;
    return [black + low * (white - black), black + high * (white - black)];
  }
}

export const isSame = (a: Window, b: Window): boolean => a[0] === b[0] && a[1] === b[1];
