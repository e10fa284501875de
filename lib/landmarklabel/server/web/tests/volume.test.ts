import { describe, expect, it } from "vitest";
import { axesOf, brightest, greysFor, paintSlice, Volume, type Cut, type Grid, type Triple } from "../src/volume";
import type { Frame } from "../src/wire";

const frame = (size: Triple): Frame => ({
  size,
  toMm: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0]],
  toIndex: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0]],
  unit: "mm",
  window: [0, 100],
  range: [0, 100],
  voxels: [1, 0],
  pixels: "p",
  changed: false,
});
const AXIAL: Cut = { across: { axis: 0, isReversed: false }, down: { axis: 1, isReversed: false }, through: 2 };
const grid: Grid = { samples: Int16Array.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), size: [3, 2, 2], first: [0, 0, 0], step: [1, 1, 1] };
const GREYS = new Uint8Array(2 ** 16).map((_, level) => Math.max(0, level - 2 ** 15)); // a sample's grey is itself

function painted(cut: Cut, slice: number, wide: number, high: number, from = grid): number[] | null {
  const into = { width: wide, height: high, data: new Uint8ClampedArray(4 * wide * high) } as ImageData;
  if (!paintSlice(into, from, cut, slice, GREYS)) return null;
  return Array.from({ length: wide * high }, (_, i) => into.data[4 * i] ?? -1);
}

describe("a volume", () => {
  it("is painted as it lies, and backwards where an axis runs against the screen", () => {
    expect(painted(AXIAL, 1, 3, 2)).toEqual([6, 7, 8, 9, 10, 11]);
    const turned: Cut = { across: { axis: 0, isReversed: true }, down: { axis: 2, isReversed: true }, through: 1 };
    expect(painted(turned, 0, 3, 2)).toEqual([8, 7, 6, 2, 1, 0]);
  });

  it("has a slice for every sample that it covers, and none beside", () => {
    const coarse: Grid = { ...grid, first: [0, 0, 4], step: [2, 2, 3] };
    expect([3, 4, 6, 7, 9, 10].map((slice) => painted(AXIAL, slice, 3, 2, coarse)?.[0] ?? null)).toEqual([null, 0, 0, 6, 6, null]);
  });

  it("shows the brightest of what lies behind each other", () => {
    expect([...brightest({ ...grid, samples: Int16Array.from([5, 1, -2, 3, 4, 5, 0, 7, -3, 9, 0, 1]) }, AXIAL)]).toEqual([5, 7, -2, 9, 4, 5]);
  });

  it("finds which axis lies nearest to which of the world's, each once", () => {
    const axes = axesOf([[0.7, 0.72, 0, 0], [0.72, -0.7, 0, 0], [0, 0, -1, 0]]);
    expect(axes.map((a) => [a.axis, a.isReversed])).toEqual([[1, false], [0, false], [2, true]]);
  });

  it("turns values into greys by the window, and the other way round when inverted", () => {
    const greys = greysFor({ ...frame([1, 1, 1]), voxels: [2, 10] }, [0, 1], false); // a value is 2 samples and 10
    const of = (sample: number): number | undefined => greys[sample + 2 ** 15];
    expect([of(-5), of(20), of(45), of(1000)]).toEqual([0, 128, 255, 255]);
    expect(greysFor(frame([1, 1, 1]), [0, 0.5], true)[2 ** 15 + 25]).toBe(128);
  });

  it("fetches all of it for the screen, and a block as it is around a place, once", async () => {
    const asked: [Triple, Triple, Triple][] = [];
    const volume = await Volume.of(frame([600, 200, 100]), (first, size, step) => {
      asked.push([first, size, step]);
      return Promise.resolve(new Int16Array(size.reduce((n, v, axis) => n * Math.ceil(v / (step[axis] ?? 1)), 1)));
    });
    let came = 0;
    volume.onBlock = () => came++;
    await volume.look([590, 100, 50]);
    await volume.look([585, 110, 45]);
    await volume.look([300, 100, 50]);
    expect(asked.map(([first, size, step]) => [...first, ...size, ...step].join(" "))).toEqual([
      "0 0 0 600 200 100 3 1 1",
      "504 52 2 96 96 96 1 1 1",
      "252 52 2 96 96 96 1 1 1",
    ]);
    expect(came).toBe(2);
  });

  it("keeps the coarse picture where the server does not answer", async () => {
    let isAway = false;
    const volume = await Volume.of(frame([600, 2, 2]), (_first, size) => (isAway ? Promise.reject(new Error("away")) : Promise.resolve(new Int16Array((size[0] / 3) * 4))));
    isAway = true;
    await volume.look([0, 0, 0]);
    expect(volume.block).toBeNull();
  });
});
